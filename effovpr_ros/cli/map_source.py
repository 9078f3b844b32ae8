"""What `effovpr map build` reads: a bag or a folder of images, and what is to be said of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from effovpr_ros.core.errors import ConfigError, SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import MAX_PIXELS, shown
from effovpr_ros.sources.bag_files import is_bag
from effovpr_ros.sources.bags import NO_POSES, BagSource
from effovpr_ros.sources.frame import Frame, PoseOrigin
from effovpr_ros.sources.images import KINDS, open_image_folder
from effovpr_ros.sources.pose_origin import origin_of_bag, origin_of_folder

_SHOWN_REFUSALS = 100


@dataclass
class MapSource:
    """Frames, and what is to be reported of the source once they are read.

    Attributes:
        path: of the bag or folder.
        total: images that there are, with those that turn out to be refused later.
        session: that its places join the map under.
        origin: frame of its poses.
        listed: frames of a folder.
        refused: one line each of what a folder refused.
        notes: what was assumed or left unused.
        bag: the bag, if it is one.
        with_pose: frames so far that have a pose.
        with_geo_tag: frames so far that have a geo-tag.
    """

    path: Path
    total: int
    session: str
    origin: PoseOrigin
    listed: tuple[Frame, ...] = ()
    refused: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    bag: BagSource | None = None
    with_pose: int = 0
    with_geo_tag: int = 0

    def frames(self) -> Iterator[Frame]:
        """Frames, of which there is at least one.

        Raises:
            SourceError: there is none; says why, names what was refused, and what helps.
        """
        frames = iter(self.listed) if self.bag is None else self.bag.frames()
        first = next(frames, None)
        if first is None:
            self.print_refusals()
            why = [self.bag.why_none() if self.bag is not None else "", *self.notes]
            counted = f"{self.num_refused()} refused" if self.num_refused() else "there is none"
            raise SourceError(
                "; ".join([f"no image of {shown(self.path)} can be used ({counted})", *filter(None, why)])
            )
        return self._counted(chain([first], frames))

    def reopen(self) -> Iterable[Frame]:
        """All frames again, beside those that are being read."""
        return self.listed if self.bag is None else self.bag.frames(counting=False)

    def num_refused(self) -> int:
        """How many images were refused so far."""
        return len(self.refused) if self.bag is None else sum(self.bag.refused.values())

    def refusals(self) -> list[str]:
        """What was refused: a line for each image of a folder, or for each reason of a bag."""
        if self.bag is None:
            return list(self.refused)
        return [f"{count} x {reason}" for reason, count in self.bag.refused.items()]

    def said(self) -> list[str]:
        """Notes on the source once it is read."""
        poses = str(self.bag.refused_poses) if self.bag is not None else ""
        notes = [*self.notes, *([f"poses that are of no use: {poses}"] if poses else [])]
        if not self.with_pose and not self.with_geo_tag:
            notes.append("no image says where it was taken: the map knows its places, but gives no positions")
        return notes

    def print_refusals(self) -> None:
        """Say on stderr what was refused."""
        lines = self.refusals()
        for line in lines[:_SHOWN_REFUSALS]:
            print(f"refused: {line}", file=sys.stderr)
        if len(lines) > _SHOWN_REFUSALS:
            print(f"refused: {len(lines) - _SHOWN_REFUSALS} more; --json lists all", file=sys.stderr)

    def _counted(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.with_pose += frame.pose is not None
            self.with_geo_tag += frame.geo is not None
            yield frame


def add_source_options(build: argparse.ArgumentParser) -> None:
    """Options that say how a source is read."""
    build.add_argument("--image-topic", default="", help="of a bag; the only image topic if empty")
    build.add_argument(
        "--pose-topic",
        default="",
        help="of a bag: odometry, poses, a path, fixes, or /tf (base_link in the root of its tree); the only one but "
        f"for /tf if empty; {NO_POSES}: no positions",
    )
    build.add_argument("--max-gap-s", type=float, default=0.5, help="refuse images between poses further apart")
    build.add_argument("--kind", choices=KINDS, default="auto", help="how the images of a folder are tagged")
    build.add_argument(
        "--table",
        type=Path,
        help="CSV (image,stamp,x,y,z,qx,qy,qz,qw,latitude,longitude,altitude) or TUM; with a bag TUM, which takes the "
        "place of its pose topic",
    )
    add_pixel_option(build)


def add_pixel_option(parser: argparse.ArgumentParser) -> None:
    """The limit on the size of pictures."""
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=MAX_PIXELS / 1e6,
        help="refuse pictures of more million pixels before they are decoded",
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
    limit = max_pixels(options)
    if not options.max_gap_s >= 0.0:
        raise ConfigError(f"--max-gap-s {options.max_gap_s} must not be negative")
    if is_bag(options.source):
        bag = BagSource(
            options.source,
            image_topic=options.image_topic,
            pose_topic=options.pose_topic,
            session=options.session,
            max_gap_s=options.max_gap_s,
            datum=datum,
            pose_table=options.table,
            max_pixels=limit,
        )
        return MapSource(options.source, len(bag), bag.session, origin_of_bag(bag), bag=bag)
    folder = open_image_folder(
        options.source,
        kind=options.kind,
        table=options.table,
        session=options.session,
        datum=datum,
        max_pixels=limit,
    )
    return MapSource(
        options.source,
        len(folder.frames),
        folder.frames[0].session if folder.frames else options.session,
        origin_of_folder(folder),
        tuple(folder.frames),
        folder.refused,
        list(folder.notes),
    )
