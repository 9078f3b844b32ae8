"""Tables and rows of `places.sqlite3`."""

from __future__ import annotations

import zlib
from typing import Any

from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import Place

# Thumbnails and descriptors have tables of their own, so that listing the places reads few pages.
SCHEMA = """
CREATE TABLE properties (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE places (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, stamp_ns INTEGER NOT NULL, source TEXT NOT NULL,
    x REAL, y REAL, z REAL, qx REAL, qy REAL, qz REAL, qw REAL,
    latitude REAL, longitude REAL, altitude REAL,
    image_width INTEGER NOT NULL, image_height INTEGER NOT NULL,
    grid_columns INTEGER NOT NULL, grid_rows INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (session, source, stamp_ns)
);
CREATE TABLE global_descriptors (place_id INTEGER PRIMARY KEY REFERENCES places, descriptor BLOB NOT NULL);
CREATE TABLE local_descriptors (
    place_id INTEGER PRIMARY KEY REFERENCES places, codes BLOB NOT NULL, cells BLOB NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE thumbnails (place_id INTEGER PRIMARY KEY REFERENCES places, jpeg BLOB NOT NULL);
"""
# Maps of before have none of it; they get it when they are opened to be written to.
POINTS_SCHEMA = """
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


def checksum_of(*parts: bytes) -> int:
    """CRC-32 over all parts."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def place_of_row(row: tuple[Any, ...], own_frame: str) -> Place:
    """The place of a row of `PLACE_COLUMNS`."""
    x, y, z, qx, qy, qz, qw, latitude, longitude, altitude = row[4:14]
    pose = None if x is None else Pose((x, y, z), (qx, qy, qz, qw))
    geo = None if latitude is None else GeoPoint(latitude, longitude, altitude)
    return Place(row[0], row[1], row[2], row[3], pose, geo, (row[14], row[15]), own_frame)
