"""LatestWorker: a thread that always takes the newest job and counts what it leaves out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


class LatestWorker:
    """Runs jobs in one thread. `offer` keeps the newest only, what was submitted is never left out.

    Whatever uses torch belongs here: each thread that does gets a team of CPU threads of its own, and teams that
    together outnumber the cores slow each other down.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        """Start the thread.

        Args:
            on_error: called in the thread with what an offered job raised; the thread goes on.
        """
        self._on_error = on_error
        self._condition = threading.Condition()
        self._newest: Callable[[], None] | None = None
        self._submitted: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._finishing = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Offered jobs that a newer one replaced before the thread came to them."""
        return self._dropped

    def offer(self, job: Callable[[], None]) -> None:
        """Hand over a job; one that still waits is dropped for it."""
        with self._condition:
            if self._finishing:
                return
            if self._newest is not None:
                self._dropped += 1
            self._newest = job
            self._condition.notify()

    def submit(self, function: Callable[[], Result]) -> Future[Result]:
        """Run a function after the job at hand and before offered ones.

        Returns:
            Its result, or what it raised; cancelled where the worker finishes before it comes to the function.
        """
        future: Future[Result] = Future()
        with self._condition:
            if self._finishing:
                future.cancel()
                return future
            self._submitted.append((future, function))
            self._condition.notify()
        return future

    def clear(self) -> None:
        """Forget the offered job that waits."""
        with self._condition:
            self._newest = None

    def finish(self, last: Callable[[], None]) -> Future[None]:
        """Finish the job at hand, cancel what waits, run a last function, end the thread; returns at once.

        Returns:
            Done when the last function has ended, with what it raised; cancelled if the thread finishes already.
        """
        future: Future[None] = Future()
        with self._condition:
            if self._finishing:
                future.cancel()
                return future
            self._finishing, self._newest = True, None
            waiting = [waiting for waiting, _ in self._submitted]
            self._submitted.clear()
            self._submitted.append((future, last))
            self._condition.notify()
        # What is told of the end may call this worker again, so not under its lock.
        for one in waiting:
            one.cancel()
        return future

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the end of a worker that finishes, for ever if there is no timeout; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._submitted or self._newest is not None)
                is_last = self._finishing
                if self._submitted:
                    job: Callable[[], None] = partial(_settle, *self._submitted.popleft())
                else:
                    assert self._newest is not None
                    job, self._newest = partial(self._guarded, self._newest), None
            job()
            if is_last:
                return

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # the node must outlive any one image
            self._on_error(error)


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # handed to whoever asks for the result
        future.set_exception(error)
    else:
        future.set_result(result)
