"""`effovpr query`: its options; `asking` does the work."""

from __future__ import annotations

from pathlib import Path

from effovpr_ros.cli.camera_options import add_camera_options
from effovpr_ros.cli.map_source import add_pixel_option
from effovpr_ros.cli.options import Subparsers, add_device_options, add_recognizer_options, command
from effovpr_ros.cli.parsing import later


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(commands, "query", summary, "effovpr query office where_is_this.jpg")
    parser.add_argument("map", type=Path, help="map folder")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--candidates", type=int, default=3, help="candidates to print for each image")
    parser.add_argument("--page", type=Path, help="HTML page to write: each image beside the place answered")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_recognizer_options(parser)
    add_pixel_option(parser)
    add_camera_options(parser)
    add_device_options(parser)
    parser.set_defaults(run=later("asking", "ask"))
