"""Tables, rows and errors of `places.sqlite3`."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import NewPlace, Place

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
    connection.execute("SELECT count(*) FROM places").fetchone()
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'points'").fetchone()
    return Tables(points=bool(tables[0]), digests=writable or "digest" in columns)


def checksum_of(*parts: bytes) -> int:
    """CRC-32 over all parts."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def place_row(place_id: int, place: NewPlace) -> tuple[Any, ...]:
    """The values of `PLACE_COLUMNS`; what is not known is NULL."""
    position = place.pose.position_xyz if place.pose else (None,) * 3
    quat = (place.pose.quat_xyzw if place.pose else None) or (None,) * 4
    geo = (place.geo.latitude_deg, place.geo.longitude_deg, place.geo.altitude_m) if place.geo else (None,) * 3
    return (place_id, place.session, place.stamp_ns, place.source, *position, *quat, *geo, *place.image_size_wh)


def place_of_row(row: tuple[Any, ...], own_frame: str) -> Place:
    """The place of a row of `PLACE_COLUMNS`."""
    x, y, z, qx, qy, qz, qw, latitude, longitude, altitude = row[4:14]
    pose = None if x is None else Pose((x, y, z), None if qw is None else (qx, qy, qz, qw))
    geo = None if latitude is None else GeoPoint(latitude, longitude, altitude)
    return Place(row[0], row[1], row[2], row[3], pose, geo, (row[14], row[15]), own_frame)


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into this package's, with a remedy."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise MapError(f"{path}: a place is already there ({error}); give the drive another session") from error
    except sqlite3.DatabaseError as error:
        text = str(error)
        remedy = (
            "free some space; the map keeps what was committed and the build resumes"
            if "full" in text
            else "it is in use, not writable or damaged; see `effovpr map check`"
        )
        raise MapError(f"{path}: {text}; {remedy}") from error
