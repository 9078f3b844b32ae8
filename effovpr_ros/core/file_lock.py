"""FileLock: a file that one process at a time holds, with the holder's name in it for those who come second."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from pathlib import Path

from effovpr_ros.core.errors import InUseError, MapError

_MAX_HOLDER_BYTES = 300


class FileLock:
    """Held from its making to `release`, or to the end of the process, however it ends.

    The lock is `flock`'s: of the open file, so that two holders in one process exclude each other too. A file that a
    killed holder left behind means nothing.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, without waiting.

        Raises:
            InUseError: another one holds it; its text names the holder.
            FileNotFoundError: the folder is not there.
            MapError: the file cannot be made, or the file system has no locks.
        """
        self._path = path
        while True:
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise MapError(f"{path} cannot be written: {error.strerror}") from error
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InUseError(self._close_and_name_holder()) from error
            except OSError as error:
                os.close(self._descriptor)
                raise MapError(f"{path} cannot be locked: {error.strerror}; use a local disk") from error
            # Its holder may have removed the file since it was opened here; then the lock is worth nothing.
            if self._is_in_place():
                break
            os.close(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, this_program().encode(errors="replace")[:_MAX_HOLDER_BYTES], 0)

    def release(self) -> None:
        """Give the lock to others and remove the file."""
        if self._descriptor < 0:
            return
        if self._is_in_place():
            self._path.unlink(missing_ok=True)
        # Also where a forked child has the file open.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = -1

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def _close_and_name_holder(self) -> str:
        stored = os.pread(self._descriptor, _MAX_HOLDER_BYTES, 0).decode(errors="replace")
        os.close(self._descriptor)
        return "".join(letter for letter in stored if letter.isprintable()) or "another program"


def this_program() -> str:
    """Name of this program, its process and its computer, for people."""
    words = [Path(sys.argv[0]).name or "python"]
    for word in sys.argv[1:3]:
        if not word.replace("-", "").isalnum() or word.startswith("-"):
            break
        words.append(word)
    return f"{' '.join(words)} (process {os.getpid()} on {socket.gethostname()})"
