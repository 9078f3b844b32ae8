"""What a map is built from: a bag or a folder of images, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from effovpr_ros.core.errors import SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import MAX_PIXELS, shown
from effovpr_ros.sources.bag_files import is_bag
from effovpr_ros.sources.bags import BagPosition, BagSource
from effovpr_ros.sources.frame import Frame, PoseOrigin
from effovpr_ros.sources.images import open_image_folder
from effovpr_ros.sources.pose_origin import origin_of_bag, origin_of_folder


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
        return (frame for _, frame in self.numbered_frames())

    def numbered_frames(self) -> Iterator[tuple[BagPosition | None, Frame]]:
        """As `frames`, each with where it stands in its bag; None in a folder."""
        frames: Iterator[tuple[BagPosition | None, Frame]]
        frames = ((None, frame) for frame in self.listed) if self.bag is None else self.bag.numbered_frames()
        first = next(frames, None)
        if first is None:
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

    def _counted(
        self, frames: Iterable[tuple[BagPosition | None, Frame]]
    ) -> Iterator[tuple[BagPosition | None, Frame]]:
        for position, frame in frames:
            self.with_pose += frame.pose is not None
            self.with_geo_tag += frame.geo is not None
            yield position, frame


def open_source(
    path: Path,
    *,
    image_topic: str = "",
    pose_topic: str = "",
    max_gap_s: float = 0.5,
    kind: str = "auto",
    table: Path | None = None,
    session: str = "",
    datum: Datum | None = None,
    max_pixels: int = MAX_PIXELS,
) -> MapSource:
    """A bag (`BagSource`) or a folder of images (`open_image_folder`), whichever lies there.

    Args:
        path: of a bag of ROS 2 or ROS 1, or of a folder of images.
        image_topic: of a bag; empty for the only one.
        pose_topic: of a bag; empty for the only one, `none` for no positions.
        max_gap_s: images of a bag between poses further apart are refused.
        kind: how the images of a folder are tagged.
        table: CSV or TUM file of a folder; with a bag TUM.
        session: name of the drive; the source's own if empty.
        datum: of the map that it joins, or the one wanted.
        max_pixels: larger images are refused.

    Raises:
        SourceError: it cannot be read.
    """
    if is_bag(path):
        bag = BagSource(
            path,
            image_topic=image_topic,
            pose_topic=pose_topic,
            session=session,
            max_gap_s=max_gap_s,
            datum=datum,
            pose_table=table,
            max_pixels=max_pixels,
        )
        return MapSource(path, len(bag), bag.session, origin_of_bag(bag), bag=bag)
    folder = open_image_folder(path, kind=kind, table=table, session=session, datum=datum, max_pixels=max_pixels)
    return MapSource(
        path,
        len(folder.frames),
        folder.frames[0].session if folder.frames else session,
        origin_of_folder(folder),
        tuple(folder.frames),
        folder.refused,
        list(folder.notes),
    )
