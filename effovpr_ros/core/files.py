"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from effovpr_ros.core.errors import MapError


def make_empty_folder(folder: Path, *, leftover: str) -> None:
    """Make the folder of a new map.

    Args:
        folder: that does not exist, is empty, or holds nothing but the left-over.
        leftover: name of a file that an interrupted creation leaves; it is removed.

    Raises:
        MapError: the folder is in use or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = [entry.name for entry in folder.iterdir() if entry.name != leftover]
        if not occupied:
            (folder / leftover).unlink(missing_ok=True)
    except OSError as error:
        raise MapError(f"map folder {folder} cannot be made: {error.strerror}") from error
    if occupied:
        raise MapError(f"{folder} is not empty (it holds {occupied[0]}); choose a new folder for the map")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a kill leaves either the old or the new content.

    Raises:
        MapError: the disk is full or not writable; the old file is still there.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MapError(
            f"{path} cannot be written: {error.strerror}; free some space or choose another folder"
        ) from error
