"""What `map -> odom` is worth along a drive: the body's pose that it gives at all times, beside the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose
from effovpr_ros.lab.simulation.odometry import DriftingOdometry, OdometryConfig
from effovpr_ros.recognition.map_odom import MapOdom, Track
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.sightings import Sighting
from effovpr_ros.sources.trajectory import Trajectory

ODOMETRY_HZ = 20.0


@dataclass(frozen=True)
class MapOdomDrive:
    """The published transform along a drive, at the rate of the odometry.

    Attributes:
        time_s: (N,) since the start.
        track: how the robot was followed.
        body_xy: (N, 2) published position of the body; NaN before the first pose.
        truth_xy: (N, 2).
        error_m: (N,) between them.
        raw_error_m: (N,) of the odometry alone, put where the drive began.
        jump_m: (N,) by which the published position moved beside what odometry moved it.
        transform_moved: (N,) whether the transform itself changed.
        counts: of `MapOdom`.
    """

    time_s: NDArray[np.float64]
    track: tuple[Track, ...]
    body_xy: NDArray[np.float64]
    truth_xy: NDArray[np.float64]
    error_m: NDArray[np.float64]
    raw_error_m: NDArray[np.float64]
    jump_m: NDArray[np.float64]
    transform_moved: NDArray[np.bool_]
    counts: dict[str, int]

    def figures(self, mapped: NDArray[np.bool_]) -> dict[str, float]:
        """What is asked of it.

        Args:
            mapped: (N,) whether the robot was where the map is.

        Returns:
            95th percentile of the error at all times since the first pose, of it where the map is, and of the odometry
            alone; the greatest jump while tracking; the share of the time that it was lost; the greatest error.
        """
        posed = ~np.isnan(self.error_m)
        follows = np.array([item in (Track.TRACKING, Track.COASTING) for item in self.track])
        both = follows & np.roll(follows, 1)
        frozen = ~follows & posed
        return {
            "error_p95_m": float(np.percentile(self.error_m[posed], 95)),
            "mapped_error_p95_m": float(np.percentile(self.error_m[posed & mapped], 95)),
            "error_max_m": float(self.error_m[posed].max()),
            "odometry_error_p95_m": float(np.percentile(self.raw_error_m, 95)),
            "jump_max_m": float(self.jump_m[both].max()),
            "lost_share": float(frozen.mean()),
            "moved_while_lost": float((self.transform_moved & frozen & np.roll(frozen, 1)).sum()),
        }


def drive_with_odometry(
    truth: Sequence[tuple[int, Pose]],
    answers: Sequence[tuple[int, Sighting | None]],
    config: MapOdomConfig,
    odometry: OdometryConfig,
    *,
    delay_s: float = 0.4,
    withheld_s: tuple[float, float] | None = None,
) -> MapOdomDrive:
    """Drive along poses with drifting odometry and answers that come late.

    Args:
        truth: stamps [ns] and true poses of the images.
        answers: by the stamps [ns] of their images; None where an answer is not measured and confident.
        config: of what is published.
        odometry: its errors.
        delay_s: from an image to its answer.
        withheld_s: answers to images between these times since the start do not come.
    """
    start_ns, end_ns = truth[0][0], truth[-1][0]
    period_ns = round(1e9 / ODOMETRY_HZ)
    drifting, fused, waiting = DriftingOdometry(odometry), MapOdom(config), sorted(answers, key=_stamp)
    if withheld_s is not None:
        first_ns, last_ns = (start_ns + round(value * 1e9) for value in withheld_s)
        waiting = [item for item in waiting if not first_ns <= item[0] < last_ns]
    rows, tracks, moved, previous = [], [], [], None
    begun = truth[0][1]
    driven = Trajectory(*zip(*truth, strict=True))
    for now_ns in range(start_ns, end_ns + 1, period_ns):
        true = driven.at(now_ns, end_ns - start_ns)
        odom = drifting.advance(true)
        before = fused.map_from_odom
        fused.on_odometry(now_ns, odom)
        while waiting and waiting[0][0] + delay_s * 1e9 <= now_ns:
            stamp_ns, answer = waiting.pop(0)
            if answer is None:
                fused.on_nothing(stamp_ns)
            else:
                fused.on_answer(answer)
        after = fused.map_from_odom
        body = compose(after, odom) if after is not None else None
        jump = 0.0
        if before is not None and body is not None:
            jump = _apart(compose(before, odom), body)
        raw = compose(begun, odom)
        xy = body.position_xyz[:2] if body is not None else (math.nan, math.nan)
        error = _apart(body, true) if body is not None else math.nan
        rows.append(((now_ns - start_ns) * 1e-9, *xy, *true.position_xyz[:2], error, _apart(raw, true), jump))
        tracks.append(fused.track)
        moved.append(previous is not None and after != previous)
        previous = after
    table = np.array(rows, np.float64)
    return MapOdomDrive(
        table[:, 0], tuple(tracks), table[:, 1:3], table[:, 3:5], table[:, 5], table[:, 6], table[:, 7],
        np.array(moved, bool), dict(fused.counts),
    )  # fmt: skip


def _stamp(answer: tuple[int, Sighting | None]) -> int:
    return answer[0]


def _apart(a: Pose, b: Pose) -> float:
    return math.hypot(a.position_xyz[0] - b.position_xyz[0], a.position_xyz[1] - b.position_xyz[1])
