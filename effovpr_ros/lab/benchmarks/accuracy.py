"""Recall, bytes and time of this package beside its peers, and of each engine, on data sets with ground truth."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from effovpr_ros.core.errors import EngineError, EvaluationError
from effovpr_ros.engines.catalogue import TORCH
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.local_projection import FULL
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import EffoVPRMethod, Method, Query
from effovpr_ros.lab.evaluation.metrics import recall_at_k
from effovpr_ros.lab.evaluation.orb_bow import OrbBowMethod
from effovpr_ros.lab.evaluation.runner import MethodResult, database_map, extract_queries, run_methods
from effovpr_ros.lab.evaluation.vlad import VladMethod
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.quantisation_sources import frames_quantisation_images
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

MethodMaker = Callable[[FeatureExtractor, MapReader, RecognizerConfig], Method]
ALL_STAGES, BOTH_STAGES, FIRST_STAGE = "effovpr", "effovpr, stages 1 and 2", "effovpr, stage 1"
FULL_CODES = "effovpr, full local descriptors"
VLAD, ORB_BOW = "vlad", "orb-bow"


@dataclass(frozen=True)
class AccuracyFigures:
    """A method on a data set.

    Attributes:
        dataset: its name.
        method: its name.
        engine: that ran the network; empty where none does.
        queries: that have a right answer in the database.
        recall_at_1: of them, in percent.
        global_bytes: a place, of the global descriptor; 0 where there is none.
        local_bytes: a place, of local descriptors or words, and of the points of the third stage.
        answer_ms: median of a query beyond the network: aggregation, search and re-ranking, ORB's features.
    """

    dataset: str
    method: str
    engine: str
    queries: int
    recall_at_1: float
    global_bytes: float
    local_bytes: float
    answer_ms: float


def measure_accuracy(
    dataset: Dataset,
    config: ExtractorConfig,
    engines: Sequence[str],
    recognition: RecognizerConfig,
    warn: Callable[[str], object],
) -> list[AccuracyFigures]:
    """Ask every query by each method.

    Args:
        dataset: with ground truth.
        config: of the features; its engine plays no part.
        engines: of both stages; the first one serves the peers too.
        recognition: settings.
        warn: told of an engine or a method that cannot be used on these images.
    """
    rows: list[AccuracyFigures] = []
    for number, engine in enumerate(engines):
        try:
            extractor = FeatureExtractor(replace(config, engine=engine), frames_quantisation_images(dataset.database))
        except EngineError as error:
            warn(f"{dataset.name}: {error}")
            continue
        rows += _of_extractor(dataset, extractor, _STAGES, recognition, warn)
        if number == 0:
            full = extractor.reading(replace(extractor.config, local_codes=FULL))
            rows += _of_extractor(dataset, full, _PEERS, recognition, warn)
    return rows


def engines_to_compare(best: str, others: Sequence[str]) -> list[str]:
    """The best engine first, then PyTorch and others, each once."""
    return list(dict.fromkeys((best, TORCH, *others)))


def _of_extractor(
    dataset: Dataset,
    extractor: FeatureExtractor,
    makers: Mapping[str, MethodMaker],
    recognition: RecognizerConfig,
    warn: Callable[[str], object],
) -> list[AccuracyFigures]:
    queries = extract_queries(dataset, extractor, lambda _: None)
    rows = []
    with database_map(dataset, queries, extractor, lambda _: None, with_points=ALL_STAGES in makers) as place_map:
        stored = {part: size / len(place_map) for part, size in place_map.bytes_by_part().items()}
        whole, local = stored["global_descriptors"], stored["local_descriptors"]
        for name, make in makers.items():
            try:
                method = make(extractor, place_map, recognition)
            except EvaluationError as error:
                warn(f"{dataset.name}: {error}")
                continue
            result = run_methods(queries, {name: method}, lambda _: None)[name]
            sizes = {
                ALL_STAGES: (whole, local + stored.get("points", 0.0)),
                FIRST_STAGE: (whole, 0.0),
                VLAD: (method.bytes_per_place, 0.0),
                ORB_BOW: (0.0, method.bytes_per_place),
            }
            engine = "" if name == ORB_BOW else extractor.engine.name
            rows.append(_row(dataset, queries, name, engine, result, sizes.get(name, (whole, local))))
    return rows


def _all_stages(extractor: FeatureExtractor, place_map: MapReader, recognition: RecognizerConfig) -> Method:
    # Without a budget of time, which would let recall depend on what else the machine does.
    recognition = replace(recognition, verify_budget_ms=0.0)
    return EffoVPRMethod(place_map, PlaceRecognizer(extractor, place_map, recognition))


def _both_stages(extractor: FeatureExtractor, place_map: MapReader, recognition: RecognizerConfig) -> Method:
    return _all_stages(extractor, place_map, replace(recognition, verify="off"))


def _first_stage(extractor: FeatureExtractor, place_map: MapReader, recognition: RecognizerConfig) -> Method:
    return _both_stages(extractor, place_map, replace(recognition, rerank=False))


_STAGES: dict[str, MethodMaker] = {ALL_STAGES: _all_stages, BOTH_STAGES: _both_stages, FIRST_STAGE: _first_stage}
_PEERS: dict[str, MethodMaker] = {
    FULL_CODES: _both_stages,
    VLAD: lambda _, place_map, recognition: VladMethod(place_map, recognition.top_k),
    ORB_BOW: lambda _, place_map, recognition: OrbBowMethod(place_map, recognition.top_k),
}


def _row(
    dataset: Dataset, queries: Sequence[Query], name: str, engine: str, result: MethodResult, sizes: tuple[float, float]
) -> AccuracyFigures:
    recall, _ = recall_at_k([answer.ranked for answer in result.answers], dataset.positives, 1)
    network_ms = [query.extract_ms if engine else 0.0 for query in queries]
    beyond_ms = [
        answer.latency_ms.total - spent_ms for answer, spent_ms in zip(result.answers, network_ms, strict=True)
    ]
    return AccuracyFigures(
        dataset.name,
        name,
        engine,
        sum(map(bool, dataset.positives)),
        round(100.0 * recall, 2),
        round(sizes[0], 1),
        round(sizes[1], 1),
        round(statistics.median(beyond_ms), 3),
    )
