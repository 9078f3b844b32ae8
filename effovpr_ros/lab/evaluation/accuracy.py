"""What answers are worth beyond recall: distance from the truth, behaviour off the map, strata."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer
from effovpr_ros.lab.evaluation.metrics import recall_at_k
from effovpr_ros.lab.evaluation.positions import headings_rad, horizontal_distance_m, turn_deg
from effovpr_ros.lab.evaluation.runner import MethodResult
from effovpr_ros.lab.evaluation.summary_records import ConditionFigures, ErrorFigures, OutsideFigures
from effovpr_ros.recognition.recognizer import Status


def position_errors_m(dataset: Dataset, answers: Sequence[Answer]) -> NDArray[np.float64]:
    """(N,) horizontal metres from each query to its first candidate, NaN without one or where a pose is unknown."""
    errors = [
        horizontal_distance_m(query, dataset.database[answer.ranked[0]]) if answer.ranked else None
        for query, answer in zip(dataset.queries, answers, strict=True)
    ]
    return np.array(errors, np.float64)


def heading_errors_deg(dataset: Dataset, answers: Sequence[Answer]) -> NDArray[np.float64]:
    """(N,) degrees in [0, 180] between each query and its first candidate, NaN where a heading is unknown."""
    stored = headings_rad(dataset.database)
    first = np.array([stored[answer.ranked[0]] if answer.ranked else np.nan for answer in answers], np.float64)
    return turn_deg(first, headings_rad(dataset.queries))


def error_percentiles(errors: NDArray[np.float64]) -> ErrorFigures | None:
    """Of the errors that are known; None if none is."""
    known = errors[np.isfinite(errors)]
    if not len(known):
        return None
    p50, p95 = np.percentile(known, [50, 95])
    return ErrorFigures(float(p50), float(p95), float(known.max()), len(known))


def answered_outside(dataset: Dataset, result: MethodResult) -> OutsideFigures:
    """Queries without a positive, and how many of them were a MATCH nevertheless; None if the method never refuses."""
    outside = [answer for answer, right in zip(result.answers, dataset.positives, strict=True) if not right]
    matches = sum(answer.status is Status.MATCH for answer in outside)
    return OutsideFigures(len(outside), matches if result.refuses else None)


def recall_by_condition(dataset: Dataset, answers: Sequence[Answer]) -> dict[str, ConditionFigures] | None:
    """R@1 over the queries of each condition that have a positive; None where the data name no condition."""
    if not dataset.conditions:
        return None
    strata: dict[str, ConditionFigures] = {}
    for condition in sorted(set(dataset.conditions)):
        chosen = [number for number, name in enumerate(dataset.conditions) if name == condition]
        positives = [dataset.positives[number] for number in chosen]
        count = sum(map(bool, positives))
        recall = recall_at_k([answers[number].ranked for number in chosen], positives, 1)[0] if count else None
        strata[condition] = ConditionFigures(count, recall)
    return strata
