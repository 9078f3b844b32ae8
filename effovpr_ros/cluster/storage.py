"""Folders on a shared file system or in an object store, by fsspec; what fails now and then is tried again."""

from __future__ import annotations

import logging
import os
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from effovpr_ros.core.errors import ConfigError, MapError
from effovpr_ros.core.files import sync_folder, write_atomically

_logger = logging.getLogger(__name__)

Of = TypeVar("Of")

ATTEMPTS = 6
_FIRST_WAIT_S = 0.2
# Trying again does not help.
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True)
class Storage:
    """A folder, named by a path or a URL such as s3://bucket/folder; workers on other machines must reach it.

    Attributes:
        url: as it was given.
    """

    url: str

    @property
    def is_local(self) -> bool:
        """Whether the file system of this machine, which may be shared, has it."""
        return "://" not in self.url or self.url.startswith("file://")

    @property
    def path(self) -> Path:
        """Where a local one lies."""
        return Path(self.url.removeprefix("file://")).expanduser()

    def below(self, name: str) -> Storage:
        """A folder or file in it."""
        return Storage(f"{self.url.rstrip('/')}/{name}")

    def read(self, name: str, first: int | None = None) -> bytes:
        """Content of a file, or so many of its first bytes.

        Raises:
            FileNotFoundError: there is none.
            MapError: it cannot be read.
        """
        return self._again(
            f"{name} cannot be read", lambda files, root: bytes(files.cat_file(f"{root}/{name}", start=0, end=first))
        )

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which is there whole or not at all.

        Raises:
            MapError: it cannot be written.
        """
        if self.is_local:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / name, data)
        else:
            self._again(f"{name} cannot be written", lambda files, root: files.pipe_file(f"{root}/{name}", data))

    def names(self, folder: str = "") -> list[str]:
        """Files and folders in a folder, sorted; none where there is no such folder."""
        try:
            listed = self._again(
                f"{folder or 'it'} cannot be listed", lambda files, root: files.ls(f"{root}/{folder}", detail=False)
            )
        except FileNotFoundError:
            return []
        return sorted({str(path).rstrip("/").rsplit("/", 1)[-1] for path in listed} - {""})

    def files(self) -> list[str]:
        """All files below it, as paths from it, sorted.

        Raises:
            FileNotFoundError: there is no such folder.
            MapError: it cannot be listed.
        """

        def find(files: Any, root: str) -> list[str]:
            if not files.isdir(root):
                raise FileNotFoundError(root)
            return [str(path) for path in files.find(root)]

        inside = str(fsspec.core.url_to_fs(self.url)[1]).rstrip("/")
        return sorted(path.removeprefix(inside).lstrip("/") for path in self._again("it cannot be listed", find))

    def is_file(self) -> bool:
        """Whether it is one file."""
        return self._again("it cannot be found", lambda files, root: bool(files.isfile(root)))

    def fetch(self, target: Path) -> None:
        """Copy it, a file or a folder with all below it, to a path of this machine."""

        def get(files: Any, root: str) -> None:
            if files.isfile(root):
                target.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(root, str(target))
                return
            for name in self.files():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                files.get_file(f"{root}/{name}", str(target / name))

        self._again("it cannot be fetched", get)

    def put(self, folder: Path, name: str) -> bool:
        """Give a folder of this machine a name here, in one step where it is local; whether the name was free.

        In an object store its files are written one after the other: say only afterwards that it is there.

        Raises:
            MapError: it cannot be written.
        """
        if self.is_local:
            return _renamed(folder, self.path / name)

        def upload(files: Any, root: str) -> None:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    files.put_file(str(path), f"{root}/{name}/{path.relative_to(folder).as_posix()}")

        self._again(f"{name} cannot be written", upload)
        return True

    def remove(self, name: str) -> None:
        """Remove a file or a folder; nothing happens where there is none."""
        with suppress(FileNotFoundError):
            self._again(f"{name} cannot be removed", lambda files, root: files.rm(f"{root}/{name}", recursive=True))

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """An empty folder of this machine to make something in that is put here; removed at the end."""
        if self.is_local:
            self.path.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=WORKING, dir=self.path if self.is_local else None)
        try:
            yield Path(made)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _again(self, problem: str, action: Callable[[Any, str], Of]) -> Of:
        """Try something until it works, waiting longer each time.

        Raises:
            FileNotFoundError: what was asked for is not there.
            MapError: it did not work.
        """
        wait_s = _FIRST_WAIT_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                files, root = fsspec.core.url_to_fs(self.url)
                return action(files, str(root).rstrip("/"))
            except FileNotFoundError:
                raise
            except (ImportError, ValueError) as error:
                raise ConfigError(
                    f"{self.url} cannot be used: {error}; install the driver of its file system (s3fs, gcsfs), or name "
                    "a folder"
                ) from error
            except Exception as error:  # each driver of an object store raises its own
                if isinstance(error, _FINAL) or attempt == ATTEMPTS:
                    tried = f", tried {attempt} times" if attempt > 1 else ""
                    raise MapError(
                        f"{self.url}: {problem} ({error}{tried}); see that it can be reached and written, and repeat "
                        "the command, which resumes"
                    ) from error
                _logger.info("%s: %s (%s); it is tried again", self.url, problem, error)
                time.sleep(wait_s * (0.5 + random.random()))
                wait_s *= 2
        raise AssertionError("unreachable")


WORKING = ".working-"
"""What names of unfinished folders begin with."""


def unfinished(name: str) -> bool:
    """Whether a name is that of what a killed worker left."""
    return name.startswith(WORKING)


def new_name(stem: str) -> str:
    """A name that nobody else uses."""
    return f"{stem}-{secrets.token_hex(4)}"


def _renamed(folder: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    try:
        # Fails where the target is there: a map is never an empty folder.
        folder.rename(target)
    except OSError as error:
        if target.is_dir():
            return False
        raise MapError(
            f"{target} cannot be written: {error.strerror}; free some space or choose another folder"
        ) from error
    sync_folder(target.parent)
    return True
