"""Where and when photographs were taken, by their EXIF tags (CIPA DC-008, section 4.6.6)."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from effovpr_ros.core.errors import EffoVPRError, GeodesyError, ImageError
from effovpr_ros.core.image_headers import jpeg_segments, read_header
from effovpr_ros.core.images import read_file, shown
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.sources.tags import Tag, Tags, geo_fix

_MAX_BYTES = 1 << 30
_FIRST_BYTES = 1 << 18
_APP1 = 0xE1
# Half of the way around the earth.
_MAX_ERROR_M = 2e7
_MAX_STAMP_S = (2**63 - 1) // 10**9
# GPSAltitudeRef: 0 and 2 are above sea level and ellipsoid, 1 and 3 below.
_ALTITUDE_SIGNS = {0: 1.0, 1: -1.0, 2: 1.0, 3: -1.0}
# What damaged tags make Pillow raise.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class ExifTagged:
    """What EXIF says of a folder.

    Attributes:
        tags: of the photographs whose position is known; the others are refused.
        num_with_gps: how many have a GPS position at all, readable or not.
    """

    tags: Tags
    num_with_gps: int


def read_exif(paths: Sequence[Path]) -> ExifTagged:
    """Geo-tag, heading and time of photographs; nothing of a picture is decoded.

    A position without hemisphere is unknown, not north or east. Altitude, heading and time that cannot be read are
    unknown, and cost the photograph nothing else.
    """
    tags, refused, num_with_gps = [], [], 0
    for path in paths:
        name = shown(path.name)
        try:
            exif = _exif_of(path)
            gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
            num_with_gps += ExifTags.GPS.GPSLatitude in gps or ExifTags.GPS.GPSLongitude in gps
            geo = _position(gps)
            when = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(
                ExifTags.Base.DateTime
            )
        except ImageError as error:
            refused.append(f"{name}: {error}")
        except EffoVPRError as error:
            refused.append(f"{name}: no valid EXIF position ({error})")
        except _DAMAGED as error:
            refused.append(f"{name}: its EXIF tags are damaged ({error})")
        else:
            heading_deg = _number(gps.get(ExifTags.GPS.GPSImgDirection))
            tags.append(Tag(path, _stamp_ns(when), None, geo, heading_deg, _position_std_m(gps)))
    return ExifTagged(Tags(tuple(tags), tuple(refused)), num_with_gps)


def _exif_of(path: Path) -> Image.Exif:
    data = read_file(path, _MAX_BYTES, first=_FIRST_BYTES)
    if data.startswith(b"\xff\xd8\xff"):
        # Tags stand in front of the picture, and take at most 64 kB.
        parts = (data[start:end] for marker, start, end in jpeg_segments(data) if marker == _APP1)
        found = next((part[6:] for part in parts if part.startswith(b"Exif\0\0")), b"")
    else:
        data = data if len(data) < _FIRST_BYTES else read_file(path, _MAX_BYTES)
        found = _exif_bytes(data, read_header(data, "it").format)
    exif = Image.Exif()
    if found:
        exif.load(found)
    return exif


def _exif_bytes(data: bytes, format: str) -> bytes:
    """The TIFF structure that holds the tags; empty where there is none."""
    if format == "TIFF":
        return data
    if format == "PNG":
        return _chunk(data, 8, b"eXIf", ">I4s", 4, 1)
    if format == "WebP":
        return _chunk(data, 12, b"EXIF", "<4sI", 0, 2).removeprefix(b"Exif\0\0")
    return b""


def _chunk(data: bytes, at: int, wanted: bytes, head: str, behind: int, even: int) -> bytes:
    """The first chunk of a name; `behind` bytes follow each, which is padded to a multiple of `even`."""
    while at + 8 <= len(data):
        first, second = struct.unpack_from(head, data, at)
        kind, length = (first, second) if isinstance(first, bytes) else (second, first)
        if kind == wanted:
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % even + behind
    return b""


def _position(gps: Mapping[int, Any]) -> GeoPoint:
    if ExifTags.GPS.GPSLatitude not in gps or ExifTags.GPS.GPSLongitude not in gps:
        raise GeodesyError("it has no GPS tags")
    latitude = _degrees(gps[ExifTags.GPS.GPSLatitude], gps.get(ExifTags.GPS.GPSLatitudeRef), "latitude", "NS")
    longitude = _degrees(gps[ExifTags.GPS.GPSLongitude], gps.get(ExifTags.GPS.GPSLongitudeRef), "longitude", "EW")
    return geo_fix(latitude, longitude, _altitude_m(gps))


def _position_std_m(gps: Mapping[int, Any]) -> float | None:
    """GPSHPositioningError. Phones mean a radius that two of three positions are within; an axis has less."""
    error_m = _number(gps.get(ExifTags.GPS.GPSHPositioningError))
    return error_m if error_m is not None and 0.0 < error_m <= _MAX_ERROR_M else None


def _degrees(value: Any, reference: Any, name: str, hemispheres: str) -> float:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    numbers = [_number(part) for part in parts]
    known = [number for number in numbers if number is not None]
    if len(known) != 3 or len(numbers) != 3:
        raise GeodesyError(f"its {name} {value!r} is not three numbers")
    degrees, minutes, seconds = known
    if min(known) < 0.0 or minutes > 60.0 or seconds > 60.0:
        raise GeodesyError(f"its {name} ({degrees:g}, {minutes:g}, {seconds:g}) is not degrees, minutes and seconds")
    hemisphere = _text(reference)[:1].upper()
    if not hemisphere or hemisphere not in hemispheres:
        raise GeodesyError(
            f"its {name} says no hemisphere ({reference!r} instead of {hemispheres[0]} or {hemispheres[1]}), so the "
            "position is unknown"
        )
    return (degrees + minutes / 60.0 + seconds / 3600.0) * (1.0 if hemisphere == hemispheres[0] else -1.0)


def _altitude_m(gps: Mapping[int, Any]) -> float | None:
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude))
    reference = gps.get(ExifTags.GPS.GPSAltitudeRef, 0)
    if isinstance(reference, bytes) and len(reference) == 1 and reference[0] in _ALTITUDE_SIGNS:
        reference = reference[0]
    elif not isinstance(reference, int):
        reference = int(text) if (text := _text(reference)).isdecimal() else None
    sign = _ALTITUDE_SIGNS.get(reference)
    return None if altitude is None or sign is None else sign * altitude


def _number(value: Any) -> float | None:
    """A rational or number; None where it is text, 0/0, x/0 or missing."""
    if value is None or isinstance(value, (str, bytes, tuple, list, dict)):
        return None
    try:
        number = float(value)
    except (ArithmeticError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    """A text tag, however it was written: bytes, padded by blanks or zeros, in lower case, in a tuple of one."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip(" \0\t\r\n") if isinstance(value, str) else ""


def _stamp_ns(when: Any) -> int | None:
    """Time of a photograph, taken for UTC; None where it is unknown or beyond what 64 bits of nanoseconds hold."""
    try:
        taken = datetime.strptime(_text(when), "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    seconds = int(taken.timestamp())
    return seconds * 10**9 if 0 < seconds <= _MAX_STAMP_S else None
