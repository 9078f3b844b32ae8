"""Settings of geometric verification, with the metadata that ROS parameters and options derive from."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.settings import check_limits, choice, ranged

VERIFICATIONS = ("off", "two_view", "metric")

MIN_INLIERS = {"xfeat": 60, "sift": 20}
"""Points that must agree: above what pairs of different places reached on lund_walk, see docs/verification.md."""


@dataclass(frozen=True)
class VerificationConfig:
    """How a candidate pair is checked. docs/verification.md says what each option needs, costs and gains.

    Each field's metadata holds `description` and either `min` and `max`, both allowed, or `choices`.
    """

    verification: str = choice(
        "off",
        VERIFICATIONS,
        "Geometric check of a match: off; two_view, needs camera_info; metric, needs camera_info and depth.",
    )
    min_inliers: int = ranged(
        0,
        0,
        10000,
        "Refused if fewer points agree with one geometry; 0: "
        + ", ".join(f"{count} by {kind}" for kind, count in MIN_INLIERS.items())
        + ".",
    )
    min_inlier_share: float = ranged(0.33, 0.0, 1.0, "Refused if a smaller share of the points agrees.")
    max_reprojection_px: float = ranged(
        1.5, 0.1, 50.0, "Points farther from the geometry do not agree; pixels of pictures of at most 640 wide or high."
    )
    max_depth_m: float = ranged(20.0, 0.1, 1000.0, "Metric: points with a greater depth are not used.")

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata."""
        check_limits(self)
