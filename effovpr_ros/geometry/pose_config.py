"""Settings of measured poses."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.settings import check_limits, ranged


@dataclass(frozen=True)
class PoseConfig:
    """What is measured, and what is refused.

    Each field's metadata holds `description`, `min` and `max`, both allowed.
    """

    pose_min_inliers: int = ranged(30, 8, 10000, "Least number of points that must agree with a measured pose.")
    pose_max_std_m: float = ranged(
        0.2, 0.001, 1000.0, "Poses with a larger foretold standard deviation of the position along an axis are refused."
    )
    map_position_std_m: float = ranged(
        0.01, 0.0001, 10.0, "Standard deviation of the map's positions relative to their neighbours, in metres."
    )
    map_angle_std_rad: float = ranged(0.002, 0.0001, 0.5, "Standard deviation of the map's orientations, in radians.")

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata."""
        check_limits(self)
