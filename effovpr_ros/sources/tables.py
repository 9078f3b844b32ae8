"""Where the images of a folder were taken: EXIF, CSV, TUM, or names that carry UTM coordinates."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from effovpr_ros.core.errors import EffoVPRError, GeodesyError, SourceError, TrajectoryError
from effovpr_ros.core.geodesy import utm_to_geo
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.sources.trajectory import read_tum, stamp_to_ns

_POSITION = ("x", "y", "z")
_QUATERNION = ("qx", "qy", "qz", "qw")
_TUM_TOLERANCE_NS = 500_000_000


@dataclass(frozen=True)
class Tag:
    """What a table or a file knows of one image.

    Attributes:
        path: of the image.
        stamp_ns: 0 if unknown.
        pose: in the map frame, if known.
        geo: WGS84, if known.
        heading_deg: clockwise from north, if known.
    """

    path: Path
    stamp_ns: int = 0
    pose: Pose | None = None
    geo: GeoPoint | None = None
    heading_deg: float | None = None


@dataclass(frozen=True)
class Tags:
    """Tags of a folder and one line for each image or row that was refused."""

    tags: tuple[Tag, ...]
    refused: tuple[str, ...] = ()


def read_exif(paths: Sequence[Path]) -> Tags:
    """Geo-tag, heading and time of photographs by EXIF; those without a geo-tag are refused."""
    tags, refused = [], []
    for path in paths:
        try:
            with Image.open(path) as image:
                exif = image.getexif()
                gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
                details = exif.get_ifd(ExifTags.IFD.Exif)
            geo = _exif_position(gps)
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            refused.append(f"{path.name}: cannot be read ({error})")
            continue
        except (EffoVPRError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            refused.append(f"{path.name}: no valid EXIF position ({error})")
            continue
        direction = gps.get(ExifTags.GPS.GPSImgDirection)
        heading = float(direction) if direction is not None and math.isfinite(float(direction)) else None
        when = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        tags.append(Tag(path, _exif_stamp_ns(when), None, geo, heading))
    return Tags(tuple(tags), tuple(refused))


def _exif_position(gps: Mapping[int, object]) -> GeoPoint:
    def degrees(value: object, reference: object, negative: str) -> float:
        d, m, s = (float(part) for part in value)  # type: ignore[attr-defined]
        return (d + m / 60.0 + s / 3600.0) * (-1.0 if str(reference).upper().startswith(negative) else 1.0)

    if ExifTags.GPS.GPSLatitude not in gps or ExifTags.GPS.GPSLongitude not in gps:
        raise GeodesyError("it has no GPS tags")
    latitude = degrees(gps[ExifTags.GPS.GPSLatitude], gps.get(ExifTags.GPS.GPSLatitudeRef, "N"), "S")
    longitude = degrees(gps[ExifTags.GPS.GPSLongitude], gps.get(ExifTags.GPS.GPSLongitudeRef, "E"), "W")
    if ExifTags.GPS.GPSAltitude not in gps:
        return GeoPoint(latitude, longitude)
    altitude = float(gps[ExifTags.GPS.GPSAltitude])  # type: ignore[arg-type]
    below = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01")
    return GeoPoint(latitude, longitude, -altitude if below else altitude)


def _exif_stamp_ns(when: object) -> int:
    try:
        taken = datetime.strptime(str(when), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return 0
    return int(taken.replace(tzinfo=timezone.utc).timestamp()) * 10**9


def read_csv(table: Path, folder: Path) -> Tags:
    """Rows of `image,stamp[,x,y,z,qx,qy,qz,qw][,latitude,longitude,altitude]`, in any order of columns.

    `image` is relative to the folder; `stamp` is in seconds and may be empty or missing. x, y, z are metres in
    the map frame (REP-103), z may be missing; `yaw_deg`, counter-clockwise from x, may stand for the quaternion.
    latitude and longitude are WGS84 degrees, altitude metres and optional; `heading_deg` is clockwise from north.
    Empty cells are unknown values; other columns are ignored. Bad rows are refused with their reason.

    Raises:
        SourceError: unreadable, or a column is missing; names it.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"table {table} cannot be read: {error}") from error
    if "image" not in columns:
        raise SourceError(f"table {table} has no column 'image' ; it has {', '.join(columns) or 'none'}")
    for group in (("x", "y"), ("latitude", "longitude"), _QUATERNION):
        present = [name for name in group if name in columns]
        if present and len(present) < len(group):
            missing = next(name for name in group if name not in columns)
            raise SourceError(f"table {table} has a column {present[0]!r} but none {missing!r}")
    tags, refused = [], []
    for number, row in enumerate(rows, start=2):
        try:
            tags.append(_csv_tag(row, folder))
        except (EffoVPRError, ValueError) as error:
            refused.append(f"{table.name}, line {number} ({row.get('image')}): {error}")
    return Tags(tuple(tags), tuple(refused))


