"""Database: the SQLite file of a map, opened so that nothing in it can do harm, with this package's errors."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from effovpr_ros.core.errors import MapError, MapFormatError

_logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 30.0
_LONGEST_VALUE_BYTES = 2**28
# What one question may compute: damaged and crafted files have trees that never end.
_ALLOWED_S = 3.0
_ALLOWED_BYTES_PER_S = 1e7
_STEPS_BETWEEN_CHECKS = 100_000
_LONGEST_QUOTE = 200
# Byte of a file's header that says which kind of log it needs, and its value for a write-ahead log.
_LOG_KIND_AT, _WRITE_AHEAD = 18, 2

Execute = Callable[..., sqlite3.Cursor]
Tables = TypeVar("Tables")


class Database(Generic[Tables]):
    """One file with known tables; calls from several threads are serialised.

    Attributes:
        tables: what `prepare` says of them.
    """

    def __init__(
        self,
        path: Path,
        known: Sequence[str],
        prepare: Callable[[sqlite3.Connection], Tables],
        *,
        create: bool,
        writable: bool,
        online: bool,
    ) -> None:
        """Open or make the file.

        What a killed writer left half done is undone first, also where nothing will be written.

        Args:
            path: of the file.
            known: statements that make tables, of this version and of earlier ones; a file with others is refused.
            prepare: makes the tables of a new file, or adds what those of an earlier version lack.
            create: make the file.
            writable: statements may change it.
            online: see `PlaceStore`.

        Raises:
            MapError: missing, damaged, of other tables, or not writable.
        """
        self._path = path
        self._lock = threading.Lock()
        self._writable, self._online = writable or create, online
        self._deadline = float("inf")
        if not create and not path.is_file():
            raise MapError(f"{path} is missing; restore it from a copy or rebuild the map")
        if not create and not os.access(path, os.R_OK):
            raise MapError(f"{path} is not readable; change its permissions")
        if self._writable and not create and not os.access(path, os.W_OK):
            raise MapError(f"{path} is not writable; change its permissions or work on a copy of the map")
        with self._translated():
            self._connection = sqlite3.connect(
                _address(path, create),
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                check_same_thread=False,
                isolation_level=None,
            )
        try:
            with self._translated(), self._limited():
                self.tables = self._prepare(known, prepare, create)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, known: Sequence[str], prepare: Callable[[sqlite3.Connection], Tables], create: bool) -> Tables:
        execute = self._connection.execute
        self._connection.set_progress_handler(self._is_late, _STEPS_BETWEEN_CHECKS)
        if hasattr(self._connection, "setlimit"):  # from Python 3.11 on
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE_BYTES)
        # No function that a table or a view names is called.
        execute("PRAGMA trusted_schema = OFF")
        execute("PRAGMA cell_size_check = ON")
        execute("PRAGMA mmap_size = 0")
        if not create:
            self._require(known)
        if self._writable:
            self._choose_log()
        else:
            execute("PRAGMA query_only = ON")
        return prepare(self._connection)

    def _require(self, known: Sequence[str]) -> None:
        found, wanted = _tables(self._connection), [_tables_of(schema) for schema in known]
        if found not in wanted:
            names = sorted({f"{row[0]} {row[1]}" for row in found ^ wanted[0]})
            raise MapFormatError(
                f"{self._path} has other tables than a map ({', '.join(names)[:200]}); restore the map from a copy or "
                "rebuild it"
            )

    def _choose_log(self) -> None:
        execute = self._connection.execute
        if self._online:
            execute("PRAGMA journal_mode = WAL")
        elif execute("PRAGMA journal_mode").fetchone() == ("wal",):
            self._end_log()
        execute(f"PRAGMA synchronous = {'NORMAL' if self._online else 'FULL'}")

    def _end_log(self) -> None:
        """Make one file again, that is copied and opened read-only; a reader that is still there prevents it."""
        try:
            self._connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            _logger.warning("%s keeps its write-ahead log: %s", self._path, error)

    @property
    def size_bytes(self) -> int:
        """Of the file and what a log holds of it."""
        parts = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(part.stat().st_size for part in parts if part.is_file())

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows that a question gives.

        Raises:
            MapError: the file is damaged, or in use for long.
        """
        with self._lock, self._translated(), self._limited():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Statements that all count or none, whatever happens meanwhile.

        Raises:
            MapError: the file is full, in use for long, not writable, or damaged.
        """
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def vacuum(self) -> None:
        """Give space that is not used any more back to the disk, which needs as much again meanwhile."""
        with self._lock, self._translated():
            self._connection.execute("VACUUM")

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy, as of now; others may write meanwhile.

        Raises:
            MapError: there is a file already, or the disk is full.
        """
        with self._translated():
            # A connection of its own: a reader of the write-ahead log holds no writer up.
            source = sqlite3.connect(_address(self._path, False), uri=True, timeout=_BUSY_TIMEOUT_S)
            try:
                source.execute("VACUUM INTO ?", (str(target),))
            finally:
                source.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            try:
                if self._online:
                    self._online = False
                    self._end_log()
            finally:
                self._connection.close()

    def _is_late(self) -> bool:
        return time.thread_time() > self._deadline

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """End a question that computes for longer than a file of this size can need."""
        self._deadline = time.thread_time() + _ALLOWED_S + self.size_bytes / _ALLOWED_BYTES_PER_S
        try:
            yield
        finally:
            self._deadline = float("inf")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn SQLite's errors into this package's, with a remedy."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise MapError(
                f"{self._path}: a place is already there ({error}); give the drive another session"
            ) from error
        except (sqlite3.Error, OverflowError, MemoryError, UnicodeDecodeError) as error:
            # SQLite quotes what it cannot read, whatever that is.
            said = "".join(letter if letter.isprintable() else " " for letter in str(error)[:_LONGEST_QUOTE])
            raise _error(self._path, said, self._writable) from error
        except OSError as error:
            raise MapError(f"{self._path} cannot be read: {error.strerror}") from error


