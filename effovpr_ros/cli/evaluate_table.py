"""The result of `effovpr evaluate` for a terminal."""

from __future__ import annotations

from typing import Any


def summary_table(summary: dict[str, Any]) -> str:
    """The object of `evaluation.summary.summarise` as text; lines that the data say nothing of are left out."""
    data, guess = summary["dataset"], summary["random_recall_at_1"]
    database = f"{data['database']} database images" if data["database"] is not None else "database not known"
    lines = [
        f"{data['name']}: {data['queries']} queries, {data['queries_with_positives']} with a positive, {database}"
        + (f"; a guess has R@1 {100.0 * guess:.1f}" if guess is not None else ""),
        f"{'method':16}{'R@1':>6} {'95 %':>13}{'R@5':>7}{'R@10':>7}{'AP':>7}{'R@P=1':>7}{'MATCH':>7}{'wrong':>7}"
        f"{'ms':>8}{'KB':>7}",
    ]
    for name, method in summary["methods"].items():
        low, high = (100.0 * value for value in method["recall_at_1_interval"])
        recall = {k: 100.0 * value for k, value in method["recall"].items()}
        size = method["bytes_per_place"]
        lines.append(
            f"{name:16}{recall['1']:6.1f} {f'[{low:.0f}, {high:.0f}]':>13}{recall['5']:7.1f}{recall['10']:7.1f}"
            f"{method['average_precision']:7.3f}{method['recall_at_precision']['1.0']:7.3f}{method['matches']:7d}"
            f"{method['wrong_matches']:7d}{method['latency_ms']['total']['p50']:8.1f}"
            f"{'-' if size is None else f'{size / 1e3:.1f}':>7}"
        )
    for name, method in summary["methods"].items():
        lines += [f"{name}: {line}" for line in _details(method)]
    return "\n".join(lines)


def _details(method: dict[str, Any]) -> list[str]:
    lines = []
    for key, what, unit in (("position_error_m", "position", "m"), ("heading_error_deg", "heading", "deg")):
        if method[key] is not None:
            error = method[key]
            lines.append(
                f"{what} error of {error['count']} MATCHes, median / p95 / max: "
                f"{error['p50']:.2f} / {error['p95']:.2f} / {error['max']:.2f} {unit}"
            )
    outside = method["outside"]
    if outside["queries"]:
        lines.append(f"{outside['queries']} queries without a positive, {outside['matches']} of them falsely a MATCH")
    for condition, stratum in (method["by_condition"] or {}).items():
        recall, count = stratum["recall_at_1"], stratum["queries_with_positives"]
        lines.append(
            f"{condition}: R@1 {'-' if recall is None else f'{100.0 * recall:.1f}'} of {count} with a positive"
        )
    return lines
