"""A Kalman filter of the body's pose in the map: odometry moves it, measured poses correct it.

It knows two errors of odometry that grow with the way, and learns them while there are answers: distances read too
short by a share, and a turn for each metre that odometry does not see. So it holds out when answers stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose, inverse, multiply, quat_of_vector, rotate, rotation_vector
from effovpr_ros.recognition.sightings import Sighting, chi2_quantile

Array = NDArray[np.float64]

# Of odometry, before anything is known of it: share of the distance, and turn for a metre.
_SHARE_STD, _BEND_STD_RAD = 0.03, math.radians(0.3)
_SHARE, _BEND = 6, 7
# Random errors for a metre and for a turn by one radian; they grow with the square root.
_WAY_STD_M, _YAW_STD_RAD, _YAW_OF_TURN_STD_RAD = 0.03, math.radians(0.5), math.radians(1.0)
_RISE_STD_M, _TILT_STD_RAD = 0.05, math.radians(0.3)
# Errors that pictures taken at one spot share, which no number of them averages out.
_SHARED_M, _SHARED_RAD = 0.02, math.radians(0.3)
_GATE = 0.999
_PLANAR_ROWS = (0, 1, 5)


@dataclass(frozen=True)
class RobotFilter:
    """What is believed of the body at one moment.

    Attributes:
        pose: T_map_body.
        covariance: (8, 8) float64 of the errors x y z roll pitch yaw (in the map frame), of the share and the bend.
        share: by which distances of odometry are too short.
        bend_rad_m: turn for each metre that odometry does not see.
        planar: x, y and yaw alone are corrected.
    """

    pose: Pose
    covariance: Array
    share: float = 0.0
    bend_rad_m: float = 0.0
    planar: bool = True

    @classmethod
    def begun(cls, sighting: Sighting, planar: bool, before: RobotFilter | None = None) -> RobotFilter:
        """A belief that rests on one sighting; what was learned of the odometry stays.

        Args:
            sighting: where the body is.
            planar: whether height, roll and pitch are odometry's.
            before: an earlier belief of the same odometry.
        """
        covariance = np.diag([0.0] * 6 + [_SHARE_STD**2, _BEND_STD_RAD**2])
        if before is not None:
            covariance[6:, 6:] = before.covariance[6:, 6:]
        covariance[:6, :6] = sighting.covariance
        if planar:
            for row in (2, 3, 4):
                covariance[row, :] = covariance[:, row] = 0.0
        covariance += _shared()
        pose = sighting.pose if not planar else flat(sighting.pose, sighting.odometry)
        if before is None:
            return cls(pose, covariance, planar=planar)
        return cls(pose, covariance, before.share, before.bend_rad_m, planar)

    @property
    def std_m(self) -> float:
        """Standard deviation of the position, along the axis where it is greatest."""
        return math.sqrt(max(0.0, float(np.linalg.eigvalsh(self.covariance[:2, :2])[-1])))

    def moved(self, before: Pose, after: Pose) -> RobotFilter:
        """The belief after odometry has moved from one T_odom_body to another."""
        step = compose(inverse(before), after)
        dx, dy, dz = step.known_xyz
        way = math.sqrt(dx * dx + dy * dy + dz * dz)
        turn = math.hypot(*rotation_vector(step.known_quat_xyzw))
        if way < 1e-9 and turn < 1e-9:
            return self
        scale, bend = 1.0 + self.share, self.bend_rad_m * way
        bent = Pose((scale * dx, scale * dy, scale * dz), multiply(step.known_quat_xyzw, quat_of_vector((0, 0, bend))))
        pose = compose(self.pose, bent)
        shift = np.subtract(pose.known_xyz, self.pose.known_xyz)
        onward = np.eye(8)
        onward[:3, 3:6] = -_cross(shift)
        onward[:3, _SHARE] = shift / scale
        up = rotate(pose.known_quat_xyzw, (0.0, 0.0, 1.0))
        onward[3:6, _BEND] = np.array(up) * way
        covariance = onward @ self.covariance @ onward.T
        yaw = _YAW_STD_RAD**2 * way + _YAW_OF_TURN_STD_RAD**2 * turn
        rise, tilt = (0.0, 0.0) if self.planar else (_RISE_STD_M**2 * way, _TILT_STD_RAD**2 * way)
        added = [_WAY_STD_M**2 * way, _WAY_STD_M**2 * way, rise, tilt, tilt, yaw, 0.0, 0.0]
        covariance[np.diag_indices(8)] += added
        return RobotFilter(pose, covariance, self.share, self.bend_rad_m, self.planar)

    def distance2(self, sighting: Sighting) -> float:
        """Squared Mahalanobis distance of a sighting at the belief's moment, in units of the gate: refused above 1."""
        error, foretold = self._innovation(sighting)
        return float(error @ np.linalg.solve(foretold, error)) / chi2_quantile(_GATE, len(error))

    def corrected(self, sighting: Sighting) -> RobotFilter:
        """The belief with a sighting of its moment."""
        rows = list(self._rows)
        error, foretold = self._innovation(sighting)
        gain = np.linalg.solve(foretold, self.covariance[rows, :]).T
        shift = gain @ error
        kept = np.eye(8)
        kept[:, rows] -= gain
        seen = sighting.covariance[np.ix_(rows, rows)]
        covariance = kept @ self.covariance @ kept.T + gain @ seen @ gain.T + _shared()
        if self.planar:
            shift[2:5] = 0.0
        x, y, z = (a + float(b) for a, b in zip(self.pose.known_xyz, shift[:3], strict=True))
        rx, ry, rz = (float(value) for value in shift[3:6])
        pose = Pose((x, y, z), multiply(quat_of_vector((rx, ry, rz)), self.pose.known_quat_xyzw))
        share, bend = self.share + float(shift[_SHARE]), self.bend_rad_m + float(shift[_BEND])
        return RobotFilter(pose, covariance, share, bend, self.planar)

    def shaken(self, std_m: float, std_rad: float) -> RobotFilter:
        """The belief after a moment of which odometry knows nothing."""
        covariance = self.covariance.copy()
        covariance[np.diag_indices(8)] += [std_m**2, std_m**2, 0.0, 0.0, 0.0, std_rad**2, 0.0, 0.0]
        return RobotFilter(self.pose, covariance, self.share, self.bend_rad_m, self.planar)

    @property
    def _rows(self) -> tuple[int, ...]:
        return _PLANAR_ROWS if self.planar else tuple(range(6))

    def _innovation(self, sighting: Sighting) -> tuple[Array, Array]:
        rows = list(self._rows)
        seen, believed = sighting.pose, self.pose
        z = believed.known_xyz[2] if seen.position_xyz[2] is None else seen.position_xyz[2]
        shift = np.subtract((*seen.position_xyz[:2], z), believed.known_xyz)
        if self.planar:
            turn = (0.0, 0.0, math.remainder(seen.known_yaw_rad - believed.known_yaw_rad, math.tau))
        else:
            turn = rotation_vector(multiply(seen.known_quat_xyzw, inverse(believed).known_quat_xyzw))
        error = np.hstack([shift, turn])[rows]
        return error, (self.covariance[:6, :6] + sighting.covariance)[np.ix_(rows, rows)]


def flat(pose: Pose, odometry: Pose | None) -> Pose:
    """A pose whose height, roll and pitch are those of odometry."""
    x, y, _ = pose.position_xyz
    if odometry is None:
        return Pose.from_yaw(x, y, pose.known_yaw_rad)
    turn = quat_of_vector((0.0, 0.0, pose.known_yaw_rad - odometry.known_yaw_rad))
    return Pose((x, y, odometry.known_xyz[2]), multiply(turn, odometry.known_quat_xyzw))


def _shared() -> Array:
    diagonal = [_SHARED_M**2, _SHARED_M**2, 0.0, 0.0, 0.0, _SHARED_RAD**2, 0.0, 0.0]
    return np.diag(diagonal)


def _cross(vector: Array) -> Array:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
