"""The folder of a map before and while it is written: whose turn it is, and what a killed creation left."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from effovpr_ros.core.errors import InUseError, MapError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.core.files import remove_unfinished
from effovpr_ros.mapping.manifest import INDEX_NAME, MANIFEST_NAME
from effovpr_ros.mapping.store import STORE_NAME

LOCK_NAME = "writer.lock"
# The store comes before its logs: a file that lost its log may be damaged.
_STORE_FILES = (STORE_NAME, *(f"{STORE_NAME}-{log}" for log in ("journal", "wal", "shm")))


def lock_map(folder: Path) -> FileLock:
    """The right to write to a map, which one program at a time has; what killed ones left of files is removed.

    Raises:
        InUseError: another program writes to it; names it.
        MapError: the folder is not writable.
    """
    try:
        lock = FileLock(folder / LOCK_NAME)
    except InUseError as error:
        raise InUseError(
            f"map {folder} is being written by {error}; wait for its end or stop it, or name another map"
        ) from error
    try:
        remove_unfinished(folder, (MANIFEST_NAME, INDEX_NAME))
    except OSError as error:
        lock.release()
        raise MapError(f"map {folder} cannot be written: {error.strerror}") from error
    return lock


def remove_unfinished_map(folder: Path, keeps: Collection[str] = ()) -> None:
    """Remove what a killed creation left in the folder of a new map: files without a place, and without a manifest.

    Args:
        folder: whose lock is held.
        keeps: names of what else may be there, and stays.

    Raises:
        MapError: the folder holds anything else.
    """
    ours = {LOCK_NAME, INDEX_NAME, *_STORE_FILES, *keeps}
    try:
        names = sorted(path.name for path in folder.iterdir())
        others = [name for name in names if name not in ours]
        if others:
            raise MapError(f"{folder} is not empty (it holds {others[0]}); choose a new folder for the map")
        if STORE_NAME in names and (count := _places_in(folder / STORE_NAME)):
            raise MapError(
                f"{folder} is not empty: {STORE_NAME} holds {count}, but {MANIFEST_NAME} is missing; restore it from "
                "a copy, or choose a new folder for the map"
            )
        for name in (*_STORE_FILES, INDEX_NAME):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise MapError(f"map folder {folder} cannot be made: {error.strerror}") from error


@contextmanager
def removed_if_empty(folder: Path, made: bool) -> Iterator[None]:
    """On leaving, by an error too, remove the map that was made for the work inside, if it holds no place.

    Args:
        folder: of the map, which the work inside closes.
        made: whether it was made for that work; other maps stay.
    """
    try:
        yield
    finally:
        if made:
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    try:
        lock = lock_map(folder)
    except (MapError, FileNotFoundError):
        return  # Another program writes to it by now.
    try:
        if _places_in(folder / STORE_NAME):
            return
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        for name in (*_STORE_FILES, INDEX_NAME):
            (folder / name).unlink(missing_ok=True)
    finally:
        lock.release()
    with suppress(OSError):  # It holds something else.
        folder.rmdir()


def _places_in(path: Path) -> str:
    """What a store holds, for people; empty where it holds no place."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        try:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'places'").fetchone():
                return ""
            found = connection.execute("SELECT max(id) FROM places").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"what cannot be read ({error})"
    return "" if found[0] is None else "places"