def _csv_tag(row: Mapping[str, str | None], folder: Path) -> Tag:
    cells = {name: (value or "").strip() for name, value in row.items() if name}
    path = folder / cells["image"]
    if not cells["image"] or not path.is_file():
        raise SourceError(f"image {path} does not exist")

    def number(name: str) -> float | None:
        return float(cells[name]) if cells.get(name) else None

    pose = geo = None
    x, y, z = (number(name) for name in _POSITION)
    if x is not None and y is not None:
        qx, qy, qz, qw = (number(name) for name in _QUATERNION)
        if qx is not None and qy is not None and qz is not None and qw is not None:
            pose = Pose((x, y, z), (qx, qy, qz, qw))
        else:
            yaw_deg = number("yaw_deg")
            pose = Pose.from_yaw(x, y, None if yaw_deg is None else math.radians(yaw_deg), z)
    latitude, longitude = number("latitude"), number("longitude")
    if latitude is not None and longitude is not None:
        geo = GeoPoint(latitude, longitude, number("altitude"))
    stamp_ns = stamp_to_ns(cells["stamp"]) if cells.get("stamp") else 0
    return Tag(path, stamp_ns, pose, geo, number("heading_deg"))


def read_tum_folder(table: Path, paths: Sequence[Path]) -> Tags:
    """Images named by their stamp in seconds (as TUM's own sets are), with poses of a TUM trajectory.

    Poses are interpolated; images in gaps of more than 0.5 s are refused.

    Raises:
        SourceError: the trajectory is unreadable or empty.
    """
    try:
        trajectory, lines = read_tum(table)
    except TrajectoryError as error:
        raise SourceError(f"{table}: {error}") from error
    tags, refused = [], list(lines)
    for path in paths:
        try:
            stamp_ns = stamp_to_ns(path.stem)
            tags.append(Tag(path, stamp_ns, trajectory.at(stamp_ns, _TUM_TOLERANCE_NS)))
        except ValueError:
            refused.append(f"{path.name}: its name is no stamp in seconds, so it has no pose in {table.name}")
        except TrajectoryError as error:
            refused.append(f"{path.name}: {error}")
    return Tags(tuple(tags), tuple(refused))


def read_utm_names(paths: Sequence[Path]) -> Tags:
    """Names as visual place recognition sets have them.

    `@utm_east@utm_north@zone@letter@latitude@longitude@pano@tile@heading@pitch@roll@height@timestamp@note@.jpg`;
    all after utm_north may be empty. Without zone and letter, latitude and longitude are used; without both, the
    position is metres from the first image, since a map frame holds no raw UTM.
    """
    tags, refused = [], []
    origin: tuple[float, float] | None = None
    for path in paths:
        fields = path.name.split("@")
        try:
            east, north = float(fields[1]), float(fields[2])
            if not (math.isfinite(east) and math.isfinite(north)):
                raise GeodesyError(f"coordinate ({east}, {north}) is not finite")
            padded = fields[3:] + [""] * 8
            zone, letter, latitude, longitude = padded[:4]
            heading = float(padded[6]) if padded[6] and not path.name.endswith(padded[6]) else None
            pose = geo = None
            if zone and letter:
                geo = utm_to_geo(east, north, int(zone), letter)
            elif latitude and longitude:
                geo = GeoPoint(float(latitude), float(longitude))
            else:
                origin = origin or (east, north)
                yaw_rad = None if heading is None else math.radians(90.0 - heading)
                pose = Pose.from_yaw(east - origin[0], north - origin[1], yaw_rad, None)
        except (EffoVPRError, ValueError, IndexError) as error:
            refused.append(f"{path.name}: no valid @utm_east@utm_north@ name ({error})")
            continue
        tags.append(Tag(path, 0, pose, geo, heading))
    return Tags(tuple(tags), tuple(refused))
