"""Plots of a report as inline SVG; their colours are CSS variables, so that they follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from effovpr_ros.lab.evaluation.metrics import PrecisionRecall, Reliability
from effovpr_ros.lab.evaluation.outcomes import Outcome

# Drawn with these colours, shown with the variables that templates/report.html defines for both themes.
_INK, _MUTED, _GRID = "#1f2328", "#59636e", "#d1d9e0"
_SERIES = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#0e7c86", "#9a6700", "#57606b")
_OUTCOMES = {
    Outcome.RIGHT: ("#1a7f38", "o", 5.0),
    Outcome.RIGHT_UNSURE: ("#6fbf7f", "^", 5.5),
    Outcome.REFUSED: ("#8c959f", "s", 4.0),
    Outcome.WRONG_UNSURE: ("#d4a72c", "D", 5.0),
    Outcome.FALSE_MATCH: ("#cf222e", "X", 7.0),
}
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _GRID: "--line",
    **{colour: f"--series-{number}" for number, colour in enumerate(_SERIES, start=1)},
    **{colour: f"--outcome-{kind.name.lower().replace('_', '-')}" for kind, (colour, _, _) in _OUTCOMES.items()},
}
_DASHES = ("-", "--", "-.", ":")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "effovpr",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "figure.facecolor": "none",
    "legend.frameon": False,
}
_WIDTH_IN, _HEIGHT_IN, _LEGEND_ROW_IN = 4.4, 2.9, 0.22
_ERROR_BINS = 24
_MOST_MARKERS = 40
_FAR_M, _ORIGIN_STEP_M = 1e5, 100.0
_LEAST_ERROR_M = 0.1


@dataclass(frozen=True)
class Plot:
    """A plot for a page.

    Attributes:
        title: what it shows.
        alt: the same with its main figures, for those who do not see it.
        note: how to read it.
        svg: markup of one <svg> element; ids are its own.
    """

    title: str
    alt: str
    note: str
    svg: str


def precision_recall_plot(curves: Mapping[str, PrecisionRecall]) -> Plot:
    """Precision over recall of each method."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(curves))
        for number, (name, curve) in enumerate(curves.items()):
            # From the first threshold to the left the precision of the most confident answers holds.
            recall, precision = np.append(0.0, curve.recall), np.append(curve.precision[:1], curve.precision)
            marker = "o" if len(recall) <= _MOST_MARKERS else ""
            axes.plot(recall, precision, **_line(number), marker=marker, markersize=3.0, label=name)
        axes.set(xlim=(0.0, 1.02), ylim=(0.0, 1.04), xlabel="recall", ylabel="precision")
        figures = ", ".join(f"{name} {curve.average_precision:.3f}" for name, curve in curves.items())
        return _plot(
            figure,
            "Precision and recall",
            f"Precision over recall; average precision: {figures}.",
            "Each point is a threshold on the confidence of the first candidate. "
            "Top right is best; a robot that must not err works where precision is 1.",
        )


def recall_plot(recalls: Mapping[str, Sequence[float]], chance: Sequence[float]) -> Plot:
    """Recall among the first K candidates of each method, from K = 1, beside that of a guess where it is known."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(recalls) + 1)
        for number, (name, values) in enumerate(recalls.items()):
            axes.plot(range(1, len(values) + 1), values, **_line(number), marker="o", markersize=3.0, label=name)
        figures = [f"{name} {values[0]:.3f} to {values[-1]:.3f}" for name, values in recalls.items()]
        if chance:
            axes.plot(range(1, len(chance) + 1), chance, color=_MUTED, linestyle=":", label="a guess")
            figures.append(f"a guess {chance[0]:.3f} to {chance[-1]:.3f}")
        last = max(len(values) for values in recalls.values())
        axes.set(ylim=(0.0, 1.04), xlabel="K, candidates looked at", ylabel="recall@K")
        axes.set_xticks([1, *range(5, last + 1, 5)])
        return _plot(
            figure,
            "Recall among the first K candidates",
            f"Recall from K = 1 to {last}: {', '.join(figures)}.",
            "Share of the queries with a positive that have one among their first K candidates.",
        )


def reliability_plot(name: str, bins: Reliability) -> Plot:
    """Accuracy over confidence of one calibrated method, with the number of answers in each bin."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2)
        axes.plot([0.0, 1.0], [0.0, 1.0], color=_MUTED, linestyle=":", label="as sure as right")
        axes.plot(bins.confidence, bins.accuracy, color=_SERIES[0], marker="o", label=f"{name}, with answers per bin")
        for confidence, accuracy, count in zip(bins.confidence, bins.accuracy, bins.count, strict=True):
            above = accuracy < 0.85
            axes.annotate(
                str(count),
                (confidence, accuracy),
                xytext=(0.0, 5.0 if above else -5.0),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                fontsize=8.0,
            )
        axes.set(xlim=(0.0, 1.02), ylim=(0.0, 1.04), xlabel="mean confidence of a bin", ylabel="share of right answers")
        error = bins.expected_calibration_error
        return _plot(
            figure,
            f"Reliability of {name}",
            f"Share of right answers over confidence of {name} in {len(bins.count)} bins; "
            f"expected calibration error {error:.3f}.",
            f"Below the diagonal the method is too sure of itself. Expected calibration error: {error:.3f}.",
        )


