"""Folders beside a target in which it is made, so that it appears whole; what kills leave of them is removed."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from effovpr_ros.core.errors import InUseError, MapError
from effovpr_ros.core.file_lock import FileLock

MARKER_NAME = ".effovpr_ros_working"
"""In every such folder, and held while it is in use: no folder without it is touched."""

_LONGEST_NAME = 100
_ATTEMPTS = 5


@contextmanager
def work_folder(target: Path, purpose: str) -> Iterator[Path]:
    """An empty folder with a name that was free, on the file system of the target; removed at the end.

    Folders of the same target and purpose whose process was killed are removed first.

    Args:
        target: that will be made; its parents are made where they are missing.
        purpose: one word, part of the name.

    Raises:
        InUseError: another process makes this target; names it.
        MapError: the folder cannot be made.
    """
    parent = target.parent
    prefix = f".{target.name[:_LONGEST_NAME]}.{purpose}-"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(parent, prefix)
        folder, lock = _marked(parent, prefix)
    except InUseError as error:
        raise InUseError(f"{target} is being made by {error}; wait for its end, or stop it") from error
    except OSError as error:
        raise MapError(f"{target} cannot be made: {error.strerror}; choose another folder") from error
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _marked(parent: Path, prefix: str) -> tuple[Path, FileLock]:
    for _ in range(_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            return folder, FileLock(folder / MARKER_NAME)
        except FileNotFoundError:
            # Another process that looked for what kills leave took it for such a folder, empty as it still was.
            continue
    raise MapError(f"no folder can be kept in {parent}; choose another one")


def _remove_unfinished(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{glob.escape(prefix)}????????"):
        # A kill just after it was made, or just before it went, leaves it empty and without its marker.
        with suppress(OSError):
            folder.rmdir()
            continue
        if (folder / MARKER_NAME).is_file() and not folder.is_symlink():
            _remove(folder, FileLock(folder / MARKER_NAME))


def _remove(folder: Path, lock: FileLock) -> None:
    """Remove a folder, its marker last, so that a kill meanwhile leaves one that is known."""
    for path in folder.iterdir():
        if path.name == MARKER_NAME:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    lock.release()
    try:
        folder.rmdir()
    except OSError as error:
        raise MapError(f"{folder} cannot be removed: {error.strerror}; remove it by hand") from error
