"""Calls of replicas: again where one has just died, by its own error where it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.serving.service import BusyError

PASSES = (ActorDiedError, ActorUnavailableError, ObjectLostError, RayActorError, WorkerCrashedError, BackPressureError)
"""What a replica's death looks like to those who asked it: another one answers the same."""

_PAUSE_S = 0.1
_THREADS = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


class Calls:
    """Asks replicas from threads of this process.

    Attributes:
        repeated: calls that were made again since a replica died.
    """

    def __init__(self, timeout_s: float) -> None:
        """Ask nobody yet.

        Args:
            timeout_s: a call that is not answered by then is given up.
        """
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, "call")
        self.repeated = 0

    def ask(self, method: Any, *given: Any) -> Any:
        """What a method of a deployment's handle answers.

        Raises:
            EffoVPRError: what the replica raised; a BusyError where none answers in time.
        """
        ends_s = time.monotonic() + self._timeout_s
        while True:
            try:
                return method.remote(*given).result(timeout_s=max(0.0, ends_s - time.monotonic()))
            except RayTaskError as error:
                raise own_error(error) from error
            except PASSES as error:
                self.again(ends_s, error)
            except (TimeoutError, GetTimeoutError, DeploymentUnavailableError) as error:
                raise BusyError("a part of the server does not answer") from error

    def all(self, function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
        """A function of each item, all at a time, in their order."""
        if len(items) <= 1:
            return [function(item) for item in items]
        return list(self._threads.map(function, items))

    def again(self, ends_s: float, error: Exception) -> None:
        """Wait a little before a call is made again; a BusyError once the time is out."""
        if time.monotonic() + _PAUSE_S >= ends_s:
            raise BusyError("a part of the server died and is not back yet") from error
        self.repeated += 1
        time.sleep(_PAUSE_S)


def own_error(error: RayTaskError) -> Exception:
    """The error of this package that a replica raised; else Ray's, with all that it knows."""
    cause = error.cause
    return cause if isinstance(cause, EffoVPRError) else error
