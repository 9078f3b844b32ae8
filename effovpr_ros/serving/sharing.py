"""How many threads a question gets: all that nobody else needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class SharedCores:
    """The cores of this machine, shared by the questions at hand.

    A question alone is answered by all of them; many are answered by one each, since teams of threads would wait for
    each other.
    """

    def __init__(self, cores: int) -> None:
        """Share nothing yet.

        Args:
            cores: of this machine.
        """
        self._cores, self._users = cores, 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[int]:
        """What the calling thread may use inside, as torch's number of threads; gives that number."""
        with self._lock:
            self._users += 1
            mine = max(1, self._cores // self._users)
        before = torch.get_num_threads()
        torch.set_num_threads(mine)
        try:
            yield mine
        finally:
            torch.set_num_threads(before)
            with self._lock:
                self._users -= 1
