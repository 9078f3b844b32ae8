"""What the third stage adds: the order before and after it, and measured poses beside the matched pictures'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import WITHIN_99, mahalanobis
from effovpr_ros.lab.evaluation.accuracy import error_percentiles, heading_errors_deg, position_errors_m
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer
from effovpr_ros.lab.evaluation.metrics import recall_at_k
from effovpr_ros.lab.evaluation.positions import turn_deg
from effovpr_ros.lab.evaluation.summary_records import MeasuredFigures, VerifiedFigures
from effovpr_ros.recognition.recognizer import Status


def verified_figures(dataset: Dataset, answers: Sequence[Answer]) -> VerifiedFigures | None:
    """Where the third stage ran, its milliseconds there, and R@1 without and with it; None if it never ran.

    Without it counts the candidate that the first two stages of the same query rank first.
    """
    answered = [answer for answer in answers if answer.ranked]
    spent_ms = [answer.latency_ms.verify for answer in answered if answer.latency_ms.verify > 0.0]
    if not spent_ms:
        return None
    low, high = np.percentile(spent_ms, [50, 95])
    before = [_first_of_two_stages(answer) for answer in answers]
    return VerifiedFigures(
        share=len(spent_ms) / len(answered),
        p50_ms=float(low),
        p95_ms=float(high),
        recall_at_1_before=recall_at_k(before, dataset.positives, 1)[0],
        recall_at_1=recall_at_k([answer.ranked for answer in answers], dataset.positives, 1)[0],
    )


def measured_figures(dataset: Dataset, answers: Sequence[Answer]) -> MeasuredFigures | None:
    """Errors of the measured poses of MATCHes, beside those of the matched pictures' poses of the same queries.

    None where no pose was measured, or no query has a true pose.
    """
    matches = [number for number, answer in enumerate(answers) if answer.status is Status.MATCH]
    measured = [number for number in matches if _measured(answers[number]) is not None]
    poses = {number: _measured(answers[number]) for number in measured}
    truths = {number: dataset.queries[number].pose for number in measured}
    known = [number for number in measured if truths[number] is not None]
    if not known:
        return None
    prior_m, prior_deg = position_errors_m(dataset, answers), heading_errors_deg(dataset, answers)
    errors_m = [_horizontal_m(poses[number], truths[number]) for number in known]
    errors_deg = turn_deg(_yaws([poses[number] for number in known]), _yaws([truths[number] for number in known]))
    foretold = [_foretold(answers[number], truths[number]) for number in known]
    judged = [distance for distance, _ in foretold if distance is not None]
    return MeasuredFigures(
        share_of_matches=len(measured) / len(matches),
        position_error_m=error_percentiles(np.array(errors_m)),
        heading_error_deg=error_percentiles(errors_deg),
        prior_position_error_m=error_percentiles(prior_m[known]),
        prior_heading_error_deg=error_percentiles(prior_deg[known]),
        foretold_std_m=float(np.median([std_m for _, std_m in foretold])),
        # All six degrees of freedom must be known of the truth.
        inside_99=float(np.mean(np.array(judged) <= WITHIN_99)) if judged else None,
        reasons=_reasons([answers[number] for number in matches]),
    )


def third_stage_lines(method: Mapping[str, Any]) -> list[str]:
    """The figures of one method of a summary for people."""
    lines, seen, measured = [], method["verified"], method["measured"]
    if seen is not None:
        lines.append(
            f"third stage at {100.0 * seen['share']:.0f} % of the queries, median / p95 there: "
            f"{seen['p50_ms']:.1f} / {seen['p95_ms']:.1f} ms"
        )
        lines.append(
            f"R@1 of two stages {100.0 * seen['recall_at_1_before']:.1f}, of three {100.0 * seen['recall_at_1']:.1f}"
        )
    if measured is not None:
        inside = "" if measured["inside_99"] is None else f"; {100.0 * measured['inside_99']:.0f} % inside 99 %"
        lines.append(
            f"pose measured of {100.0 * measured['share_of_matches']:.0f} % of the MATCHes; foretold standard "
            f"deviation {measured['foretold_std_m']:.3f} m{inside}"
        )
        for key, what, unit, digits in (
            ("position_error_m", "position", "m", 3),
            ("heading_error_deg", "heading", "deg", 2),
        ):
            error, prior = measured[key], measured[f"prior_{key}"]
            if error is not None:
                beside = "" if prior is None else f" (the matched pictures': {_pair(prior, digits)} {unit})"
                lines.append(f"measured {what} error, median / p95: {_pair(error, digits)} {unit}{beside}")
    return lines


def _pair(error: Mapping[str, float], digits: int) -> str:
    return f"{error['p50']:.{digits}f} / {error['p95']:.{digits}f}"


def _first_of_two_stages(answer: Answer) -> Sequence[int]:
    """Equal scores by similarity, then number, as the first two stages order them."""
    if answer.recognition is None or not answer.recognition.candidates:
        return answer.ranked
    best = max(answer.recognition.candidates, key=lambda found: (found.score, found.similarity, -found.place.place_id))
    return [best.place.place_id]


def _measured(answer: Answer) -> Pose | None:
    measurement = None if answer.recognition is None else answer.recognition.measurement
    return None if measurement is None else measurement.pose


def _reasons(answers: Sequence[Answer]) -> dict[str, int]:
    """How often each outcome of measuring was met at a MATCH."""
    counts: dict[str, int] = {}
    for answer in answers:
        measurement = None if answer.recognition is None else answer.recognition.measurement
        if measurement is not None:
            counts[measurement.outcome.value] = counts.get(measurement.outcome.value, 0) + 1
    return counts


def _horizontal_m(pose: Pose | None, truth: Pose | None) -> float:
    if pose is None or truth is None:
        return np.nan
    return float(np.hypot(*np.subtract(pose.position_xyz[:2], truth.position_xyz[:2])))


def _yaws(poses: Sequence[Pose | None]) -> NDArray[np.float64]:
    return np.array([None if pose is None else pose.yaw_rad for pose in poses], np.float64)


def _foretold(answer: Answer, truth: Pose | None) -> tuple[float | None, float]:
    """Squared error against the covariance, None where the truth is not known whole, and the standard deviation."""
    measurement = None if answer.recognition is None else answer.recognition.measurement
    if measurement is None or measurement.pose is None or measurement.covariance is None:
        return None, np.nan
    std_m = float(np.sqrt(np.trace(measurement.covariance[:3, :3])))
    if truth is None or truth.position_xyz[2] is None or truth.quat_xyzw is None:
        return None, std_m
    return mahalanobis(measurement.pose, truth, measurement.covariance), std_m
