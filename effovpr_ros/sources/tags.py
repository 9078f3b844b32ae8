"""What a table, a name or a file knows of an image, and how numbers are read there."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from effovpr_ros.core.errors import GeodesyError
from effovpr_ros.core.poses import GeoPoint, Pose

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNKNOWN = {"", "nan", "none", "null", "na", "n/a", "-", "--", "nil", "unknown", "-nan", "+nan"}


@dataclass(frozen=True)
class Tag:
    """What is known of one image.

    Attributes:
        path: of the image.
        stamp_ns: None if unknown.
        pose: in the map frame, if known.
        geo: WGS84, if known.
        heading_deg: clockwise from north, if known.
        position_std_m: horizontal standard deviation of the position that its source names; None if it names none.
    """

    path: Path
    stamp_ns: int | None = None
    pose: Pose | None = None
    geo: GeoPoint | None = None
    heading_deg: float | None = None
    position_std_m: float | None = None


@dataclass(frozen=True)
class Tags:
    """Tags of a folder.

    Attributes:
        tags: one an image.
        refused: one line for each image or row that was refused.
        notes: what was assumed or left unused, one line each.
    """

    tags: tuple[Tag, ...]
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def known_number(text: str) -> float | None:
    """A number in decimal notation; None where the text says that it is unknown (empty, nan, null, ...).

    Raises:
        ValueError: anything else. Python's own spellings (`1_000`, `infinity`, digits of other scripts) are none.
    """
    text = text.strip()
    if text.lower() in _UNKNOWN:
        return None
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is too large")
    return number


def geo_fix(latitude_deg: float, longitude_deg: float, altitude_m: float | None = None) -> GeoPoint:
    """A recorded position.

    Raises:
        GeodesyError: out of range, or exactly (0, 0), which receivers and cameras write where they have no fix.
    """
    geo = GeoPoint(latitude_deg, longitude_deg, altitude_m)
    if latitude_deg == 0.0 and longitude_deg == 0.0:
        raise GeodesyError("latitude and longitude are exactly 0, which stands for no fix")
    return geo
