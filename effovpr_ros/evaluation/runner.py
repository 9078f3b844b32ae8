"""Runs of the real pipeline over a data set: features once, then each method on a map in a scratch folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effovpr_ros.errors import EvaluationError
from effovpr_ros.evaluation.ground_truth import Dataset
from effovpr_ros.evaluation.metrics import bootstrap_interval, precision_recall, random_recall_at_1, recall_at_k
from effovpr_ros.features.extractor import FeatureExtractor, Features
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.config import RecognizerConfig
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Recognition

SCHEMA_VERSION = 1
RANKS = (1, 5, 10, 20)
PRECISIONS = (1.0, 0.99)
ANSWER_COLUMNS = ("method", "query", "status", "confidence", "database", "right")
_STAGES = ("extract", "search", "rerank", "decide", "total")


@dataclass(frozen=True)
class Extracted:
    """Features of a data set, computed once for all methods.

    Attributes:
        database: of each database image.
        queries: of each query.
        extract_ms: of each query, decoding left out.
    """

    database: Sequence[Features]
    queries: Sequence[Features]
    extract_ms: Sequence[float]


@dataclass(frozen=True)
class MethodResult:
    """Answers of one method to all queries; None where a query has nothing to be answered with."""

    recognitions: Sequence[Recognition | None]
    bytes_per_place: float

    def ranked(self) -> list[list[int]]:
        """Database numbers of each query, best first."""
        return [
            [candidate.place.place_id for candidate in recognition.candidates] if recognition else []
            for recognition in self.recognitions
        ]


def extract_dataset(dataset: Dataset, extractor: FeatureExtractor, progress: Callable[[int], object]) -> Extracted:
    """Features of every image; an image that is both query and database is extracted once.

    Raises:
        ImageError: an image cannot be read.
    """
    queries, times = [], []
    for frame in dataset.queries:
        image = frame.load()
        started = time.perf_counter()
        queries += extractor.extract([image])
        times.append((time.perf_counter() - started) * 1e3)
        progress(1)
    if dataset.database is dataset.queries:
        return Extracted(queries, queries, times)
    database: list[Features] = []
    for start in range(0, len(dataset.database), 8):
        batch = dataset.database[start : start + 8]
        database += extractor.extract([frame.load() for frame in batch])
        progress(len(batch))
    return Extracted(database, queries, times)


def run_methods(
    dataset: Dataset,
    extracted: Extracted,
    extractor: FeatureExtractor,
    methods: Mapping[str, RecognizerConfig],
    progress: Callable[[int], object],
) -> dict[str, MethodResult]:
    """Answer every query by every method, through a map as the node would open it."""
    with (
        tempfile.TemporaryDirectory(prefix="effovpr_evaluate_") as folder,
        PlaceMap.create(Path(folder) / "map", fingerprint=extractor.fingerprint) as place_map,
    ):
        place_map.add(
            [
                NewPlace("", frame.stamp_ns, f"{number}/{frame.name}", frame.pose, frame.geo, (1, 1), b"", features)
                for number, (frame, features) in enumerate(zip(dataset.database, extracted.database, strict=True))
            ]
        )
        place_map.flush()
        parts = place_map.bytes_by_part()
        size = (parts["global_descriptors"] + parts["local_descriptors"]) / len(place_map)
        global_size = parts["global_descriptors"] / len(place_map)
        results = {}
        for name, config in methods.items():
            recognizer = PlaceRecognizer(extractor, place_map, config)
            recognitions: list[Recognition | None] = []
            for features, allowed in zip(extracted.queries, dataset.allowed, strict=True):
                within = None if len(allowed) == len(dataset.database) else _within(allowed)
                answer = recognizer.recognize_features(features, within=within) if len(allowed) else None
                recognitions.append(answer)
                progress(1)
            results[name] = MethodResult(recognitions, size if config.rerank else global_size)
    return results


def _within(allowed: range) -> Callable[[Any], bool]:
    return lambda place: place.place_id in allowed


def summarise(dataset: Dataset, extracted: Extracted, results: Mapping[str, MethodResult]) -> dict[str, Any]:
    """The result as plain values; docs/evaluation.md describes the schema."""
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": {
            "name": dataset.name,
            "queries": len(dataset.queries),
            "queries_with_positives": sum(bool(item) for item in dataset.positives),
            "database": len(dataset.database),
        },
        "random_recall_at_1": random_recall_at_1(dataset.positives, dataset.allowed),
        "methods": {name: _summarise_method(dataset, extracted, result) for name, result in results.items()},
    }


def answers(dataset: Dataset, results: Mapping[str, MethodResult]) -> Iterator[dict[str, Any]]:
    """One row for each method and query, with `ANSWER_COLUMNS`; `right` is empty where the query has no positive."""
    for name, result in results.items():
        rows = zip(dataset.queries, result.recognitions, result.ranked(), dataset.positives, strict=True)
        for frame, recognition, order, positives in rows:
            row: dict[str, Any] = {"method": name, "query": frame.name, "status": "", "confidence": ""}
            if recognition is not None:
                row.update(status=recognition.status.name, confidence=f"{recognition.confidence:.4f}")
            row["database"] = dataset.database[order[0]].name if order else ""
            row["right"] = int(bool(order) and order[0] in positives) if positives else ""
            yield row


def _summarise_method(dataset: Dataset, extracted: Extracted, result: MethodResult) -> dict[str, Any]:
    ranked = result.ranked()
    recalls = {k: recall_at_k(ranked, dataset.positives, k) for k in RANKS}
    answered = [
        (recognition, order[0] in positives)
        for recognition, order, positives in zip(result.recognitions, ranked, dataset.positives, strict=True)
        if recognition is not None and order
    ]
    with_positives = sum(bool(item) for item in dataset.positives)
    confidences, rights = [item.confidence for item, _ in answered], [right for _, right in answered]
    curve = precision_recall(confidences, rights, with_positives)
    hits = [bool(o) and o[0] in right for o, right in zip(ranked, dataset.positives, strict=True) if right]
    low, high = bootstrap_interval(hits)
    matches = [right for item, right in answered if item.status.name == "MATCH"]
    return {
        "recall": {str(k): recalls[k][0] for k in RANKS},
        "recall_all_queries": {str(k): recalls[k][1] for k in RANKS},
        "recall_at_1_interval": [low, high],
        "average_precision": curve.average_precision,
        "recall_at_precision": {str(p): curve.recall_at(p) for p in PRECISIONS},
        "matches": len(matches),
        "wrong_matches": matches.count(False),
        "calibration_error": None,
        "latency_ms": _latencies(extracted, result),
        "bytes_per_place": result.bytes_per_place,
    }


def _latencies(extracted: Extracted, result: MethodResult) -> dict[str, dict[str, float]]:
    rows = [
        {**vars(recognition.latency_ms), "extract": extract, "total": recognition.latency_ms.total + extract}
        for recognition, extract in zip(result.recognitions, extracted.extract_ms, strict=True)
        if recognition is not None
    ]
    if not rows:
        raise EvaluationError("no query could be answered: none is allowed a database image; lower --min-gap")
    percentiles = {stage: np.percentile([row[stage] for row in rows], [50, 95]) for stage in _STAGES}
    return {stage: {"p50": float(low), "p95": float(high)} for stage, (low, high) in percentiles.items()}
