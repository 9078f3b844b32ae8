"""LatestWorker: a thread that always takes the newest item and counts what it leaves out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        self._urgent: deque[Callable[[], None]] = deque()
        self._calls: set[Future[Any]] = set()
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
            self._urgent.append(partial(self._handle, item))
            self._condition.notify()

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function in the thread, after the item at hand, and wait for what it returns or raises.

        Whatever uses torch belongs here: each thread that does gets a team of CPU threads of its own, and teams that
        together outnumber the cores slow each other down.

        Raises:
            CancelledError: the worker was stopped before it came to the function.
        """
        future: Future[Result] = Future()
        with self._condition:
            if self._stopping:
                future.cancel()
            self._calls.add(future)
            self._urgent.append(partial(_answer, future, function))
            self._condition.notify()
        try:
            return future.result()
        finally:
            self._calls.discard(future)

    def clear(self) -> None:
        """Forget the offered item that waits."""
        with self._condition:
            self._newest = None

    def stop(self) -> None:
        """Finish the item at hand, end the thread, and cancel the calls that still wait."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()
        for future in list(self._calls):
            future.cancel()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._urgent or self._newest is not None)
                if self._stopping:
                    return
                if self._urgent:
                    job = self._urgent.popleft()
                else:
                    job, self._newest = partial(self._handle, self._newest), None
            job()

    def _handle(self, item: Item) -> None:
        try:
            self._process(item)
        except Exception as error:  # the node must outlive any one image
            self._on_error(error)


def _answer(future: Future[Any], function: Callable[[], Any]) -> None:
    # Once it runs, it can no longer be cancelled.
    future.set_running_or_notify_cancel()
    try:
        future.set_result(function())
    except BaseException as error:  # handed to the caller, which raises it
        future.set_exception(error)
