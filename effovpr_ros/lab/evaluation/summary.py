"""Results to plain values: the object of `--json` (see `summary_records`) and the rows of `answers.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.accuracy import (
    answered_outside,
    error_percentiles,
    heading_errors_deg,
    position_errors_m,
    recall_by_condition,
)
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer
from effovpr_ros.lab.evaluation.metrics import (
    bootstrap_interval,
    precision_recall,
    random_recall_at_1,
    recall_at_k,
    reliability,
)
from effovpr_ros.lab.evaluation.runner import MethodResult
from effovpr_ros.lab.evaluation.summary_records import (
    SCHEMA_VERSION,
    DatasetFigures,
    EvaluatedData,
    LatencyFigures,
    MethodFigures,
    Summary,
)
from effovpr_ros.lab.evaluation.third_stage_figures import measured_figures, verified_figures
from effovpr_ros.recognition.recognizer import Status

RANKS = (1, 5, 10, 20)
PRECISIONS = (1.0, 0.99)
ANSWER_COLUMNS = ("method", "query", "status", "confidence", "database", "right")
STAGES = ("extract", "search", "rerank", "verify", "pose", "decide", "total")


def summarise(dataset: Dataset, results: Mapping[str, MethodResult]) -> dict[str, Any]:
    """The result as plain values, those of a `Summary`."""
    methods = {name: method_figures(dataset, result) for name, result in results.items()}
    return asdict(Summary(**vars(describe(dataset)), methods=methods))


def describe(dataset: Dataset) -> EvaluatedData:
    """What is said of the images."""
    return EvaluatedData(
        schema_version=SCHEMA_VERSION,
        dataset=DatasetFigures(
            name=dataset.name,
            queries=len(dataset.queries),
            queries_with_positives=sum(bool(item) for item in dataset.positives),
            database=len(dataset.database) if dataset.database_known else None,
        ),
        notes=list(dataset.notes),
        random_recall_at_1=(random_recall_at_1(dataset.positives, dataset.allowed) if dataset.database_known else None),
    )


def dataset_line(data: Mapping[str, Any]) -> str:
    """The key `dataset` of a summary, for people."""
    database = f"{data['database']} database images" if data["database"] is not None else "database not known"
    return f"{data['name']}: {data['queries']} queries, {data['queries_with_positives']} with a positive, {database}"


def answer_rows(dataset: Dataset, results: Mapping[str, MethodResult]) -> Iterator[dict[str, Any]]:
    """One row for each method and query, with `ANSWER_COLUMNS`; `right` is empty where the query has no positive."""
    for name, result in results.items():
        for frame, answer, positives in zip(dataset.queries, result.answers, dataset.positives, strict=True):
            best = answer.ranked[0] if answer.ranked else None
            yield {
                "method": name,
                "query": frame.name,
                "status": answer.status.name if answer.status is not None else "",
                "confidence": f"{answer.confidence:.4f}",
                "database": dataset.database[best].name if best is not None else "",
                "right": int(best in positives) if positives else "",
            }


def method_figures(dataset: Dataset, result: MethodResult) -> MethodFigures:
    """What one method reached.

    Raises:
        EvaluationError: no query could be answered.
    """
    ranked = [answer.ranked for answer in result.answers]
    recalls = {k: recall_at_k(ranked, dataset.positives, k) for k in RANKS}
    answered = [
        (answer, answer.ranked[0] in positives)
        for answer, positives in zip(result.answers, dataset.positives, strict=True)
        if answer.ranked
    ]
    if not answered:
        raise EvaluationError("no query could be answered: none is allowed a database image; lower --min-gap")
    with_positives = sum(bool(item) for item in dataset.positives)
    confidences, rights = [answer.confidence for answer, _ in answered], [right for _, right in answered]
    curve = precision_recall(confidences, rights, with_positives)
    hits = [bool(o) and o[0] in right for o, right in zip(ranked, dataset.positives, strict=True) if right]
    low, high = bootstrap_interval(hits)
    matches = [right for answer, right in answered if answer.status is Status.MATCH]
    position_m, heading_deg = position_errors_m(dataset, result.answers), heading_errors_deg(dataset, result.answers)
    matched = [answer.status is Status.MATCH for answer in result.answers]
    return MethodFigures(
        recall={str(k): recalls[k][0] for k in RANKS},
        recall_all_queries={str(k): recalls[k][1] for k in RANKS},
        recall_at_1_interval=(low, high),
        average_precision=curve.average_precision,
        recall_at_precision={str(p): curve.recall_at(p) for p in PRECISIONS},
        matches=len(matches) if result.refuses else None,
        wrong_matches=matches.count(False) if result.refuses else None,
        outside=answered_outside(dataset, result),
        position_error_m=error_percentiles(position_m[matched]),
        position_error_m_all_answers=error_percentiles(position_m),
        heading_error_deg=error_percentiles(heading_deg[matched]),
        heading_error_deg_all_answers=error_percentiles(heading_deg),
        by_condition=recall_by_condition(dataset, result.answers),
        calibration_error=(reliability(confidences, rights).expected_calibration_error if result.calibrated else None),
        latency_ms=_latencies([answer for answer, _ in answered]),
        verified=verified_figures(dataset, result.answers),
        measured=measured_figures(dataset, result.answers),
        bytes_per_place=result.bytes_per_place,
    )


def _latencies(answers: Sequence[Answer]) -> dict[str, LatencyFigures]:
    percentiles = {
        stage: np.percentile([getattr(answer.latency_ms, stage) for answer in answers], [50, 95]) for stage in STAGES
    }
    return {stage: LatencyFigures(float(low), float(high)) for stage, (low, high) in percentiles.items()}
