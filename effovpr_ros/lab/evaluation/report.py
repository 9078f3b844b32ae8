"""The report of an evaluation: one HTML page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.gallery import GalleryEntry, GallerySection, choose, draw_entry
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.metrics import precision_recall, random_recall_at_k, recall_at_k, reliability
from effovpr_ros.lab.evaluation.outcomes import Outcome, QueryOutcome, judge
from effovpr_ros.lab.evaluation.plots import (
    Plot,
    map_plot,
    position_error_plot,
    precision_recall_plot,
    recall_plot,
    reliability_plot,
)
from effovpr_ros.lab.evaluation.runner import Run
from effovpr_ros.lab.evaluation.summary import RANKS, STAGES
from effovpr_ros.lab.evaluation.third_stage_figures import third_stage_lines
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

REPORT_NAME = "report.html"
_TEMPLATE = "report.html"
_NO_POSITIONS = (
    "Position errors and the map from above are left out: no query with an answer has a known position beside a place "
    "with one (from a pose, EXIF GPS or @utm_east@utm_north@ names)."
)
_NOT_CALIBRATED = "Reliability is left out: no method of this run gives calibrated confidences."


@dataclass(frozen=True)
class Setting:
    """One setting of a method; `changed` where it differs from the default."""

    name: str
    value: str
    changed: bool


@dataclass(frozen=True)
class DrawnSection:
    """A section of the gallery with its pictures."""

    section: GallerySection
    entries: tuple[GalleryEntry, ...]


def write_report(path: Path, run: Run, summary: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: HTML file to write.
        run: what was evaluated.
        summary: of the same run, from `summarise`.

    Raises:
        EvaluationError: the file cannot be written.
        ImageError: an image cannot be read any more.
    """
    page = render_report(run, summary)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"report {path} cannot be written: {error.strerror}; choose another --out") from error


def render_report(run: Run, summary: Mapping[str, Any]) -> str:
    """The page as text; see `write_report`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    outcomes = {name: judge(run.dataset, result.answers) for name, result in run.results.items()}
    errors_m = {name: _position_errors(items) for name, items in outcomes.items()}
    positioned = any(errors_m.values())
    reliabilities = [
        reliability_plot(name, reliability(*_confidences(outcomes[name])))
        for name, result in run.results.items()
        if result.calibrated
    ]
    absent = [] if reliabilities else [_NOT_CALIBRATED]
    curves = [_precision_recall_plot(run.dataset, outcomes), _recall_plot(run), *reliabilities]
    if positioned:
        curves.append(position_error_plot({name: values for name, values in errors_m.items() if values}))
    else:
        absent.append(_NO_POSITIONS)
    return environment.get_template(_TEMPLATE).render(
        summary=summary,
        ranks=RANKS,
        stages=STAGES,
        chance=dict(zip(RANKS, _chance(run.dataset, RANKS), strict=False)),
        calibrated=bool(reliabilities),
        third_stage={name: third_stage_lines(method) for name, method in summary["methods"].items()},
        conditions=next(iter(summary["methods"].values()))["by_condition"],
        refuses={name: result.refuses for name, result in run.results.items()},
        outcome_kinds=tuple(Outcome),
        outcome_counts={name: {kind: _count(items, kind) for kind in Outcome} for name, items in outcomes.items()},
        curves=curves,
        maps=[_map_plot(name, run.dataset, items) for name, items in outcomes.items()] if positioned else [],
        absent=absent,
        galleries={name: _gallery(run, name, items) for name, items in outcomes.items()} if run.queries else {},
        reranked={name: _reranked(items) for name, items in outcomes.items()},
        settings={name: _settings(run.settings.get(name)) for name in run.results},
        model=asdict(run.fingerprint) if run.fingerprint else {},
        command=run.command,
    )


def _confidences(outcomes: Sequence[QueryOutcome]) -> tuple[list[float], list[bool]]:
    """Confidence and rightness of the answered queries."""
    answered = [item for item in outcomes if item.best is not None]
    return [item.confidence for item in answered], [item.right for item in answered]


def _position_errors(outcomes: Sequence[QueryOutcome]) -> list[float]:
    return [item.position_error_m for item in outcomes if item.position_error_m is not None]


def _count(outcomes: Sequence[QueryOutcome], kind: Outcome) -> int:
    return sum(item.outcome is kind for item in outcomes)


def _reranked(outcomes: Sequence[QueryOutcome]) -> bool:
    """Whether a second stage changed any first candidate, so that rescues and their reverse can exist."""
    return any(item.first_stage is not None and item.first_stage != item.best for item in outcomes)


def _precision_recall_plot(dataset: Dataset, outcomes: Mapping[str, Sequence[QueryOutcome]]) -> Plot:
    with_positives = sum(bool(item) for item in dataset.positives)
    return precision_recall_plot(
        {name: precision_recall(*_confidences(items), with_positives) for name, items in outcomes.items()}
    )


def _recall_plot(run: Run) -> Plot:
    positives = run.dataset.positives
    ranks = range(1, min(RANKS[-1], len(run.dataset.database)) + 1)
    recalls = {}
    for name, result in run.results.items():
        ranked = [answer.ranked for answer in result.answers]
        recalls[name] = [recall_at_k(ranked, positives, k)[0] for k in ranks]
    return recall_plot(recalls, _chance(run.dataset, ranks))


def _chance(dataset: Dataset, ranks: Sequence[int]) -> list[float]:
    """Recall of a guess at each rank; empty where the database is not known."""
    if not dataset.database_known:
        return []
    return [random_recall_at_k(dataset.positives, dataset.allowed, k) for k in ranks]


def _map_plot(name: str, dataset: Dataset, outcomes: Sequence[QueryOutcome]) -> Plot:
    stored_xy, asked_xy = (
        [frame.pose.position_xyz[:2] if frame.pose else None for frame in frames]
        for frames in (dataset.database, dataset.queries)
    )
    by_outcome = {
        kind: np.array(
            [xy for item in outcomes if item.outcome is kind and (xy := asked_xy[item.query]) is not None]
        ).reshape(-1, 2)
        for kind in Outcome
    }
    joined = [
        (start, end)
        for item in outcomes
        if item.outcome is Outcome.FALSE_MATCH
        and item.best is not None
        and (start := asked_xy[item.query]) is not None
        and (end := stored_xy[item.best]) is not None
    ]
    known_xy = np.array([xy for xy in stored_xy if xy is not None]).reshape(-1, 2)
    return map_plot(name, known_xy, by_outcome, joined)


def _gallery(run: Run, name: str, outcomes: Sequence[QueryOutcome]) -> tuple[DrawnSection, ...]:
    answers, method = run.results[name].answers, run.methods[name]
    return tuple(
        DrawnSection(
            section,
            tuple(
                draw_entry(run.dataset, run.queries[item.query], answers[item.query], item, method)
                for item in section.shown
            ),
        )
        for section in choose(outcomes)
    )


def _settings(config: RecognizerConfig | None) -> tuple[Setting, ...]:
    if config is None:
        return ()
    return tuple(
        Setting(entry.name, str(getattr(config, entry.name)), getattr(config, entry.name) != entry.default)
        for entry in fields(config)
    )
