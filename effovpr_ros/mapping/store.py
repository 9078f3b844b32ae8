"""PlaceStore: the SQLite file of a map. Appending is one transaction, so a kill leaves whole places only."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.features.image_features import Features, PackedLocal
from effovpr_ros.mapping.checked import blob, integer, refuse, text
from effovpr_ros.mapping.codec import (
    EncodedLocal,
    decode_globals,
    decode_local,
    decode_rounded,
    encode_global,
    encode_local,
)
from effovpr_ros.mapping.database import Database, Execute
from effovpr_ros.mapping.place import NewPlace, Place
from effovpr_ros.mapping.pose_frames import PoseFrames
from effovpr_ros.mapping.store_schema import (
    KNOWN_SCHEMAS,
    PLACE_COLUMNS,
    TABLES,
    checksum_of,
    grid_of,
    place_of_row,
    place_row,
    prepare_tables,
    stamp_of,
)

STORE_NAME = "places.sqlite3"
_BLOCK = 2**15
_LONGEST_PROPERTY = 2**26
_LONGEST_CODES = 2**28
_CHECKSUM_SUFFIX = "/crc32"
_LEAST_PLACE_BYTES, _LONGEST_NUMBER = 64, 18
_FRAMES_PROPERTY = "session_frames"
_UNKNOWN_PROPERTY = "unknown_from"
STORE_PROPERTIES = (_FRAMES_PROPERTY, _UNKNOWN_PROPERTY)
"""Of how places are stored; each store has its own."""


class PlaceStore:
    """Places with descriptors and thumbnails. One writer at a time; calls from several threads are serialised."""

    def __init__(self, folder: Path, *, create: bool = False, writable: bool = True, online: bool = False) -> None:
        """Open or create `places.sqlite3` in a map folder.

        Args:
            folder: of the map.
            create: make the file.
            writable: places may be added.
            online: a transaction goes to a write-ahead log and does not wait for the disk: a kill of the process
                loses nothing, a power cut the last seconds, neither leaves a damaged file. `close` ends the log.

        Raises:
            MapError: missing, damaged, or not writable.
        """
        self._path = folder / STORE_NAME
        prepare = partial(prepare_tables, create=create, writable=writable)
        self._database = Database(self._path, KNOWN_SCHEMAS, prepare, create=create, writable=writable, online=online)
        tables = self._database.tables
        self._has_points, self._digest_column = tables.points, "digest" if tables.digests else "''"
        try:
            # The file is longer than its places, unless its trees go round in circles.
            if self._num_rows() * _LEAST_PLACE_BYTES > self._database.size_bytes:
                raise MapFormatError(f"{self._path} is damaged; restore the map from a copy or rebuild it")
            if writable and self.get_property(_UNKNOWN_PROPERTY) is None:
                self.set_property(_UNKNOWN_PROPERTY, str(self.guessed_below).encode())
        except BaseException:
            self.close()
            raise

    def add(self, places: Sequence[NewPlace], numbers: Sequence[int] | None = None) -> list[int]:
        """Append places in one transaction.

        Args:
            places: to append.
            numbers: that they get, ascending and above those there are; None: the next ones.

        Returns:
            Their numbers.

        Raises:
            MapError: a place is there already, or the disk is full; then none of them is stored.
        """
        with self._database.transaction() as connection:
            first = connection.execute("SELECT coalesce(max(id) + 1, 0) FROM places").fetchone()[0]
            given = list(range(first, first + len(places))) if numbers is None else list(numbers)
            for place_id, place in zip(given, places, strict=True):
                _insert(connection.execute, place_id, place)
            return given

    def remove(self, place_ids: Collection[int]) -> None:
        """Remove places in one transaction; the space in the file is used again."""
        with self._database.transaction() as connection:
            for table, key in TABLES.items():
                rows = [(place_id,) for place_id in place_ids]
                connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", rows)

    def replace_local(self, place_ids: Sequence[int], features: Sequence[Features]) -> None:
        """Replace the local descriptors of places that are there, in one transaction."""
        rows = []
        for place_id, given in zip(place_ids, features, strict=True):
            local = encode_local(given.local, given.grid_wh)
            rows.append((local.codes, local.cells, checksum_of(local.codes, local.cells), place_id))
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE local_descriptors SET codes = ?, cells = ?, checksum = ? WHERE place_id = ?", rows
            )

    def vacuum(self) -> None:
        """Give space that is not used any more back to the disk, which needs as much again meanwhile."""
        self._database.vacuum()

    def copy_to(self, folder: Path) -> None:
        """Write a consistent copy, as of now, to another folder; places may be added meanwhile.

        Raises:
            MapError: there is a file already, or the disk is full.
        """
        self._database.copy_to(folder / STORE_NAME)

    def __len__(self) -> int:
        """Number of places."""
        return self._num_rows()

    @property
    def guessed_below(self) -> int:
        """Places below this number hold 0 for what is unknown, as earlier versions wrote it; see `EarlierPlaces`."""
        stored = self.get_property(_UNKNOWN_PROPERTY)
        if stored is None:
            return int(self._query("SELECT coalesce(max(id) + 1, 0) FROM places")[0][0])
        if not stored.isdigit() or len(stored) > _LONGEST_NUMBER:
            raise refuse(stored, f"{_UNKNOWN_PROPERTY} of {self._path}", "a number")
        return int(stored)

    def place_ids(self) -> Sequence[int]:
        """Numbers of all places, ascending."""
        ((count, first, last),) = self._query("SELECT count(id), min(id), max(id) FROM places")
        if count and first < 0:
            raise refuse(first, f"the first place's number in {self._path}", "0 or more")
        if count and last - first + 1 == count:
            return range(first, last + 1)
        return [row[0] for row in self._query("SELECT id FROM places ORDER BY id")]

    def sessions(self) -> list[str]:
        """Names of the sessions in order of appearance."""
        return list(self.session_starts())

    def session_starts(self) -> dict[str, int]:
        """The first place of each session, in order of appearance."""
        rows = self._query("SELECT session, min(id) FROM places GROUP BY session ORDER BY min(id)")
        return {text(session, f"a session in {self._path}"): first for session, first in rows}

    def places(self, place_ids: Sequence[int] | None = None) -> list[Place]:
        """Places by ascending number; all where none are named."""
        frames = self.pose_frames()
        named = "" if place_ids is None else f"WHERE id IN ({', '.join('?' * len(place_ids))})"
        rows = self._query(f"SELECT {PLACE_COLUMNS} FROM places {named} ORDER BY id", tuple(place_ids or ()))
        return [place_of_row(row, frames) for row in rows]

    def positions(self, place_ids: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 2) x and y in the map frame and (N, 3) latitude, longitude and altitude, NaN if unknown.

        Args:
            place_ids: (N,) ascending; others may have been added, and some forgotten, by another program.
        """
        rows = self._query("SELECT id, x, y, latitude, longitude, altitude, session FROM places ORDER BY id")
        frames = self.pose_frames()
        try:
            found = np.array([row[:6] for row in rows], np.float64).reshape(-1, 6)
        except (TypeError, ValueError) as error:
            raise MapFormatError(f"{self._path} has a position that is no number ({error})") from error
        if frames:
            found[[bool(frames.frame_of(row[6], row[0])) for row in rows], 1:3] = np.nan
        values = np.full((len(place_ids), 5), np.nan)
        asked = np.isin(found[:, 0], place_ids)
        values[np.searchsorted(place_ids, found[asked, 0])] = found[asked, 1:]
        return values[:, :2], values[:, 2:]

    def pose_frames(self) -> PoseFrames:
        """Frames of the poses that are not in the map frame.

        Raises:
            MapFormatError: stored in a form that this version does not read.
        """
        stored = self.get_property(_FRAMES_PROPERTY)
        try:
            return PoseFrames.from_bytes(stored) if stored else PoseFrames()
        except MapFormatError as error:
            raise MapFormatError(f"{self._path} {error}") from error

    def set_pose_frames(self, frames: PoseFrames) -> None:
        """Store the frames of poses at once, as places are."""
        self.set_property(_FRAMES_PROPERTY, frames.to_bytes())

    def descriptor_blocks(self, dimension: int, first_id: int, last_id: int) -> Iterator[NDArray[np.float32]]:
        """(M, D) float32 descriptors of the model, before PCA, L2-normalised, at most `_BLOCK` at a time.

        Args:
            dimension: D.
            first_id: number of the first place.
            last_id: and of the last.
        """
        sql = (
            "SELECT place_id, descriptor FROM global_descriptors WHERE place_id BETWEEN ? AND ? "
            "ORDER BY place_id LIMIT ?"
        )
        while rows := self._query(sql, (first_id, last_id, _BLOCK)):
            yield decode_globals([row[1] for row in rows], dimension)
            first_id = rows[-1][0] + 1

    def packed_local(self, place_ids: Sequence[int], width: int) -> list[PackedLocal]:
        """Local features of places with packed codes, in the order asked for; `width` is C.

        Raises:
            MapError: no such place, or a checksum does not fit.
        """
        marks = ", ".join("?" * len(place_ids))
        rows = self._query(
            "SELECT place_id, codes, cells, l.checksum, grid_columns, grid_rows FROM local_descriptors l "
            f"JOIN places ON places.id = l.place_id WHERE place_id IN ({marks})",
            tuple(place_ids),
        )
        found: dict[int, PackedLocal] = {}
        for place_id, codes, cells, checksum, *grid_wh in rows:
            what = f"local descriptors of place {place_id} in {self._path}"
            encoded = EncodedLocal(blob(codes, what, _LONGEST_CODES), blob(cells, what, _LONGEST_CODES))
            if checksum_of(encoded.codes, encoded.cells) != checksum:
                raise MapError(f"{what} are damaged; rebuild the map")
            found[place_id] = decode_local(encoded, grid_of(grid_wh, what), width)
        missing = [place_id for place_id in place_ids if place_id not in found]
        if missing:
            raise MapError(f"{self._path} has no place {missing[0]}")
        return [found[place_id] for place_id in place_ids]

    def features(self, place_ids: Sequence[int], dimension: int, width: int) -> list[Features]:
        """All features of places, in the order asked for, to be stored again; `dimension` is D, `width` is C.

        Global descriptors are as rounded, not normalised again.

        Raises:
            MapError: no such place, or damaged.
        """
        local = self.packed_local(place_ids, width)
        marks = ", ".join("?" * len(place_ids))
        rows = self._query(
            "SELECT id, grid_columns, grid_rows, descriptor FROM places "
            f"JOIN global_descriptors ON place_id = id WHERE id IN ({marks})",
            tuple(place_ids),
        )
        descriptors = decode_rounded([row[3] for row in rows], dimension)
        found = {
            row[0]: (descriptor, grid_of(row[1:3], f"place {row[0]}"))
            for row, descriptor in zip(rows, descriptors, strict=True)
        }
        return [
            Features(found[place_id][0], features.unpacked(), found[place_id][1])
            for place_id, features in zip(place_ids, local, strict=True)
        ]

    def thumbnail(self, place_id: int) -> bytes:
        """JPEG of a place.

        Raises:
            MapError: no such place.
        """
        rows = self._query("SELECT jpeg FROM thumbnails WHERE place_id = ?", (place_id,))
        if not rows:
            raise MapError(f"{self._path} has no place {place_id}")
        return blob(rows[0][0], f"the picture of place {place_id} in {self._path}", _LONGEST_CODES)

    def points(self, place_ids: Sequence[int]) -> list[bytes | None]:
        """Encoded points of places, in the order asked for; None of a place without.

        Raises:
            MapError: a checksum does not fit.
        """
        if not self._has_points:
            return [None] * len(place_ids)
        marks = ", ".join("?" * len(place_ids))
        rows = self._query(f"SELECT place_id, points, checksum FROM points WHERE place_id IN ({marks})", (*place_ids,))
        found = {}
        for place_id, points, checksum in rows:
            found[place_id] = blob(points, f"points of place {place_id} in {self._path}", _LONGEST_CODES)
            if checksum_of(found[place_id]) != checksum:
                raise MapError(f"points of place {place_id} in {self._path} are damaged; rebuild the map")
        return [found.get(place_id) for place_id in place_ids]

    def sources(self, session: str) -> dict[tuple[str, int | None], set[str]]:
        """Digests of all places of a session by source and stamp_ns, to resume a build by; empty ones are unknown."""
        found: dict[tuple[str, int | None], set[str]] = {}
        sql = f"SELECT source, stamp_ns, {self._digest_column} FROM places WHERE session = ?"
        for source, stamp_ns, digest in self._query(sql, (session,)):
            key = (text(source, "a place's image"), stamp_of(stamp_ns))
            found.setdefault(key, set()).add(text(digest, "a place's digest"))
        return found

    def digest(self, place_id: int) -> str:
        """What tells a place's image from others of its name and time; empty if unknown."""
        return str(self._query(f"SELECT {self._digest_column} FROM places WHERE id = ?", (place_id,))[0][0])

    def checksum(self, num_places: int) -> str:
        """SHA-256 over the checksums of the first places: what a manifest remembers of the store."""
        rows = self._query("SELECT checksum FROM places ORDER BY id LIMIT ?", (num_places,))
        checksums = [integer(row[0], f"a checksum in {self._path}", 0, 2**32 - 1) for row in rows]
        return hashlib.sha256(np.array(checksums, "<u4").tobytes()).hexdigest()

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of global descriptors, local descriptors (codes and cells), thumbnails and points."""
        queries = {
            "global_descriptors": "SELECT sum(length(descriptor)) FROM global_descriptors",
            "local_descriptors": "SELECT sum(length(codes) + length(cells)) FROM local_descriptors",
            "thumbnails": "SELECT sum(length(jpeg)) FROM thumbnails",
        }
        if self._has_points:
            queries["points"] = "SELECT sum(length(points)) FROM points"
        return {name: int(self._query(query)[0][0] or 0) for name, query in queries.items()}

    def get_property(self, key: str) -> bytes | None:
        """A small binary value stored beside the places.

        Raises:
            MapFormatError: it is not as it was stored.
        """
        rows = self._query("SELECT key, value FROM properties WHERE key IN (?, ?)", (key, key + _CHECKSUM_SUFFIX))
        found = {name: blob(value, f"{key} of {self._path}", _LONGEST_PROPERTY) for name, value in rows}
        value, checksum = found.get(key), found.get(key + _CHECKSUM_SUFFIX)
        # Earlier versions stored none.
        if value is not None and checksum is not None and checksum != _stored_checksum(value):
            raise MapFormatError(f"{key} of {self._path} does not fit its checksum")
        return value

    def property_keys(self) -> list[str]:
        """Names of all values that are stored beside the places."""
        keys = [text(row[0], f"a property of {self._path}") for row in self._query("SELECT key FROM properties")]
        return [key for key in keys if not key.endswith(_CHECKSUM_SUFFIX)]

    def set_property(self, key: str, value: bytes) -> None:
        """Store a small binary value, and its checksum."""
        rows = [(key, value), (key + _CHECKSUM_SUFFIX, _stored_checksum(value))]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO properties VALUES (?, ?)", rows)

    def damaged(self, width: int) -> Iterator[str]:
        """One line for everything in the file that is not as it was written; reads all of it."""
        for (line,) in self._query("PRAGMA integrity_check"):
            if line != "ok":
                yield f"{STORE_NAME}: {line}"
        for row in self._query(f"SELECT {PLACE_COLUMNS}, checksum FROM places ORDER BY id"):
            place_id = row[0]
            blobs = self._query("SELECT descriptor FROM global_descriptors WHERE place_id = ?", (place_id,))
            try:
                whole = blob(blobs[0][0] if blobs else b"", f"the descriptor of place {place_id}", _LONGEST_CODES)
                parts = (whole, self.thumbnail(place_id))
                if checksum_of(repr(row[:-1]).encode(), *parts) != row[-1]:
                    yield f"place {place_id} ({row[3]}) does not fit its checksum"
                self.packed_local([place_id], width)
                self.points([place_id])
            except MapError as error:
                yield str(error)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _num_rows(self) -> int:
        return int(self._query("SELECT count(id) FROM places")[0][0])

    def _query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return self._database.query(sql, values)


def _insert(execute: Execute, place_id: int, place: NewPlace) -> None:
    local = encode_local(place.features.local, place.features.grid_wh)
    row, global_blob = place_row(place_id, place), encode_global(place.features.global_descriptor)
    checksum = checksum_of(repr(row).encode(), global_blob, place.thumbnail)
    execute(
        f"INSERT INTO places VALUES ({', '.join('?' * 20)})",
        (*row, *place.features.grid_wh, checksum, place.digest),
    )
    execute("INSERT INTO global_descriptors VALUES (?, ?)", (place_id, global_blob))
    execute(
        "INSERT INTO local_descriptors VALUES (?, ?, ?, ?)",
        (place_id, local.codes, local.cells, checksum_of(local.codes, local.cells)),
    )
    execute("INSERT INTO thumbnails VALUES (?, ?)", (place_id, place.thumbnail))
    if place.points is not None:
        execute("INSERT INTO points VALUES (?, ?, ?)", (place_id, place.points, checksum_of(place.points)))


def _stored_checksum(value: bytes) -> bytes:
    return checksum_of(value).to_bytes(4, "big")
