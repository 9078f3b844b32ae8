"""Frame: one image on its way into a map or to a query, with what is known of where it was taken."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from effovpr_ros.core.errors import SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import GeoPoint, Pose


@dataclass(frozen=True)
class Frame:
    """An image that is read when it is needed.

    Attributes:
        name: file name within its folder, or topic of a bag.
        session: drive or collection that it belongs to.
        stamp_ns: time in nanoseconds; None if unknown.
        pose: in the map frame, if known.
        geo: geo-tag, if known.
        load: reads the image; raises `ImageError`.
        digest: reads what tells this image from others of the same name and time, see `content_digest`; raises
            `ImageError`. None where name and time tell.
    """

    name: str
    session: str
    stamp_ns: int | None
    pose: Pose | None
    geo: GeoPoint | None
    load: Callable[[], RgbImage]
    digest: Callable[[], str] | None = None

    @property
    def known_stamp_ns(self) -> int:
        """The time of an image that has one, as all of a bag have.

        Raises:
            SourceError: it is unknown.
        """
        if self.stamp_ns is None:
            raise SourceError(f"the time of {self.name} is unknown; give it by a column stamp of a table")
        return self.stamp_ns


class PoseKind(Enum):
    """What relates the frame of a source's poses to other frames.

    NONE: there are no poses.
    MAP: they are in the map's frame by definition, as a table's columns are.
    EARTH: they follow from geo-tags by a datum.
    DRIVE: the source names their frame, or nothing does.
    """

    NONE = "none"
    MAP = "map"
    EARTH = "earth"
    DRIVE = "drive"


@dataclass(frozen=True)
class PoseOrigin:
    """What a source says of its poses.

    Attributes:
        kind: see there.
        frame_id: that the poses are in, as the source names it; empty where it names none.
        child_frame_id: body whose poses they are; empty where it is not named.
        datum: that positions on the earth were placed by.
        drive: digest that is the same for a repetition of the drive alone; empty where nothing tells drives apart.
        position_std_m: standard deviation of the positions along an axis; None where the source does not tell it.
    """

    kind: PoseKind
    frame_id: str = ""
    child_frame_id: str = ""
    datum: Datum | None = None
    drive: str = ""
    position_std_m: float | None = None


def content_digest(*parts: bytes | memoryview) -> str:
    """16 hexadecimal digits over the bytes of a picture as it is stored, and where it stands in its source.

    A repetition of a build knows its pictures again by them; another folder or bag whose pictures have the same names
    and times has other ones.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
