"""PlaceStore: the SQLite file of a map. Appending is one transaction, so a kill leaves whole places only."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.features.extractor import Features, LocalFeatures
from effovpr_ros.mapping.codec import EncodedLocal, decode_globals, decode_local, encode_global, encode_local
from effovpr_ros.mapping.place import NewPlace, Place
from effovpr_ros.mapping.pose_frames import PoseFrames
from effovpr_ros.mapping.store_schema import (
    PLACE_COLUMNS,
    TABLES,
    checksum_of,
    place_of_row,
    place_row,
    prepare_tables,
    translated_errors,
)

_logger = logging.getLogger(__name__)

STORE_NAME = "places.sqlite3"
_BUSY_TIMEOUT_S = 10.0
_BLOCK = 2**15
_FRAMES_PROPERTY = "session_frames"
_UNKNOWN_PROPERTY = "unknown_from"


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
        self._lock = threading.Lock()
        if not create and not self._path.is_file():
            raise MapError(f"{self._path} is missing; restore it from a copy or rebuild the map")
        mode = "rwc" if create else "rw" if writable else "ro"
        with self._translated():
            self._connection = sqlite3.connect(
                f"{self._path.resolve().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                check_same_thread=False,
                isolation_level=None,
            )
            self._online = online
            if online:
                self._connection.execute("PRAGMA journal_mode = WAL")
            if writable:
                self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if online else 'FULL'}")
            tables = prepare_tables(self._connection, create=create, writable=writable)
        self._has_points, self._digest_column = tables.points, "digest" if tables.digests else "''"
        if writable and self.get_property(_UNKNOWN_PROPERTY) is None:
            self.set_property(_UNKNOWN_PROPERTY, str(self.guessed_below).encode())

    def add(self, places: Sequence[NewPlace]) -> list[int]:
        """Append places in one transaction.

        Returns:
            Their numbers.

        Raises:
            MapError: a place is there already, or the disk is full; then none of them is stored.
        """
        with self._lock, self._translated(), self._transaction():
            first = self._connection.execute("SELECT coalesce(max(id) + 1, 0) FROM places").fetchone()[0]
            for place_id, place in enumerate(places, start=first):
                self._insert(place_id, place)
            return list(range(first, first + len(places)))

    def _insert(self, place_id: int, place: NewPlace) -> None:
        local = encode_local(place.features.local, place.features.grid_wh)
        row, global_blob = place_row(place_id, place), encode_global(place.features.global_descriptor)
        checksum = checksum_of(repr(row).encode(), global_blob, place.thumbnail)
        execute = self._connection.execute
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

    def remove(self, place_ids: Collection[int]) -> None:
        """Remove places in one transaction; the space in the file is used again."""
        with self._lock, self._translated(), self._transaction():
            for table, key in TABLES.items():
                rows = [(place_id,) for place_id in place_ids]
                self._connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", rows)

    def replace_local(self, place_ids: Sequence[int], features: Sequence[Features]) -> None:
        """Replace the local descriptors of places that are there, in one transaction."""
        rows = []
        for place_id, given in zip(place_ids, features, strict=True):
            local = encode_local(given.local, given.grid_wh)
            rows.append((local.codes, local.cells, checksum_of(local.codes, local.cells), place_id))
        with self._lock, self._translated(), self._transaction():
            self._connection.executemany(
                "UPDATE local_descriptors SET codes = ?, cells = ?, checksum = ? WHERE place_id = ?", rows
            )

    def vacuum(self) -> None:
        """Give space that is not used any more back to the disk, which needs as much again meanwhile."""
        with self._lock, self._translated():
            self._connection.execute("VACUUM")

    def copy_to(self, folder: Path) -> None:
        """Write a consistent copy, as of now, to another folder; places may be added meanwhile.

        Raises:
            MapError: there is a file already, or the disk is full.
        """
        target = folder / STORE_NAME
        with self._translated():
            # A connection of its own: a reader of the write-ahead log holds no writer up.
            source = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)
            try:
                source.execute("VACUUM INTO ?", (str(target),))
            finally:
                source.close()

    def __len__(self) -> int:
        """Number of places."""
        return int(self._query("SELECT count(*) FROM places")[0][0])

    @property
    def guessed_below(self) -> int:
        """Places below this number hold 0 for what is unknown, as earlier versions wrote it; see `EarlierPlaces`."""
        stored = self.get_property(_UNKNOWN_PROPERTY)
        if stored is None:
            return int(self._query("SELECT coalesce(max(id) + 1, 0) FROM places")[0][0])
        if not stored.isdigit():
            raise MapFormatError(f"{self._path} says {_UNKNOWN_PROPERTY} {stored!r}; restore or rebuild the map")
        return int(stored)

    def place_ids(self) -> Sequence[int]:
        """Numbers of all places, ascending."""
        ((count, first, last),) = self._query("SELECT count(*), min(id), max(id) FROM places")
        if count and last - first + 1 == count:
            return range(first, last + 1)
        return [row[0] for row in self._query("SELECT id FROM places ORDER BY id")]

    def sessions(self) -> list[str]:
        """Names of the sessions in order of appearance."""
        return [row[0] for row in self._query("SELECT session FROM places GROUP BY session ORDER BY min(id)")]

    def places(self, place_ids: Sequence[int] | None = None) -> list[Place]:
        """Places by ascending number; all where none are named."""
        frames = self.pose_frames()
        named = "" if place_ids is None else f"WHERE id IN ({', '.join('?' * len(place_ids))})"
        rows = self._query(f"SELECT {PLACE_COLUMNS} FROM places {named} ORDER BY id", tuple(place_ids or ()))
        return [place_of_row(row, frames.frame_of(row[1], row[0])) for row in rows]

    def positions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 2) x and y in the map frame and (N, 3) latitude, longitude and altitude of all places, NaN if unknown."""
        rows = self._query("SELECT x, y, latitude, longitude, altitude FROM places ORDER BY id")
        values = np.array(rows, np.float64).reshape(-1, 5)
        frames = self.pose_frames()
        if frames:
            named = self._query("SELECT id, session FROM places ORDER BY id")
            values[[bool(frames.frame_of(session, place_id)) for place_id, session in named], :2] = np.nan
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

    def global_descriptors(self, dimension: int) -> NDArray[np.float32]:
        """(N, D) float32 descriptors of the model, before PCA, L2-normalised."""
        sql = "SELECT descriptor FROM global_descriptors ORDER BY place_id"
        return decode_globals([row[0] for row in self._query(sql)], dimension)

    def descriptor_blocks(self, dimension: int, first_id: int) -> Iterator[NDArray[np.float32]]:
        """As `global_descriptors`, of the places from a number on, at most `_BLOCK` at a time."""
        sql = "SELECT place_id, descriptor FROM global_descriptors WHERE place_id >= ? ORDER BY place_id LIMIT ?"
        while rows := self._query(sql, (first_id, _BLOCK)):
            yield decode_globals([row[1] for row in rows], dimension)
            first_id = rows[-1][0] + 1

    def local_features(self, place_ids: Sequence[int], width: int) -> list[LocalFeatures]:
        """Local features of places, in the order asked for; `width` is C.

        Raises:
            MapError: no such place, or a checksum does not fit.
        """
        marks = ", ".join("?" * len(place_ids))
        rows = self._query(
            "SELECT place_id, codes, cells, l.checksum, grid_columns, grid_rows FROM local_descriptors l "
            f"JOIN places ON places.id = l.place_id WHERE place_id IN ({marks})",
            tuple(place_ids),
        )
        found: dict[int, LocalFeatures] = {}
        for place_id, codes, cells, checksum, columns, grid_rows in rows:
            if checksum_of(codes, cells) != checksum:
                raise MapError(f"local descriptors of place {place_id} in {self._path} are damaged; rebuild the map")
            found[place_id] = decode_local(EncodedLocal(codes, cells), (columns, grid_rows), width)
        missing = [place_id for place_id in place_ids if place_id not in found]
        if missing:
            raise MapError(f"{self._path} has no place {missing[0]}")
        return [found[place_id] for place_id in place_ids]

    def features(self, place_ids: Sequence[int], dimension: int, width: int) -> list[Features]:
        """All features of places, in the order asked for; `dimension` is D of the model, `width` is C.

        Raises:
            MapError: no such place, or damaged.
        """
        local = self.local_features(place_ids, width)
        marks = ", ".join("?" * len(place_ids))
        rows = self._query(
            "SELECT id, grid_columns, grid_rows, descriptor FROM places "
            f"JOIN global_descriptors ON place_id = id WHERE id IN ({marks})",
            tuple(place_ids),
        )
        descriptors = decode_globals([row[3] for row in rows], dimension)
        found = {row[0]: (descriptor, (row[1], row[2])) for row, descriptor in zip(rows, descriptors, strict=True)}
        return [
            Features(found[place_id][0], features, found[place_id][1])
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
        return bytes(rows[0][0])

    def points(self, place_ids: Sequence[int]) -> list[bytes | None]:
        """Encoded points of places, in the order asked for; None of a place without.

        Raises:
            MapError: a checksum does not fit.
        """
        if not self._has_points:
            return [None] * len(place_ids)
        marks = ", ".join("?" * len(place_ids))
        rows = self._query(f"SELECT place_id, points, checksum FROM points WHERE place_id IN ({marks})", (*place_ids,))
        for place_id, points, checksum in rows:
            if checksum_of(points) != checksum:
                raise MapError(f"points of place {place_id} in {self._path} are damaged; rebuild the map")
        found = {place_id: bytes(points) for place_id, points, _ in rows}
        return [found.get(place_id) for place_id in place_ids]

    def sources(self, session: str) -> dict[tuple[str, int], set[str]]:
        """Digests of all places of a session by source and stamp_ns, to resume a build by; empty ones are unknown."""
        found: dict[tuple[str, int], set[str]] = {}
        sql = f"SELECT source, stamp_ns, {self._digest_column} FROM places WHERE session = ?"
        for source, stamp_ns, digest in self._query(sql, (session,)):
            found.setdefault((source, stamp_ns), set()).add(digest)
        return found

    def digest(self, place_id: int) -> str:
        """What tells a place's image from others of its name and time; empty if unknown."""
        return str(self._query(f"SELECT {self._digest_column} FROM places WHERE id = ?", (place_id,))[0][0])

    def checksum(self, num_places: int) -> str:
        """SHA-256 over the checksums of the first places: what a manifest remembers of the store."""
        rows = self._query("SELECT checksum FROM places ORDER BY id LIMIT ?", (num_places,))
        return hashlib.sha256(np.array([row[0] for row in rows], "<u4").tobytes()).hexdigest()

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
        """A small binary value stored beside the places."""
        rows = self._query("SELECT value FROM properties WHERE key = ?", (key,))
        return bytes(rows[0][0]) if rows else None

    def set_property(self, key: str, value: bytes) -> None:
        """Store a small binary value."""
        with self._lock, self._translated(), self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO properties VALUES (?, ?)", (key, value))

    def damaged(self, width: int) -> Iterator[str]:
        """One line for everything in the file that is not as it was written; reads all of it."""
        for (line,) in self._query("PRAGMA integrity_check"):
            if line != "ok":
                yield f"{STORE_NAME}: {line}"
        for row in self._query(f"SELECT {PLACE_COLUMNS}, checksum FROM places ORDER BY id"):
            place_id = row[0]
            blobs = self._query("SELECT descriptor FROM global_descriptors WHERE place_id = ?", (place_id,))
            try:
                parts = (blobs[0][0] if blobs else b"", self.thumbnail(place_id))
                if checksum_of(repr(row[:-1]).encode(), *parts) != row[-1]:
                    yield f"place {place_id} ({row[3]}) does not fit its checksum"
                self.local_features([place_id], width)
                self.points([place_id])
            except MapError as error:
                yield str(error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            try:
                if self._online:
                    self._online = False
                    # One file again, that is copied and opened read-only; a reader that is still there prevents it.
                    self._connection.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.OperationalError as error:
                _logger.warning("%s keeps its write-ahead log: %s", self._path, error)
            finally:
                self._connection.close()

    def _query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _translated(self) -> AbstractContextManager[None]:
        return translated_errors(self._path)
