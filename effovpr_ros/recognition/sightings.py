"""Answers that agree: whether the poses that several images gave can be those of one robot that moved as it did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose, inverse


def chi2_quantile(share: float, freedom: int) -> float:
    """Below which a share of the chi-squared distribution lies; scipy.stats takes half a second to load."""
    return 2.0 * float(gammaincinv(freedom / 2.0, share))


_PLANE = [0, 1, 5]
_AGREE = chi2_quantile(0.999, 3)
# Odometry errs by so much of the way and turn between two images, and answers by so much that their covariance
# does not tell, since pictures of one room share their errors.
_SHARE_OF_WAY, _SHARE_OF_TURN = 0.05, 0.05
_FLOOR_M, _FLOOR_RAD = 0.1, math.radians(3.0)
# Without odometry a robot is taken to turn on the spot.
_ON_THE_SPOT_M = 0.5
_MOVED_M, _TURNED_RAD = 0.2, math.radians(10.0)


@dataclass(frozen=True)
class Sighting:
    """A pose that one image gave.

    Attributes:
        stamp_ns: of the image.
        pose: of the body in the map frame; position and heading are known.
        covariance: (6, 6) float64 of it, x y z roll pitch yaw in m^2 and rad^2.
        confidence: that the place is right.
        odometry: T_odom_body at that time; None if unknown.
        is_match: whether the answer is a MATCH; a doubtful one counts only where others say the same.
        is_metric: whether the pose was measured; else it is the place's.
    """

    stamp_ns: int
    pose: Pose
    covariance: NDArray[np.float64]
    confidence: float
    odometry: Pose | None = None
    is_match: bool = True
    is_metric: bool = True


def agree(a: Sighting, b: Sighting) -> bool:
    """Whether two sightings can be of one robot: by odometry between them, or on one spot where there is none."""
    if a.odometry is None or b.odometry is None:
        spread = math.sqrt(float(sum(item.covariance[axis, axis] for item in (a, b) for axis in (0, 1))))
        return _distance_m(a.pose, b.pose) <= _ON_THE_SPOT_M + 3.0 * spread
    step = compose(inverse(a.odometry), b.odometry)
    ax, ay, yaw = a.pose.position_xyz[0], a.pose.position_xyz[1], a.pose.known_yaw_rad
    dx, dy, _ = step.known_xyz
    forward = (math.cos(yaw) * dx - math.sin(yaw) * dy, math.sin(yaw) * dx + math.cos(yaw) * dy)
    bx, by, _ = b.pose.position_xyz
    turned = step.known_yaw_rad
    error = np.array(
        [bx - ax - forward[0], by - ay - forward[1], math.remainder(b.pose.known_yaw_rad - yaw - turned, math.tau)]
    )
    # What the first heading is wrong by swings the way to the second.
    swing = np.eye(3)
    swing[:2, 2] = (-forward[1], forward[0])
    first, second = (item.covariance[np.ix_(_PLANE, _PLANE)] for item in (a, b))
    way = math.hypot(dx, dy)
    drift = np.diag([(_FLOOR_M + _SHARE_OF_WAY * way) ** 2] * 2 + [(_FLOOR_RAD + _SHARE_OF_TURN * abs(turned)) ** 2])
    return float(error @ np.linalg.solve(swing @ first @ swing.T + second + drift, error)) <= _AGREE


def agreeing(sightings: Sequence[Sighting], newest: Sighting) -> list[Sighting]:
    """Those that agree with the newest one, itself included, in their order."""
    return [item for item in sightings if item is newest or agree(item, newest)]


def has_moved(sightings: Sequence[Sighting]) -> bool:
    """Whether the robot moved or turned between any two, so that they are more than one picture seen again."""
    first, *rest = sightings
    return any(
        _distance_m(start, end) >= _MOVED_M or (start.turn_rad(end) or 0.0) >= _TURNED_RAD
        for start, end in (
            (first.odometry or first.pose, item.odometry if first.odometry and item.odometry else item.pose)
            for item in rest
        )
    )


def _distance_m(a: Pose, b: Pose) -> float:
    return math.hypot(a.position_xyz[0] - b.position_xyz[0], a.position_xyz[1] - b.position_xyz[1])
