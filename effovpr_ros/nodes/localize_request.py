"""Calls of `~/localize` that wait for their answer."""

from __future__ import annotations

import math
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from effovpr_ros.core.errors import NodeError
from effovpr_ros.msg import PlaceMatch

_DEFAULT_TIMEOUT_S = 5.0
_MAX_TIMEOUT_S = 60.0


class LocalizeRequest:
    """One call; the first to answer or refuse it settles it.

    Attributes:
        answer: done with the match, or with a NodeError that says why there is none.
    """

    def __init__(self, timeout_s: float, *, after_ns: int = -1) -> None:
        """Begin to wait.

        Args:
            timeout_s: longest wait as it was asked for; 0 for the default.
            after_ns: images of the topic with this stamp are not what is waited for.

        Raises:
            NodeError: a wait that is not finite, negative or longer than a minute.
        """
        if not (math.isfinite(timeout_s) and 0.0 <= timeout_s <= _MAX_TIMEOUT_S):
            raise NodeError(
                f"timeout_s {timeout_s} is outside [0, {_MAX_TIMEOUT_S:.0f}]; 0 is {_DEFAULT_TIMEOUT_S:.0f} s"
            )
        self.timeout_s = timeout_s or _DEFAULT_TIMEOUT_S
        self.after_ns = after_ns
        self.answer: Future[PlaceMatch] = Future()

    @property
    def is_settled(self) -> bool:
        """Whether nobody waits any more."""
        return self.answer.done()

    def give(self, match: PlaceMatch) -> None:
        """Answer it."""
        with suppress(InvalidStateError):
            self.answer.set_result(match)

    def refuse(self, reason: str) -> None:
        """Say why there is no answer."""
        with suppress(InvalidStateError):
            self.answer.set_exception(NodeError(reason))
