"""Where something is: poses in a metric frame and WGS84 positions. What is not known is None, never 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

from effovpr_ros.core.errors import GeodesyError, TrajectoryError

FARTHEST_M = 1e8
"""Farther than any two points on Earth: coordinates beyond it are no measurement."""

_NORM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Pose:
    """Position and orientation in a metric map frame (REP-103: x forward or east, y left or north, z up).

    Attributes:
        position_xyz: metres; z is None where the height is unknown, as from a geo-tag without altitude.
        quat_xyzw: unit quaternion, any non-zero one is normalised; None where the orientation is unknown.

    Raises:
        TrajectoryError: a value is not finite, or the quaternion is zero.
    """

    position_xyz: tuple[float, float, float | None]
    quat_xyzw: tuple[float, float, float, float] | None

    def __post_init__(self) -> None:
        """Check and normalise."""
        quat = self.quat_xyzw
        values = (*self.position_xyz, *(quat if quat is not None else ()))
        numbers = [value for number, value in enumerate(values) if not (number == 2 and value is None)]
        complete = len(self.position_xyz) == 3 and (quat is None or len(quat) == 4)
        if not complete or not all(value is not None and math.isfinite(value) for value in numbers):
            raise TrajectoryError(
                f"pose {values} needs seven finite numbers x y z qx qy qz qw; z and the whole quaternion may be None"
            )
        x, y, z = self.position_xyz
        object.__setattr__(self, "position_xyz", (float(x), float(y), None if z is None else float(z)))
        if quat is None:
            return
        norm = math.hypot(*quat)
        if norm < 1e-6:
            raise TrajectoryError(
                f"pose {values} has a zero quaternion; use 0 0 0 1 for no rotation, None where it is unknown"
            )
        if abs(norm - 1.0) > _NORM_TOLERANCE:
            object.__setattr__(self, "quat_xyzw", tuple(float(value) / norm for value in quat))

    @classmethod
    def from_yaw(cls, x: float, y: float, yaw_rad: float | None, z: float | None = 0.0) -> Pose:
        """A pose that is turned about z only; None where yaw or height is unknown."""
        if yaw_rad is None:
            return cls((x, y, z), None)
        return cls((x, y, z), (0.0, 0.0, math.sin(yaw_rad / 2.0), math.cos(yaw_rad / 2.0)))

    @property
    def yaw_rad(self) -> float | None:
        """Rotation about z in (-pi, pi], counter-clockwise from x (REP-103); None where it is unknown."""
        if self.quat_xyzw is None:
            return None
        x, y, z, w = self.quat_xyzw
        return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))

    @property
    def known_yaw_rad(self) -> float:
        """`yaw_rad` of a pose that has one, as odometry has.

        Raises:
            TrajectoryError: it is unknown.
        """
        yaw_rad = self.yaw_rad
        if yaw_rad is None:
            raise TrajectoryError(f"the orientation of the pose at {self.position_xyz} is unknown")
        return yaw_rad

    @property
    def known_xyz(self) -> tuple[float, float, float]:
        """`position_xyz` of a pose whose height is known.

        Raises:
            TrajectoryError: it is unknown.
        """
        x, y, z = self.position_xyz
        if z is None:
            raise TrajectoryError(f"the height of the pose at {self.position_xyz} is unknown")
        return x, y, z

    @property
    def known_quat_xyzw(self) -> tuple[float, float, float, float]:
        """`quat_xyzw` of a pose that has one.

        Raises:
            TrajectoryError: it is unknown.
        """
        if self.quat_xyzw is None:
            raise TrajectoryError(f"the orientation of the pose at {self.position_xyz} is unknown")
        return self.quat_xyzw

    def distance_m(self, other: Pose) -> float:
        """Metres to another pose of the same frame; horizontal where a height is unknown."""
        (ax, ay, az), (bx, by, bz) = self.position_xyz, other.position_xyz
        if az is None or bz is None:
            return math.hypot(bx - ax, by - ay)
        return math.dist((ax, ay, az), (bx, by, bz))

    def turn_rad(self, other: Pose) -> float | None:
        """Angle of the rotation between two orientations in [0, pi]; None where one is unknown."""
        if self.quat_xyzw is None or other.quat_xyzw is None:
            return None
        cosine = abs(sum(a * b for a, b in zip(self.quat_xyzw, other.quat_xyzw, strict=True)))
        return 2.0 * math.acos(min(1.0, cosine))


@dataclass(frozen=True)
class GeoPoint:
    """A WGS84 position.

    Attributes:
        latitude_deg: in [-90, 90].
        longitude_deg: in [-180, 180].
        altitude_m: above the ellipsoid; None where unknown.

    Raises:
        GeodesyError: out of range or not finite.
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges; written so that NaN is refused too."""
        if not -90.0 <= self.latitude_deg <= 90.0:
            raise GeodesyError(f"latitude {self.latitude_deg} is outside [-90, 90] degrees; are the columns swapped?")
        if not -180.0 <= self.longitude_deg <= 180.0:
            raise GeodesyError(f"longitude {self.longitude_deg} is outside [-180, 180] degrees")
        if self.altitude_m is not None and not math.isfinite(self.altitude_m):
            raise GeodesyError(f"altitude {self.altitude_m} is not finite; use None where it is unknown")
