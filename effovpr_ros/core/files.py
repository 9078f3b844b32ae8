"""Files and folders that are there whole or not at all, and on the disk when it is said so."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from effovpr_ros.core.errors import MapError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_TOKEN_BYTES = 4
_TOKEN_PATTERN = "[0-9a-f]" * (2 * _TOKEN_BYTES)


def usable_path(path: str | Path) -> Path:
    """A path that somebody named, with `~` expanded.

    Raises:
        MapError: no file or folder can have that name.
    """
    try:
        expanded = Path(path).expanduser()
        expanded.stat()
    except FileNotFoundError:
        return expanded
    except RuntimeError as error:  # no such user
        raise MapError(f"{str(path)[:200]!r} cannot be used: {error}; write the path in full") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MapError(f"{str(path)[:200]!r} cannot be used as a path: {reason}; name another one") from error
    return expanded


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A new file that takes the place of another one: a kill, or a power cut, leaves the one or the other whole.

    Args:
        path: to be replaced, or made.

    Yields:
        Where to write the new file, in the same folder.

    Raises:
        OSError: the disk is full or not writable; the old file is still there.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(_TOKEN_BYTES)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a kill leaves either the old or the new content.

    Raises:
        MapError: the disk is full or not writable; the old file is still there.
    """
    try:
        with replaced_file(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise MapError(
            f"{path} cannot be written: {error.strerror}; free some space or choose another folder"
        ) from error


def remove_unfinished(folder: Path, names: Collection[str]) -> None:
    """Remove what kills left of files of these names that were about to be replaced; nobody may be writing them."""
    for name in names:
        for path in folder.glob(f"{name}.{_TOKEN_PATTERN}.tmp"):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the disk know which files are in a folder, after one appeared, went or was renamed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(first: Path, second: Path) -> None:
    """Exchange two folders of one file system in one step: there is no moment at which a name is missing.

    Raises:
        OSError: the file system cannot do it, or one is missing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(first))
    sync_folder(first.parent)
    sync_folder(second.parent)
