"""Which closures a SLAM that runs beside the detector can use."""

from __future__ import annotations

from effovpr_ros.msg import Keyframe, LoopClosure
from effovpr_ros.nodes.conversions import ns_from_time


class CurrentRun:
    """Tells closures within this run from those with earlier sessions.

    A SLAM knows only what it has seen since it started. It looks keyframes up by time alone, so a stamp of an earlier
    session, or of before the clock was set back, would be taken for another of its keyframes: a wrong closure.
    """

    def __init__(self) -> None:
        """Start without a keyframe."""
        self._session = ""
        self._first_id: int | None = None
        self._last_ns = 0

    def add(self, keyframe: Keyframe) -> None:
        """A new session, or a clock that was set back, begins a new run."""
        stamp_ns = ns_from_time(keyframe.header.stamp)
        if self._first_id is None or keyframe.session != self._session or stamp_ns < self._last_ns:
            self._session, self._first_id = keyframe.session, keyframe.keyframe_id
        self._last_ns = stamp_ns

    def holds(self, closure: LoopClosure) -> bool:
        """Whether both keyframes are of this run."""
        if self._first_id is None or not closure.query_session == closure.match_session == self._session:
            return False
        return bool(min(closure.query_id, closure.match_id) >= self._first_id)
