"""How a robot moves among the places of a map between two images: transitions of the sequence filter.

Where odometry and the places' positions are known, a step from one place to another is as likely as it agrees with
the odometry. Else the order of the places in a session tells: a robot that drove the map's path at one speed tends
to go on at that speed and in that direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place import Place

Array = NDArray[np.float64]

# Probability of a step of so many places between two images, for a robot slower than, as fast as, and faster than
# the one that made the map. Each is used in both directions along the session.
_STEPS = ({0: 0.6, 1: 0.4}, {0: 0.15, 1: 0.7, 2: 0.15}, {1: 0.2, 2: 0.5, 3: 0.2, 4: 0.1})
NUM_MOTIONS = 2 * len(_STEPS)
"""Motions that a belief tells apart: three speeds, forward and then backward."""
MAX_LAG = 3
"""Frames that a transition may span, so that a place may be missing among the candidates of two."""
_LONGEST_STEP = 4 * MAX_LAG
_MOTION_CHANGES = 0.02
_ODOMETRY_DRIFT = 0.1
_HEADING_STD_RAD = 0.5


@dataclass(frozen=True)
class MapPositions:
    """Places of one frame's candidates as arrays.

    Attributes:
        ids: (K,) int64 numbers in the map.
        session: (K,) int64, equal for places of one session.
        frame: (K,) int64, equal for positions in one frame.
        position: (K, 3) float64 metres; NaN where unknown, as a height alone may be.
        yaw_rad: (K,) float64; NaN where unknown.
    """

    ids: NDArray[np.int64]
    session: NDArray[np.int64]
    frame: NDArray[np.int64]
    position: Array
    yaw_rad: Array


class MapPositionTable:
    """Positions of the places seen so far, each read once; at most one row a place of the map."""

    def __init__(self) -> None:
        """Start empty."""
        self._row: dict[int, tuple[int, int, float, float, float, float]] = {}
        self._sessions: dict[str, int] = {}
        self._frames: dict[str, int] = {}

    def positions(self, places: Sequence[Place]) -> MapPositions:
        """Places as arrays, in their order."""
        rows = np.array([self._row.get(place.place_id) or self._add(place) for place in places])
        ids = np.array([place.place_id for place in places], np.int64)
        names = rows[:, :2].astype(np.int64)
        return MapPositions(ids, names[:, 0], names[:, 1], rows[:, 2:5], rows[:, 5])

    def forget(self, place_id: int) -> None:
        """Drop a place."""
        self._row.pop(place_id, None)

    def _add(self, place: Place) -> tuple[int, int, float, float, float, float]:
        session = self._sessions.setdefault(place.session, len(self._sessions))
        frame = self._frames.setdefault(place.own_frame, len(self._frames))
        x = y = z = yaw_rad = None
        if place.pose is not None:
            (x, y, z), yaw_rad = place.pose.position_xyz, place.pose.yaw_rad
        x, y, z, yaw_rad = (math.nan if value is None else value for value in (x, y, z, yaw_rad))
        row = self._row[place.place_id] = (session, frame, x, y, z, yaw_rad)
        return row


def motion_after(belief: Array) -> Array:
    """Belief after a robot may have changed its speed or direction.

    Args:
        belief: (..., NUM_MOTIONS, K).
    """
    mean = belief.mean(axis=-2, keepdims=True)
    changes = _MOTION_CHANGES * NUM_MOTIONS / (NUM_MOTIONS - 1)
    return np.asarray((1.0 - changes) * belief + changes * mean, np.float64)


def arrive(
    departing: Array,
    before: MapPositions,
    now: MapPositions,
    lag: int,
    *,
    moved: tuple[Pose, Pose] | None,
    tolerance_m: float,
    reach_m: float,
) -> Array:
    """Where belief in the places of an earlier frame has gone by now.

    Pairs of places whose positions are known in one frame follow the odometry where it is given: the residual of the
    displacement (a vector where the earlier place's heading is known, else its length) has the standard deviation
    `tolerance_m` and a tenth of the way, the turn one of 0.5 rad. All other pairs follow the order of their session;
    without odometry, places of different sessions or far apart in order, yet within `reach_m` a frame, are linked too.

    What has gone to places that are no candidates now is lost.

    Args:
        departing: (B, NUM_MOTIONS, J) float64, B quantities that travel with the belief.
        before: J places.
        now: K places.
        lag: frames between, 1 to MAX_LAG.
        moved: poses of the robot in the odometry frame then and now, if both are known.
        tolerance_m: see above.
        reach_m: see above.

    Returns:
        (B, NUM_MOTIONS, K) float64.
    """
    step = np.clip(now.ids[None, :] - before.ids[:, None], -_LONGEST_STEP - 1, _LONGEST_STEP + 1)
    step[before.session[:, None] != now.session[None, :]] = _LONGEST_STEP + 1
    known = before.frame[:, None] == now.frame[None, :]
    known &= ~np.isnan(before.position[:, 0])[:, None] & ~np.isnan(now.position[:, 0])[None, :]
    if not known.any():
        return _go_in_order(departing, step, lag)
    if moved is not None:
        linked = np.where(known, _agreement(before, now, *moved, tolerance_m), 0.0)
        step[known] = _LONGEST_STEP + 1
    else:
        near = _distances_m(before, now) <= reach_m * lag
        linked = (known & near & (np.abs(step) == _LONGEST_STEP + 1)).astype(np.float64)
    total = linked.sum(axis=1)
    ordered = (np.abs(step) <= _LONGEST_STEP).any(axis=1)
    # A place with links of both kinds divides its belief between them.
    departing = departing * np.where(ordered & (total > 0.0), 0.5, 1.0)
    arriving = np.asarray((departing / np.maximum(total, 1.0)) @ linked, np.float64)
    return arriving + _go_in_order(departing, step, lag) if ordered.any() else arriving


def moved_m(before: Pose, now: Pose) -> float:
    """Metres between two poses."""
    return before.distance_m(now)


def turned_rad(before: Pose, now: Pose) -> float:
    """Absolute difference in yaw; 0 where one is unknown, since then no turn was seen."""
    turn_rad = _yaw_between(before, now)
    return 0.0 if turn_rad is None else abs(turn_rad)


def _yaw_between(before: Pose, now: Pose) -> float | None:
    """Turn to the left in (-pi, pi]; None where it is unknown."""
    if before.yaw_rad is None or now.yaw_rad is None:
        return None
    return math.remainder(now.yaw_rad - before.yaw_rad, math.tau)


def _go_in_order(departing: Array, step: NDArray[np.int64], lag: int) -> Array:
    """(B, NUM_MOTIONS, K) belief after (J, K) steps along the session."""
    chances = _STEP_TABLE[lag - 1].take(step + _LONGEST_STEP + 1, axis=1)
    return np.asarray(np.matmul(departing.transpose(1, 0, 2), chances).transpose(1, 0, 2), np.float64)


def _distances_m(before: MapPositions, now: MapPositions) -> Array:
    """(J, K) metres, horizontal where a height is unknown; NaN where a position is."""
    x, y, z = (now.position[None, :, axis] - before.position[:, None, axis] for axis in range(3))
    return np.asarray(np.sqrt(x * x + y * y + np.square(np.nan_to_num(z, nan=0.0))), np.float64)


def _agreement(before: MapPositions, now: MapPositions, then: Pose, here: Pose, tolerance_m: float) -> Array:
    """(J, K) likelihood of the map's displacements given the odometry's, 1 where they agree exactly."""
    distance_m = moved_m(then, here)
    variance = tolerance_m**2 + (_ODOMETRY_DRIFT * distance_m) ** 2
    squared_residual = np.square(_distances_m(before, now) - distance_m)
    oriented, turned = ~np.isnan(before.yaw_rad), _yaw_between(then, here)
    if oriented.any() and then.yaw_rad is not None and turned is not None:
        # Odometry and map frames differ by a rotation about z, which the heading of the earlier place gives.
        x, y = np.subtract(here.position_xyz[:2], then.position_xyz[:2])
        turn = before.yaw_rad - then.yaw_rad
        expected_x = before.position[:, 0] + np.cos(turn) * x - np.sin(turn) * y
        expected_y = before.position[:, 1] + np.sin(turn) * x + np.cos(turn) * y
        as_vector = np.square(now.position[None, :, 0] - expected_x[:, None]) + np.square(
            now.position[None, :, 1] - expected_y[:, None]
        )
        squared_residual[oriented] = as_vector[oriented]
        # 2 (1 - cos e) is e^2 for a small error e of the turn, and periodic.
        expected_yaw = before.yaw_rad + turned
        cosine = np.outer(np.cos(expected_yaw), np.cos(now.yaw_rad)) + np.outer(
            np.sin(expected_yaw), np.sin(now.yaw_rad)
        )
        squared_residual += np.nan_to_num(2.0 * (1.0 - cosine), nan=0.0) * (variance / _HEADING_STD_RAD**2)
    return np.asarray(np.exp(squared_residual * (-0.5 / variance)), np.float64)


def _step_table() -> Array:
    """(MAX_LAG, NUM_MOTIONS, 2 * _LONGEST_STEP + 3) probability of a step after 1 to MAX_LAG frames.

    Column _LONGEST_STEP + 1 is a step of 0; the outermost columns are 0.
    """
    width = 2 * _LONGEST_STEP + 3
    table = np.zeros((MAX_LAG, NUM_MOTIONS, width))
    motions = [*_STEPS, *({-step: chance for step, chance in steps.items()} for steps in _STEPS)]
    for motion, steps in enumerate(motions):
        once = np.zeros(width)
        for step, chance in steps.items():
            once[_LONGEST_STEP + 1 + step] = chance
        several = once
        for lag in range(MAX_LAG):
            table[lag, motion] = several
            several = np.convolve(several, once, mode="same")
    return table


_STEP_TABLE = _step_table()
