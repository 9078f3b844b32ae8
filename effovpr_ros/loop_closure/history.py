"""Keyframes of a run by age and distance: which of them are old enough to close a loop with."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection

from effovpr_ros.loop_closure.keyframes import Progress, distance_with
from effovpr_ros.loop_closure.loop_config import LoopConfig


class RunHistory:
    """When each keyframe of a run was made, in time and in metres driven; both never decrease."""

    def __init__(self) -> None:
        """Start before the first keyframe."""
        self._ids: list[int] = []
        self._elapsed_ns: list[int] = []
        self._distance_m: list[float] = []

    def append(self, keyframe_id: int, progress: Progress) -> None:
        """Note the newest keyframe, with the progress that includes it."""
        self._ids.append(keyframe_id)
        self._elapsed_ns.append(progress.elapsed_ns)
        self._distance_m.append(progress.distance_m)

    def distance_m(self, keyframe_id: int) -> float:
        """Metres driven up to a keyframe; 0 for one of another run."""
        position = bisect_left(self._ids, keyframe_id)
        known = position < len(self._ids) and self._ids[position] == keyframe_id
        return self._distance_m[position] if known else 0.0

    def candidates_below(self, next_id: int, progress: Progress, config: LoopConfig) -> int:
        """Keyframes with a smaller id may close a loop with the image that becomes keyframe `next_id`.

        Those of this run must be old enough by all three rules; time that was set back and odometry that jumped count
        nothing. Whatever was in the map before the run may always.

        Args:
            next_id: of the image.
            progress: with the image observed, before it is taken.
            config: rules.
        """
        old_enough = min(
            bisect_right(self._elapsed_ns, progress.elapsed_ns - round(config.min_age_s * 1e9)),
            bisect_right(self._ids, next_id - config.min_keyframes),
        )
        odometry = progress.last.odometry if progress.last is not None else None
        if odometry is not None:
            driven_m = distance_with(progress, odometry)
            old_enough = min(old_enough, bisect_right(self._distance_m, driven_m - config.min_distance_m))
        return self._ids[old_enough] if old_enough < len(self._ids) else next_id

    def forget(self, keyframe_ids: Collection[int]) -> None:
        """Drop keyframes that are no longer in the map."""
        kept = [position for position, number in enumerate(self._ids) if number not in keyframe_ids]
        self._ids = [self._ids[position] for position in kept]
        self._elapsed_ns = [self._elapsed_ns[position] for position in kept]
        self._distance_m = [self._distance_m[position] for position in kept]
