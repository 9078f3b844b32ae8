"""Which frames of a drive become places: by their poses alone, before a picture is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from effovpr_ros.core.poses import Pose
from effovpr_ros.sources.frame import Frame

Of = TypeVar("Of")


def spaced(frames: Iterable[Of], spacing_m: float, spacing_deg: float, frame_of: Callable[[Of], Frame]) -> Iterator[Of]:
    """Frames that are far enough from the last place of their session; those without a pose all are.

    Args:
        frames: in driving order.
        spacing_m: see `BuildConfig`.
        spacing_deg: likewise.
        frame_of: the frame of one of them.
    """
    last: dict[str, Pose] = {}
    for item in frames:
        frame = frame_of(item)
        earlier = last.get(frame.session)
        if frame.pose and earlier and too_close(earlier, frame.pose, spacing_m, spacing_deg):
            continue
        if frame.pose:
            last[frame.session] = frame.pose
        yield item


def too_close(last: Pose, pose: Pose, spacing_m: float, spacing_deg: float) -> bool:
    """Whether a pose is neither that far from the last place nor turned that much against it."""
    if spacing_m == 0.0 and spacing_deg == 0.0:
        return False
    moved = spacing_m > 0.0 and last.distance_m(pose) >= spacing_m
    turn_rad = last.turn_rad(pose)
    turned = turn_rad is not None and spacing_deg > 0.0 and math.degrees(turn_rad) >= spacing_deg
    return not (moved or turned)
