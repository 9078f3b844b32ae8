"""Tables and rows of `places.sqlite3`."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from effovpr_ros.core.errors import GeodesyError, MapFormatError, TrajectoryError
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.checked import MAX_INT64, integer, real, text
from effovpr_ros.mapping.codec import MAX_GRID
from effovpr_ros.mapping.place import NewPlace, Place
from effovpr_ros.mapping.pose_frames import PoseFrames

_PLACES_SCHEMA = """
CREATE TABLE places (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, stamp_ns INTEGER NOT NULL, source TEXT NOT NULL,
    x REAL, y REAL, z REAL, qx REAL, qy REAL, qz REAL, qw REAL,
    latitude REAL, longitude REAL, altitude REAL,
    image_width INTEGER NOT NULL, image_height INTEGER NOT NULL,
    grid_columns INTEGER NOT NULL, grid_rows INTEGER NOT NULL,
    checksum INTEGER NOT NULL, digest TEXT NOT NULL DEFAULT '',
    UNIQUE (session, source, stamp_ns, digest)
);
"""
# Thumbnails and descriptors have tables of their own, so that listing the places reads few pages.
_SCHEMA = f"""
BEGIN;
CREATE TABLE properties (key TEXT PRIMARY KEY, value BLOB NOT NULL);
{_PLACES_SCHEMA}
CREATE TABLE global_descriptors (place_id INTEGER PRIMARY KEY REFERENCES places, descriptor BLOB NOT NULL);
CREATE TABLE local_descriptors (
    place_id INTEGER PRIMARY KEY REFERENCES places, codes BLOB NOT NULL, cells BLOB NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE thumbnails (place_id INTEGER PRIMARY KEY REFERENCES places, jpeg BLOB NOT NULL);
COMMIT;
"""
# In maps of before, name and time alone told images apart, and a constraint of SQLite cannot be changed in its table.
_DIGEST_SCHEMA = f"""
PRAGMA legacy_alter_table = ON;
BEGIN IMMEDIATE;
ALTER TABLE places RENAME TO places_before;
{_PLACES_SCHEMA}
INSERT INTO places SELECT *, '' FROM places_before;
DROP TABLE places_before;
COMMIT;
"""
# Maps of before have none of it; they get it when they are opened to be written to.
_POINTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS points (
    place_id INTEGER PRIMARY KEY REFERENCES places, points BLOB NOT NULL, checksum INTEGER NOT NULL
);
"""
_SCHEMA_BEFORE_DIGESTS = _SCHEMA.replace(", digest TEXT NOT NULL DEFAULT ''", "").replace(", digest)", ")")
KNOWN_SCHEMAS = tuple("".join(parts) for parts in product((_SCHEMA, _SCHEMA_BEFORE_DIGESTS), ("", _POINTS_SCHEMA)))
"""Of this version and of those before; a file of anything else is no map."""
TABLES = {
    "points": "place_id",
    "thumbnails": "place_id",
    "local_descriptors": "place_id",
    "global_descriptors": "place_id",
    "places": "id",
}
PLACE_COLUMNS = (
    "id, session, stamp_ns, source, x, y, z, qx, qy, qz, qw, latitude, longitude, altitude, image_width, image_height"
)


@dataclass(frozen=True)
class Tables:
    """What the tables of an open file can hold; those of maps of before hold less while they are open read-only."""

    points: bool
    digests: bool


def prepare_tables(connection: sqlite3.Connection, *, create: bool, writable: bool) -> Tables:
    """Make the tables of a new file, or add what those of an earlier version lack."""
    if create:
        connection.executescript(_SCHEMA)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(places)")]
    if writable:
        connection.executescript(_POINTS_SCHEMA)
        if "digest" not in columns:
            connection.executescript(_DIGEST_SCHEMA)
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'points'").fetchone()
    return Tables(points=bool(tables[0]), digests=writable or "digest" in columns)


def checksum_of(*parts: bytes) -> int:
    """CRC-32 over all parts."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def place_row(place_id: int, place: NewPlace) -> tuple[Any, ...]:
    """The values of `PLACE_COLUMNS`; what is not known is NULL, an unknown time 0."""
    position = place.pose.position_xyz if place.pose else (None,) * 3
    quat = (place.pose.quat_xyzw if place.pose else None) or (None,) * 4
    geo = (place.geo.latitude_deg, place.geo.longitude_deg, place.geo.altitude_m) if place.geo else (None,) * 3
    # SQLite keeps -0.0 as 0.0, and the checksum is over what will be read.
    numbers = (value if value is None else value + 0.0 for value in (*position, *quat, *geo))
    return (place_id, place.session, place.stamp_ns or 0, place.source, *numbers, *place.image_size_wh)


def place_of_row(row: tuple[Any, ...], frames: PoseFrames) -> Place:
    """The place of a row of `PLACE_COLUMNS`.

    Args:
        row: as read.
        frames: of the poses.

    Raises:
        MapFormatError: a value is none that a place can have.
    """
    what = f"place {row[0]}"
    session, source = text(row[1], f"the session of {what}"), text(row[3], f"the image of {what}")
    size_wh = (integer(row[14], f"the width of {what}"), integer(row[15], f"the height of {what}"))
    x, y, z, qx, qy, qz, qw, latitude, longitude, altitude = (
        None if value is None else real(value, f"a coordinate of {what}") for value in row[4:14]
    )
    quat: Any = None if qw is None else (qx, qy, qz, qw)
    position: Any = (x, y, z)
    try:
        pose = None if x is None else Pose(position, quat)
        geo = None if latitude is None else GeoPoint(latitude, longitude, altitude)  # type: ignore[arg-type]
    except (TypeError, TrajectoryError, GeodesyError) as error:
        raise MapFormatError(
            f"{what} has an impossible position ({error}); restore the map from a copy or rebuild it"
        ) from error
    return Place(row[0], session, stamp_of(row[2]), source, pose, geo, size_wh, frames.frame_of(session, row[0]))


def stamp_of(value: object) -> int | None:
    """Nanoseconds of a row; None where the time is unknown, which the format keeps as 0."""
    return integer(value, "a place's time in nanoseconds", -MAX_INT64, MAX_INT64) or None


def grid_of(columns_rows: Sequence[object], what: str) -> tuple[int, int]:
    """Columns and rows of patches as stored; a MapFormatError that names `what` where they cannot be."""
    columns, rows = (integer(value, f"the grid of {what}", 1, MAX_GRID) for value in columns_rows)
    return columns, rows
