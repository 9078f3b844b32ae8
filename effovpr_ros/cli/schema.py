"""`effovpr schema`: the form of what `--json` of a command prints."""

from __future__ import annotations

import argparse

from effovpr_ros.cli.options import Subparsers, command, print_json
from effovpr_ros.cli.outputs import OUTPUTS, output_schema


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(
        commands,
        "schema",
        summary,
        "effovpr schema map-info > map_info.schema.json",
    )
    parser.add_argument("of", choices=sorted(OUTPUTS), metavar="COMMAND", help=f"one of {', '.join(OUTPUTS)}")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    print_json(output_schema(options.of))
    return 0
