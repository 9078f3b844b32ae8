"""What `effovpr evaluate --json` prints: the form of its objects, from which their JSON schemas are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SCHEMA_VERSION = 1
"""It grows when a key changes its meaning or goes."""


@dataclass(frozen=True)
class DatasetFigures:
    """The images.

    Attributes:
        name: of the data set.
        queries: images that ask.
        queries_with_positives: of them, those that have a right answer.
        database: images that may be answered; null where they are not known.
    """

    name: str
    queries: int
    queries_with_positives: int
    database: int | None


@dataclass(frozen=True)
class ErrorFigures:
    """Errors of those answers whose truth is known.

    Attributes:
        p50: median.
        p95: 95th percentile.
        max: largest.
        count: number of errors.
    """

    p50: float
    p95: float
    max: float
    count: int


@dataclass(frozen=True)
class OutsideFigures:
    """Queries without any positive.

    Attributes:
        queries: their number.
        matches: of them, those that came out as MATCH; null for a method that never refuses.
    """

    queries: int
    matches: int | None


@dataclass(frozen=True)
class ConditionFigures:
    """The queries of one condition.

    Attributes:
        queries_with_positives: their number.
        recall_at_1: of them, in [0, 1]; null where there is none.
    """

    queries_with_positives: int
    recall_at_1: float | None


@dataclass(frozen=True)
class LatencyFigures:
    """Milliseconds of a stage over the queries.

    Attributes:
        p50: median.
        p95: 95th percentile.
    """

    p50: float
    p95: float


@dataclass(frozen=True)
class VerifiedFigures:
    """What the third stage did.

    Attributes:
        share: of the answers, those that it looked at.
        p50_ms: median of its time there.
        p95_ms: 95th percentile of it.
        recall_at_1_before: of the order that the first two stages give.
        recall_at_1: of the final order.
    """

    share: float
    p50_ms: float
    p95_ms: float
    recall_at_1_before: float
    recall_at_1: float


@dataclass(frozen=True)
class MeasuredFigures:
    """MATCHes whose pose was measured. `prior_` are the matched pictures' poses at the same queries.

    Attributes:
        share_of_matches: that were measured.
        position_error_m: horizontal, of the measured poses.
        heading_error_deg: of the measured poses.
        prior_position_error_m: horizontal.
        prior_heading_error_deg: likewise.
        foretold_std_m: median of the foretold standard deviation of the position.
        inside_99: share of the errors in six degrees of freedom inside the foretold 99 % ellipsoid; null where the
            truth has no height or heading.
        reasons: MATCHes by what measuring ended with.
    """

    share_of_matches: float
    position_error_m: ErrorFigures | None
    heading_error_deg: ErrorFigures | None
    prior_position_error_m: ErrorFigures | None
    prior_heading_error_deg: ErrorFigures | None
    foretold_std_m: float
    inside_99: float | None
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class MethodFigures:
    """One method.

    Attributes:
        recall: R@1, 5, 10 and 20 over the queries that have a positive, in [0, 1].
        recall_all_queries: the same hits over all queries.
        recall_at_1_interval: 95 % percentile bootstrap (2,000 draws, seed 0) of R@1.
        average_precision: sum over thresholds of precision times the step in recall.
        recall_at_precision: largest recall at a precision of at least 1.0 and 0.99.
        matches: answers with status MATCH; null for a method that never refuses.
        wrong_matches: of them, those whose first candidate is no positive.
        outside: queries without any positive.
        position_error_m: horizontal distance from query to first candidate, over answers with status MATCH; null where
            no pose is known.
        position_error_m_all_answers: likewise, whatever the status.
        heading_error_deg: angle between their headings, over answers with status MATCH; null where none is known.
        heading_error_deg_all_answers: likewise, whatever the status.
        by_condition: by the name of the condition; null where the data name none.
        calibration_error: expected calibration error over the answered queries, where the confidence was fitted for
            the setting; else null.
        latency_ms: extract, search, rerank, verify, pose, decide and total; decoding is left out.
        verified: null where the third stage never ran.
        measured: null where no pose was measured, or the truth is not known.
        bytes_per_place: descriptors: global, and local where the method re-ranks, and points where it verifies; a
            float32 VLAD; 8 bytes a word; null where the map is not known.
    """

    recall: Mapping[str, float]
    recall_all_queries: Mapping[str, float]
    recall_at_1_interval: tuple[float, float]
    average_precision: float
    recall_at_precision: Mapping[str, float]
    matches: int | None
    wrong_matches: int | None
    outside: OutsideFigures
    position_error_m: ErrorFigures | None
    position_error_m_all_answers: ErrorFigures | None
    heading_error_deg: ErrorFigures | None
    heading_error_deg_all_answers: ErrorFigures | None
    by_condition: Mapping[str, ConditionFigures] | None
    calibration_error: float | None
    latency_ms: Mapping[str, LatencyFigures]
    verified: VerifiedFigures | None
    measured: MeasuredFigures | None
    bytes_per_place: float | None


@dataclass(frozen=True)
class EvaluatedData:
    """What was evaluated on.

    Attributes:
        schema_version: grows when a key changes its meaning or goes.
        dataset: the images.
        notes: lines on images left out and assumptions made; they are on stderr too.
        random_recall_at_1: expected R@1 of a guess among the allowed images, over queries with a positive; null where
            the database is not known.
    """

    schema_version: int
    dataset: DatasetFigures
    notes: Sequence[str]
    random_recall_at_1: float | None


@dataclass(frozen=True)
class Summary(EvaluatedData):
    """The result of an evaluation.

    Attributes:
        methods: by name.
    """

    methods: Mapping[str, MethodFigures]


@dataclass(frozen=True)
class _AblatedSetting:
    """Which setting the figures are of.

    Attributes:
        factor: that was varied.
        value: that it had.
        base: whether that is the base setting's own value.
        keypoints_per_place: patches kept, mean of the database images.
    """

    factor: str
    value: int | float | str
    base: bool
    keypoints_per_place: float


@dataclass(frozen=True)
class AblatedFigures(MethodFigures, _AblatedSetting):
    """One value of one factor, with the figures of a method."""


@dataclass(frozen=True)
class AblationSummary(EvaluatedData):
    """The result of an ablation.

    Attributes:
        ablation: in the order of the table.
    """

    ablation: Sequence[AblatedFigures]
