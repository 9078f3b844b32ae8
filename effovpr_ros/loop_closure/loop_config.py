"""Settings of loop closure, with the metadata that ROS parameters and options derive from."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.settings import check_limits, choice, ranged
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

POINTS = ("stored", "none")
CLOSURES = ("all", "measured")


@dataclass(frozen=True)
class LoopConfig:
    """What becomes a keyframe, which keyframes may close a loop, what is refused, and how many are kept.

    Each field's metadata holds `description`, `min` and `max`, both allowed. docs/loop_closure.md says how the rules
    work together.
    """

    keyframe_distance_m: float = ranged(0.5, 0.0, 1000.0, "A keyframe after so many metres by odometry.")
    keyframe_angle_deg: float = ranged(15.0, 0.0, 180.0, "A keyframe after so large a turn by odometry.")
    keyframe_period_s: float = ranged(
        0.0,
        0.0,
        3600.0,
        "A keyframe after so much time; 0: no such rule with odometry, and every image without.",
    )
    min_age_s: float = ranged(10.0, 0.0, 86400.0, "A loop closes only with a keyframe of this run that is so old.")
    min_distance_m: float = ranged(
        5.0, 0.0, 10000.0, "A loop closes only with a keyframe of this run after so many metres; needs odometry."
    )
    min_keyframes: int = ranged(
        10, 0, 1000000, "A loop closes only with a keyframe of this run with so many keyframes since, itself included."
    )
    max_heading_deg: float = ranged(
        100.0,
        0.0,
        180.0,
        "A closure is refused if its keyframes are turned by more by odometry; 180: never, as for a camera that looks "
        "all around, or a poor heading.",
    )
    max_drift: float = ranged(
        0.2,
        0.0,
        10.0,
        "A closure is refused if its keyframes are farther apart by odometry than this share of the way driven between "
        "them and same_place_radius_m; 0: never.",
    )
    closures: str = choice(
        "all",
        CLOSURES,
        "Closures that are published: all, with a prior where no relative pose was measured; or measured ones alone.",
    )
    max_depth_m: float = ranged(20.0, 0.1, 1000.0, "Points with a greater depth are not used to measure a closure.")
    max_keyframes: int = ranged(
        20000, 0, 50000, "Keyframes kept; the one that looks most like another is forgotten beyond. 0: no limit."
    )
    odometry_timeout_s: float = ranged(
        1.0, 0.0, 3600.0, "After so long without odometry keyframes are made by time alone."
    )
    max_speed_m_s: float = ranged(20.0, 0.01, 1000.0, "Odometry that moves faster has jumped: a new track begins.")
    max_turn_rate_deg_s: float = ranged(
        720.0, 1.0, 100000.0, "Odometry that turns faster has jumped: a new track begins."
    )
    jump_margin_m: float = ranged(0.5, 0.0, 1000.0, "Metres that are no jump however short the time.")
    reorder_s: float = ranged(
        0.5, 0.0, 60.0, "An image so much older than the last came out of order and is ignored; beyond, time was reset."
    )
    points: str = choice(
        "stored",
        POINTS,
        "Points of a keyframe for verifying answers: stored with it, or none, which are then found in its picture.",
    )
    thumbnail_side: int = ranged(320, 16, 4096, "Longest side of the stored picture of a keyframe in pixels.")

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata."""
        check_limits(self)


LOOP_RECOGNIZER = RecognizerConfig(top_k=50, sequence_length=10)
"""Recognition as the detector uses it by default: fewer candidates than a prior map's, and the sequence on."""
