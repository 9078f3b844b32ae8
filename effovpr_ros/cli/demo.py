"""`effovpr demo`."""

from __future__ import annotations

from effovpr_ros.cli.options import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