def _error(path: Path, text: str, writable: bool) -> MapError:
    if text == "interrupted":
        return MapFormatError(f"{path} is damaged: reading it does not end; restore the map from a copy or rebuild it")
    if "full" in text:
        return MapError(f"{path}: {text}; free some space; the map keeps what was committed and the build resumes")
    logs = [path.with_name(f"{path.name}-{kind}") for kind in ("journal", "wal")]
    if not writable and any(log.exists() for log in logs) and ("readonly" in text or "unable to open" in text):
        return MapError(
            f"{path} was left by a writer that was killed, and to undo what it had begun needs write access ({text}); "
            "run `effovpr map info` once as a user who may write in that folder, or open a copy of it"
        )
    return MapError(f"{path}: {text}; it is in use, not writable or damaged; see `effovpr map check`")


def _address(path: Path, create: bool) -> str:
    """Where SQLite opens a file. It is opened for writing where the system allows, also by readers: see `Database`."""
    address = f"{path.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
    if create or os.access(path.parent, os.W_OK):
        return address
    # In a folder where no log can be made, a file that needs one is read without, unless there is one.
    with path.open("rb") as file:
        header = file.read(_LOG_KIND_AT + 1)
    if header[_LOG_KIND_AT:] == bytes([_WRITE_AHEAD]) and not path.with_name(f"{path.name}-wal").exists():
        return f"{address}&immutable=1"
    return address


def _tables(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    """What a file declares: tables, indices, views, triggers, each with its statement."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 100").fetchall()
    return {(kind, name, table, _plain(sql)) for kind, name, table, sql in rows}


def _plain(sql: object) -> str:
    """A statement without what means nothing: a table that was renamed has its name in quotes."""
    return " ".join(str(sql).replace('"', "").split())


def _tables_of(schema: str) -> set[tuple[object, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(schema)
        return _tables(connection)
    finally:
        connection.close()
