"""Options that say what `effovpr map build` reads, and how."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import MAX_PIXELS
from effovpr_ros.sources.kinds import KINDS, NO_POSES

if TYPE_CHECKING:
    from effovpr_ros.core.geodesy import Datum
    from effovpr_ros.sources.map_source import MapSource

_SHOWN_REFUSALS = 100


def add_source_options(build: argparse.ArgumentParser) -> None:
    """Options that say how a source is read."""
    build.add_argument(
        "--image-topic",
        nargs="+",
        default=[""],
        metavar="TOPIC",
        help="image topic of a bag; not needed if it has one; several are cameras of one body, "
        "each with a session DRIVE:CAMERA",
    )
    build.add_argument(
        "--pose-topic",
        default="",
        help="topic of a bag with odometry, poses, a path or fixes, or /tf (base_link in the root of its tree); not "
        f"needed if it has one besides /tf; {NO_POSES}: no positions",
    )
    build.add_argument(
        "--max-gap-s", type=float, default=0.5, help="images between two poses that are more seconds apart are refused"
    )
    build.add_argument(
        "--kind",
        choices=KINDS,
        default="auto",
        help="how a folder's images tell where they were taken; auto: as most of them do",
    )
    build.add_argument(
        "--table",
        type=Path,
        help="poses of a folder's images: CSV "
        "(image,stamp,x,y,z,qx,qy,qz,qw,latitude,longitude,altitude) or TUM; for a bag TUM, "
        "instead of its pose topic",
    )
    add_pixel_option(build)


def add_pixel_option(parser: argparse.ArgumentParser) -> None:
    """The limit on the size of pictures."""
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=MAX_PIXELS / 1e6,
        help="pictures of more million pixels are refused before they are decoded",
    )


def max_pixels(options: argparse.Namespace) -> int:
    """The limit on the size of pictures.

    Raises:
        ConfigError: not positive.
    """
    if not 0.0 < options.max_megapixels <= 10_000.0:
        raise ConfigError(f"--max-megapixels {options.max_megapixels} must be above 0 and at most 10000")
    return int(1e6 * options.max_megapixels)


def open_map_source(options: argparse.Namespace, datum: Datum | None) -> MapSource:
    """The source that the options name.

    Args:
        options: with those of `add_source_options`, `source` and `session`.
        datum: of the map that it joins, or the one that was asked for.

    Raises:
        ConfigError: an impossible value.
        SourceError: it cannot be read.
    """
    # Help needs nothing that reads.
    from effovpr_ros.sources.map_source import open_source

    limit = max_pixels(options)
    if not options.max_gap_s >= 0.0:
        raise ConfigError(f"--max-gap-s {options.max_gap_s} must not be negative")
    return open_source(
        options.source,
        image_topic=options.image_topic,
        pose_topic=options.pose_topic,
        max_gap_s=options.max_gap_s,
        kind=options.kind,
        table=options.table,
        session=options.session,
        datum=datum,
        max_pixels=limit,
    )


def print_refusals(source: MapSource) -> None:
    """Say on stderr what was refused."""
    lines = source.refusals()
    for line in lines[:_SHOWN_REFUSALS]:
        print(f"refused: {line}", file=sys.stderr)
    if len(lines) > _SHOWN_REFUSALS:
        print(f"refused: {len(lines) - _SHOWN_REFUSALS} more; --json lists all", file=sys.stderr)
