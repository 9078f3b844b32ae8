"""`effovpr map compact`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.cli.options import Subparsers, command, print_json


def add_compact(actions: Subparsers) -> None:
    """Add the action."""
    compact = command(
        actions,
        "compact",
        "shorten the local descriptors of a map that was built with full ones",
        "effovpr map compact office",
    )
    compact.add_argument("map", type=Path, help="map folder")
    compact.add_argument("--out", type=Path, help="folder of the compact map; without it, the map itself is replaced")
    compact.add_argument("--json", action="store_true", help="print the report as one JSON object")
    compact.set_defaults(run=_compact)


def _compact(options: argparse.Namespace) -> int:
    # Help needs nothing that computes.
    from effovpr_ros.mapping.compact import compact_map

    with tqdm(unit="place", disable=None, desc=options.map.name) as bar:
        report = compact_map(options.map, options.out, lambda done: bar.update(done))
    if options.json:
        print_json(report)
        return 0
    if report.local_bytes_before == report.local_bytes_after:
        print(f"map {options.out or options.map}: {report.places} places, compact already ({report.local_codes})")
        return 0
    places = max(report.places, 1)
    print(
        f"map {options.out or options.map}: {report.places} places, local descriptors "
        f"{report.local_bytes_before} -> {report.local_bytes_after} bytes "
        f"({report.local_bytes_before / places:.0f} -> {report.local_bytes_after / places:.0f} a place), "
        f"file {report.file_bytes_before} -> {report.file_bytes_after} bytes"
    )
    print(f"{report.agreed} of {report.compared} places keep the other place that looks most like them")
    return 0
