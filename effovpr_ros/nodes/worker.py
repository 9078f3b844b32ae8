"""LatestWorker: a thread that always takes the newest item and counts what it leaves out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Runs one function in one thread. `offer` keeps the newest item only, `request` is never left out."""

    def __init__(self, process: Callable[[Item], None], on_error: Callable[[Exception], None]) -> None:
        """Start the thread.

        Args:
            process: called in the thread with each item.
            on_error: called in the thread with what `process` raised; the thread goes on.
        """
        self._process = process
        self._on_error = on_error
        self._condition = threading.Condition()
        self._newest: Item | None = None
        self._requests: deque[Item] = deque()
        self._stopping = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Items that a newer one replaced before the thread came to them."""
        return self._dropped

    def offer(self, item: Item) -> None:
        """Hand over an item; one that still waits is dropped for it."""
        with self._condition:
            if self._newest is not None:
                self._dropped += 1
            self._newest = item
            self._condition.notify()

    def request(self, item: Item) -> None:
        """Hand over an item that is processed in any case, before offered ones."""
        with self._condition:
            self._requests.append(item)
            self._condition.notify()

    def clear(self) -> None:
        """Forget the offered item that waits."""
        with self._condition:
            self._newest = None

    def stop(self) -> None:
        """Finish the item at hand and end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._requests or self._newest is not None)
                if self._stopping:
                    return
                if self._requests:
                    item = self._requests.popleft()
                else:
                    item, self._newest = self._newest, None  # type: ignore[assignment]
            try:
                self._process(item)
            except Exception as error:  # the node must outlive any one image
                self._on_error(error)
