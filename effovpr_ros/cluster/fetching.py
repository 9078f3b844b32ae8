"""Bags and folders of images that lie elsewhere: what this machine needs of them, and no more."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from effovpr_ros.cluster.storage import Storage
from effovpr_ros.core.errors import InUseError, SourceError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.sources.images import SUFFIXES
from effovpr_ros.sources.names import is_utm_name

# EXIF stands at the beginning of a picture.
_HEAD_BYTES = 2**18
_BAG_FILES = (".mcap", ".db3", ".bag", "metadata.yaml")
_CACHE = "effovpr_ros-bags"
_WAIT_S = 0.2


def is_remote_bag(storage: Storage) -> bool:
    """Whether a URL names a bag: a file, or a folder with the files of one.

    Raises:
        SourceError: there is nothing.
    """
    if storage.is_file():
        return True
    names = storage.names()
    if not names:
        raise SourceError(f"{storage.url} does not exist or holds nothing; name a bag or a folder of images")
    return any(name.endswith(_BAG_FILES) for name in names)


@contextmanager
def listed_folder(storage: Storage, *, heads: bool) -> Iterator[Path]:
    """A folder of this machine with the names of a remote folder's images, so that they can be listed and tagged.

    Args:
        storage: the remote folder.
        heads: whether the files hold what EXIF may say, or nothing.

    Raises:
        SourceError: there is no image.
    """
    names = [name for name in storage.files() if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not names:
        raise SourceError(f"{storage.url} holds no image that is read ({', '.join(SUFFIXES)})")
    heads = heads and not all(is_utm_name(Path(name)) for name in names)
    with tempfile.TemporaryDirectory(prefix="effovpr_ros-listed-") as made:
        root = Path(made) / storage.url.rstrip("/").rsplit("/", 1)[-1]
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(storage.read(name, _HEAD_BYTES) if heads else b"")
        yield root


def local_bag(storage: Storage) -> Path:
    """A bag on this machine: where it lies, or a copy that all workers of this machine share."""
    if storage.is_local:
        return storage.path
    key = hashlib.sha256(storage.url.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / _CACHE / key
    target = folder / storage.url.rstrip("/").rsplit("/", 1)[-1]
    whole = folder / "whole"
    folder.mkdir(parents=True, exist_ok=True)
    while not whole.exists():
        try:
            lock = FileLock(folder / "lock")
        except InUseError:
            time.sleep(_WAIT_S)
            continue
        try:
            if not whole.exists():
                storage.fetch(target)
                whole.touch()
        finally:
            lock.release()
    return target
