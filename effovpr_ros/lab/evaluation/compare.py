"""Two saved runs on one data set: what did the change gain, and is it more than chance?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.metrics import bootstrap_interval
from effovpr_ros.lab.evaluation.saved_run import SavedAnswer, SavedRun
from effovpr_ros.lab.evaluation.summary import dataset_line
from effovpr_ros.lab.evaluation.summary_records import DatasetFigures


@dataclass(frozen=True)
class MethodComparison:
    """One method of run A against one of run B; differences are B - A.

    Attributes:
        method_a: name in run A.
        method_b: name in run B.
        recall_at_1_a: over the queries that have a positive, in [0, 1].
        recall_at_1_b: likewise.
        recall_at_1_difference: B - A.
        recall_at_1_difference_interval: 95 % percentile bootstrap over queries, each drawn with both its answers.
        gained: queries that only B answers rightly.
        lost: queries that only A answers rightly.
        average_precision_a: in [0, 1].
        average_precision_b: likewise.
        average_precision_difference: B - A.
        latency_ms_a: median of the total.
        latency_ms_b: likewise.
        latency_ms_difference: B - A.
    """

    method_a: str
    method_b: str
    recall_at_1_a: float
    recall_at_1_b: float
    recall_at_1_difference: float
    recall_at_1_difference_interval: tuple[float, float]
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    average_precision_a: float
    average_precision_b: float
    average_precision_difference: float
    latency_ms_a: float
    latency_ms_b: float
    latency_ms_difference: float


@dataclass(frozen=True)
class Comparison:
    """Two saved runs side by side.

    Attributes:
        schema_version: grows when a key changes its meaning or goes.
        dataset: of both.
        runs: both folders, A first.
        methods: pairs of a method of each.
    """

    schema_version: int
    dataset: DatasetFigures
    runs: tuple[str, str]
    methods: Sequence[MethodComparison]


def compare_runs(
    run_a: SavedRun, run_b: SavedRun, methods: tuple[str, str] | None = None
) -> tuple[MethodComparison, ...]:
    """Compare the methods that both runs have.

    Args:
        run_a: the reference.
        run_b: the change.
        methods: a method of A and one of B to compare instead.

    Raises:
        EvaluationError: different data sets, queries or ground truth; no common method; no such method.
    """
    _require_same_queries(run_a, run_b)
    if methods is None:
        pairs = [(name, name) for name in run_a.answers if name in run_b.answers]
        if not pairs:
            raise EvaluationError(
                f"no common method: {run_a.folder} has {', '.join(run_a.answers)}, {run_b.folder} has "
                f"{', '.join(run_b.answers)}; name one of each with --method A B"
            )
    else:
        for name, run in zip(methods, (run_a, run_b), strict=True):
            if name not in run.answers:
                raise EvaluationError(f"{run.folder} has no method {name!r}; it has {', '.join(run.answers)}")
        pairs = [methods]
    return tuple(_compare(run_a, run_b, *pair) for pair in pairs)


def _require_same_queries(run_a: SavedRun, run_b: SavedRun) -> None:
    if run_a.summary["dataset"] != run_b.summary["dataset"]:
        raise EvaluationError(
            f"the runs are on different data sets ({_describe(run_a)}; {_describe(run_b)}); evaluate both on one"
        )
    answers_a, answers_b = (next(iter(run.answers.values())) for run in (run_a, run_b))
    for a, b in zip(answers_a, answers_b, strict=True):
        if a.query != b.query:
            raise EvaluationError(
                f"the runs are on different queries: {a.query} in {run_a.folder} is {b.query} in {run_b.folder}; "
                "evaluate both on the same images"
            )
    chance_a, chance_b = (run.summary["random_recall_at_1"] for run in (run_a, run_b))
    unlike = [a.query for a, b in zip(answers_a, answers_b, strict=True) if (a.right is None) != (b.right is None)]
    if chance_a != chance_b or unlike:
        raise EvaluationError(
            f"the runs were judged by different ground truth: a guess has R@1 {_share(chance_a)} in {run_a.folder} and "
            f"{_share(chance_b)} in {run_b.folder}; use the same positives, radius and gap"
        )


def _describe(run: SavedRun) -> str:
    return f"{run.folder} on {dataset_line(run.summary['dataset'])}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _compare(run_a: SavedRun, run_b: SavedRun, name_a: str, name_b: str) -> MethodComparison:
    names = _unique([answer.query for answer in run_a.answers[name_a]])
    paired = [
        (name, a.right, b.right)
        for name, a, b in zip(names, run_a.answers[name_a], run_b.answers[name_b], strict=True)
        if a.right is not None and b.right is not None
    ]
    recall_a, recall_b = _recall_at_1(run_a.answers[name_a]), _recall_at_1(run_b.answers[name_b])
    figures_a, figures_b = run_a.summary["methods"][name_a], run_b.summary["methods"][name_b]
    precision_a, precision_b = figures_a["average_precision"], figures_b["average_precision"]
    latency_a, latency_b = (figures["latency_ms"]["total"]["p50"] for figures in (figures_a, figures_b))
    return MethodComparison(
        method_a=name_a,
        method_b=name_b,
        recall_at_1_a=recall_a,
        recall_at_1_b=recall_b,
        recall_at_1_difference=recall_b - recall_a,
        recall_at_1_difference_interval=bootstrap_interval([float(b) - float(a) for _, a, b in paired]),
        gained=tuple(name for name, a, b in paired if b and not a),
        lost=tuple(name for name, a, b in paired if a and not b),
        average_precision_a=precision_a,
        average_precision_b=precision_b,
        average_precision_difference=precision_b - precision_a,
        latency_ms_a=latency_a,
        latency_ms_b=latency_b,
        latency_ms_difference=latency_b - latency_a,
    )


def _recall_at_1(answers: Sequence[SavedAnswer]) -> float:
    judged = [answer.right for answer in answers if answer.right is not None]
    return sum(judged) / len(judged)


def _unique(names: Sequence[str]) -> list[str]:
    """Names, with the number of the query where several have one name, as frames of one topic do."""
    counts = Counter(names)
    return [f"{name} #{number}" if counts[name] > 1 else name for number, name in enumerate(names)]
