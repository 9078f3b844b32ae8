"""Where something is: poses in a metric frame and WGS84 positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from effovpr_ros.core.errors import GeodesyError, TrajectoryError

_NORM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Pose:
    """Position and orientation in a metric map frame (REP-103: x forward or east, y left or north, z up).

    Attributes:
        position_xyz: metres.
        quat_xyzw: unit quaternion; any non-zero one is normalised.

    Raises:
        TrajectoryError: a value is not finite, or the quaternion is zero.
    """

    position_xyz: tuple[float, float, float]
    quat_xyzw: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        """Check and normalise."""
        values = (*self.position_xyz, *self.quat_xyzw)
        if len(values) != 7 or not all(math.isfinite(value) for value in values):
            raise TrajectoryError(f"pose {values} needs seven finite numbers x y z qx qy qz qw")
        norm = math.hypot(*self.quat_xyzw)
        if norm < 1e-6:
            raise TrajectoryError(f"pose {values} has a zero quaternion; use 0 0 0 1 for no rotation")
        object.__setattr__(self, "position_xyz", tuple(float(value) for value in self.position_xyz))
        if abs(norm - 1.0) > _NORM_TOLERANCE:
            object.__setattr__(self, "quat_xyzw", tuple(float(value) / norm for value in self.quat_xyzw))

    @classmethod
    def from_yaw(cls, x: float, y: float, yaw_rad: float, z: float = 0.0) -> Pose:
        """A pose that is turned about z only."""
        return cls((x, y, z), (0.0, 0.0, math.sin(yaw_rad / 2.0), math.cos(yaw_rad / 2.0)))

    @property
    def yaw_rad(self) -> float:
        """Rotation about z in (-pi, pi], counter-clockwise from x (REP-103)."""
        x, y, z, w = self.quat_xyzw
        return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


@dataclass(frozen=True)
class GeoPoint:
    """A WGS84 position.

    Attributes:
        latitude_deg: in [-90, 90].
        longitude_deg: in [-180, 180].
        altitude_m: above the ellipsoid; 0 where unknown.

    Raises:
        GeodesyError: out of range or not finite.
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges; written so that NaN is refused too."""
        if not -90.0 <= self.latitude_deg <= 90.0:
            raise GeodesyError(f"latitude {self.latitude_deg} is outside [-90, 90] degrees; are the columns swapped?")
        if not -180.0 <= self.longitude_deg <= 180.0:
            raise GeodesyError(f"longitude {self.longitude_deg} is outside [-180, 180] degrees")
        if not math.isfinite(self.altitude_m):
            raise GeodesyError(f"altitude {self.altitude_m} is not finite; use 0 where it is unknown")
