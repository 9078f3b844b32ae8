"""`effovpr evaluate compare`: two saved runs side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from effovpr_ros.cli.options import Subparsers, command, print_json
from effovpr_ros.lab.evaluation.compare import Comparison, MethodComparison, compare_runs
from effovpr_ros.lab.evaluation.saved_run import SavedRun, load_run
from effovpr_ros.lab.evaluation.summary import dataset_line
from effovpr_ros.lab.evaluation.summary_records import SCHEMA_VERSION, DatasetFigures


def add_parser(forms: Subparsers) -> None:
    """Add the form."""
    parser = command(
        forms,
        "compare",
        "compare two runs that --out saved, on the same queries",
        "effovpr evaluate compare run_a/ run_b/ --method effovpr strict",
    )
    parser.add_argument("run_a", type=Path, help="the reference: a folder that --out wrote")
    parser.add_argument("run_b", type=Path, help="the run that is compared with it: likewise")
    parser.add_argument(
        "--method",
        nargs=2,
        metavar=("A", "B"),
        help="a method of the first run and one of the second; without it, all methods that both have",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    runs = load_run(options.run_a), load_run(options.run_b)
    compared = compare_runs(*runs, methods=tuple(options.method) if options.method else None)
    if options.json:
        dataset = DatasetFigures(**runs[0].summary["dataset"])
        folders = (str(runs[0].folder), str(runs[1].folder))
        print_json(Comparison(SCHEMA_VERSION, dataset, folders, compared))
    else:
        print(_table(runs, compared))
    return 0


def _table(runs: tuple[SavedRun, SavedRun], compared: Sequence[MethodComparison]) -> str:
    lines = [
        dataset_line(runs[0].summary["dataset"]),
        f"A: {runs[0].folder}",
        f"B: {runs[1].folder}",
        f"{'method':24}{'R@1 A':>7}{'R@1 B':>7}{'B - A':>7} {'95 %':>15}{'AP A':>7}{'AP B':>7}{'B - A':>8}"
        f"{'ms A':>8}{'ms B':>8}{'B - A':>8}",
    ]
    for item in compared:
        name = item.method_a if item.method_a == item.method_b else f"{item.method_a} / {item.method_b}"
        low, high = (100.0 * value for value in item.recall_at_1_difference_interval)
        lines.append(
            f"{name:24}{100.0 * item.recall_at_1_a:7.1f}{100.0 * item.recall_at_1_b:7.1f}"
            f"{100.0 * item.recall_at_1_difference:+7.1f} {f'[{low:+.1f}, {high:+.1f}]':>15}"
            f"{item.average_precision_a:7.3f}{item.average_precision_b:7.3f}{item.average_precision_difference:+8.3f}"
            f"{item.latency_ms_a:8.1f}{item.latency_ms_b:8.1f}{item.latency_ms_difference:+8.1f}"
        )
        lines.append(f"  gained {len(item.gained)}{_names(item.gained)}")
        lines.append(f"  lost {len(item.lost)}{_names(item.lost)}")
    return "\n".join(lines)


def _names(queries: Sequence[str]) -> str:
    return f": {', '.join(queries)}" if queries else ""
