"""What `/diagnostics` says of the inputs of loop closure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus

from effovpr_ros.loop_closure.keyframes import Condition

_RECENT_S = 5.0


@dataclass(frozen=True)
class InputState:
    """One line of diagnostics.

    Attributes:
        level: of diagnostic_msgs/DiagnosticStatus.
        text: what is wrong and what the detector does about it.
    """

    level: bytes
    text: str


_WARN, _ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR

STATES = {
    Condition.CAMERA_FROZEN: InputState(
        _ERROR, "the camera is frozen: the same image again while the odometry moves; no keyframes are made"
    ),
    Condition.ODOMETRY_LOST: InputState(_ERROR, "odometry has stopped; keyframes are made by time, without pose"),
    Condition.CLOCK_BACKWARDS: InputState(_WARN, "time went backwards; a new track of keyframes has begun"),
    Condition.ODOMETRY_JUMPED: InputState(_WARN, "odometry jumped; a new track of keyframes has begun"),
    Condition.ODOMETRY_LATE: InputState(_WARN, "odometry is late: none for the image within odom_wait_s"),
    Condition.NO_ODOMETRY: InputState(_WARN, "no odometry is heard on odom; keyframes are made by time"),
    Condition.IMAGE_OUT_OF_ORDER: InputState(_WARN, "images come out of order; the older ones are left out"),
}
"""Conditions that are worth a word, the worst first; the others are counted only."""

ODOMETRY_MISSING = InputState(
    _ERROR, "no odometry for the image within odom_wait_s; it is left out, as odometry_required asks"
)

CAMERA_UNKNOWN = InputState(_WARN, "no usable camera_info: relative poses of closures are not measured")


class InputHealth:
    """The conditions of the last seconds; the worker tells them, the diagnostics timer asks."""

    def __init__(self) -> None:
        """Begin without any."""
        self._seen_s: dict[InputState, float] = {}

    def saw(self, state: InputState | None, now_s: float) -> None:
        """A state of the inputs at an image; None where all is well."""
        if state is not None:
            self._seen_s[state] = now_s

    def worst(self, now_s: float) -> InputState | None:
        """The worst state of the last five seconds; None where all was well."""
        for state in (ODOMETRY_MISSING, *STATES.values(), CAMERA_UNKNOWN):
            if now_s - self._seen_s.get(state, -math.inf) <= _RECENT_S:
                return state
        return None