def position_error_plot(errors_m: Mapping[str, Sequence[float]]) -> Plot:
    """Histogram of the distance from each query to the place answered."""
    everything = np.maximum(np.concatenate([np.asarray(values) for values in errors_m.values()]), _LEAST_ERROR_M)
    edges = np.geomspace(everything.min() / 1.05, everything.max() * 1.05, _ERROR_BINS + 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(errors_m))
        for number, (name, values) in enumerate(errors_m.items()):
            shown = np.maximum(values, _LEAST_ERROR_M)
            axes.hist(shown, edges.tolist(), histtype="step", **_line(number), label=name)
        axes.set(xscale="log", xlabel="distance from query to place [m]", ylabel="queries")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figures = ", ".join(
            f"{name} median {np.median(values):.1f} m, 95th percentile {np.percentile(values, 95):.1f} m"
            for name, values in errors_m.items()
        )
        return _plot(
            figure,
            "Position errors",
            f"Histogram of the distance to the place answered: {figures}.",
            f"Best candidate of every query whose position is known, accepted or not; {figures}. "
            f"Distances below {_LEAST_ERROR_M} m are drawn there.",
        )


def map_plot(
    name: str,
    database_xy: NDArray[np.float64],
    queries_xy: Mapping[Outcome, NDArray[np.float64]],
    false_matches: Sequence[tuple[tuple[float, float], tuple[float, float]]],
) -> Plot:
    """The map seen from above with the queries of one method.

    Args:
        name: of the method.
        database_xy: (M, 2) metres in the frame of the ground truth.
        queries_xy: (N, 2) of each outcome.
        false_matches: from each such query to the place it was taken for, as (x, y).
    """
    everything = np.concatenate([database_xy, *queries_xy.values()])
    extent = np.ptp(everything, axis=0)
    # UTM has six and seven digits, of which a map needs the last few.
    far = np.abs(everything).max() > _FAR_M
    origin = np.floor(everything.min(axis=0) / _ORIGIN_STEP_M) * _ORIGIN_STEP_M if far else np.zeros(2)
    height_in = _WIDTH_IN * float(np.clip(extent[1] / max(extent[0], 1e-9), 0.35, 1.3))
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(len(queries_xy) + 1, height_in)
        axes.plot(*(database_xy - origin).T, ".", color=_MUTED, markersize=3.0, label=f"map ({len(database_xy)})")
        joins = np.reshape(false_matches, (-1, 2, 2)) - origin
        axes.add_collection(LineCollection(list(joins), colors=_OUTCOMES[Outcome.FALSE_MATCH][0], linewidths=0.8))
        for kind, at in queries_xy.items():
            colour, marker, size = _OUTCOMES[kind]
            axes.plot(*(at - origin).T, marker, color=colour, markersize=size, label=f"{kind.value} ({len(at)})")
        labels = [
            f"{axis} [m]" if not far else f"{axis} of {start:.0f} [m]"
            for axis, start in zip(("x, east", "y, north"), origin, strict=True)
        ]
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.set_aspect("equal", adjustable="datalim")
        figures = ", ".join(f"{len(at)} {kind.value}" for kind, at in queries_xy.items())
        return _plot(
            figure,
            f"The map from above: {name}",
            f"{len(database_xy)} places from above, and where the queries were taken: {figures}.",
            "Each query lies where it was taken; lines lead from false matches to the places they were taken for.",
        )


def _figure(legend_entries: int, height_in: float = _HEIGHT_IN) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_IN, height_in + _LEGEND_ROW_IN * -(-legend_entries // 2)), layout="constrained")
    return figure, figure.add_subplot()


def _line(number: int) -> dict[str, Any]:
    """Colour and dashes of a method by its number, so that more methods than colours stay apart."""
    return {
        "color": _SERIES[number % len(_SERIES)],
        "linestyle": _DASHES[(number // len(_SERIES)) % len(_DASHES)],
    }


def _plot(figure: Figure, title: str, alt: str, note: str) -> Plot:
    figure.legend(loc="outside lower center", ncols=2, fontsize=9.0)
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # Every figure numbers its elements from 1, and one page holds several figures.
    own = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", svg)
    # The style sheet within would hold for the whole page, and the size is the page's affair.
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    return Plot(title, alt, note, svg)
