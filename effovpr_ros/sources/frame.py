"""Frame: one image on its way into a map or to a query, with what is known of where it was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import GeoPoint, Pose


@dataclass(frozen=True)
class Frame:
    """An image that is read when it is needed.

    Attributes:
        name: file name within its folder, or topic of a bag.
        session: drive or collection that it belongs to.
        stamp_ns: time in nanoseconds; 0 if unknown.
        pose: in the map frame, if known.
        geo: geo-tag, if known.
        load: reads the image; raises `ImageError`.
    """

    name: str
    session: str
    stamp_ns: int
    pose: Pose | None
    geo: GeoPoint | None
    load: Callable[[], RgbImage]
