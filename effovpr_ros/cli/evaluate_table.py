"""Results of `effovpr evaluate` for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from effovpr_ros.lab.evaluation.ablation import AblationRow
from effovpr_ros.lab.evaluation.summary import dataset_line
from effovpr_ros.lab.evaluation.third_stage_figures import third_stage_lines

_QUALITY_HEADER = f"{'R@1':>6} {'95 %':>13}{'R@5':>7}{'R@10':>7}{'AP':>7}{'R@P=1':>7}"
_COST_HEADER = f"{'ms':>8}{'KB':>7}"
_NAME_WIDTH = 16


def summary_table(summary: Mapping[str, Any]) -> str:
    """The object of `evaluation.summary.summarise` as text; lines that the data say nothing of are left out."""
    guess = summary["random_recall_at_1"]
    width = max(_NAME_WIDTH, *(len(name) + 1 for name in summary["methods"]))
    lines = [
        dataset_line(summary["dataset"]) + (f"; a guess has R@1 {100.0 * guess:.1f}" if guess is not None else ""),
        f"{'method':{width}}{_QUALITY_HEADER}{'MATCH':>7}{'wrong':>7}{_COST_HEADER}",
    ]
    for name, method in summary["methods"].items():
        matches, wrong = ("-" if method[key] is None else method[key] for key in ("matches", "wrong_matches"))
        lines.append(f"{name:{width}}{_quality(method)}{matches:>7}{wrong:>7}{_cost(method)}")
    for name, method in summary["methods"].items():
        lines += [f"{name}: {line}" for line in _details(method)]
    return "\n".join(lines)


def ablation_table(data: Mapping[str, Any], rows: Sequence[AblationRow]) -> str:
    """Rows of an ablation, the base setting's own values with a star; `data` is the key `dataset` of a summary."""
    lines = [
        f"{dataset_line(data)}; * is the base setting",
        f"{'factor':12}{'value':>10} {_QUALITY_HEADER}{'keypts':>8}{_COST_HEADER}",
    ]
    for row in rows:
        star = "*" if row.setting.is_base else " "
        lines.append(
            f"{row.setting.factor:12}{row.setting.value!s:>10}{star}{_quality(asdict(row.figures))}"
            f"{row.keypoints_per_place:8.1f}{_cost(asdict(row.figures))}"
        )
    return "\n".join(lines)


def _quality(method: Mapping[str, Any]) -> str:
    low, high = (100.0 * value for value in method["recall_at_1_interval"])
    recall = {k: 100.0 * value for k, value in method["recall"].items()}
    return (
        f"{recall['1']:6.1f} {f'[{low:.0f}, {high:.0f}]':>13}{recall['5']:7.1f}{recall['10']:7.1f}"
        f"{method['average_precision']:7.3f}{method['recall_at_precision']['1.0']:7.3f}"
    )


def _cost(method: Mapping[str, Any]) -> str:
    size = method["bytes_per_place"]
    return f"{method['latency_ms']['total']['p50']:8.1f}{'-' if size is None else f'{size / 1e3:.1f}':>7}"


def _details(method: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, what, unit in (("position_error_m", "position", "m"), ("heading_error_deg", "heading", "deg")):
        if method[key] is not None:
            error = method[key]
            lines.append(
                f"{what} error of {error['count']} MATCHes, median / p95 / max: "
                f"{error['p50']:.2f} / {error['p95']:.2f} / {error['max']:.2f} {unit}"
            )
    lines += third_stage_lines(method)
    outside = method["outside"]
    if outside["queries"] and outside["matches"] is not None:
        lines.append(f"{outside['queries']} queries without a positive, {outside['matches']} of them falsely a MATCH")
    for condition, stratum in (method["by_condition"] or {}).items():
        recall, count = stratum["recall_at_1"], stratum["queries_with_positives"]
        share = "-" if recall is None else f"{100.0 * recall:.1f}"
        lines.append(f"{condition or 'no condition named'}: R@1 {share} of {count} with a positive")
    return lines
