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

    keyframe_distance_m: float = ranged(
        0.5, 0.0, 1000.0, "An image becomes a keyframe after this many metres of odometry."
    )
    keyframe_angle_deg: float = ranged(
        15.0, 0.0, 180.0, "An image becomes a keyframe after this turn by odometry, in degrees."
    )
    keyframe_period_s: float = ranged(
        0.0,
        0.0,
        3600.0,
        "An image becomes a keyframe after this many seconds; 0: not by time with odometry, every image without.",
    )
    min_age_s: float = ranged(
        10.0, 0.0, 86400.0, "A keyframe of this run may close a loop once it is this many seconds old."
    )
    min_distance_m: float = ranged(
        5.0,
        0.0,
        10000.0,
        "A keyframe of this run may close a loop after this many metres driven since; needs odometry.",
    )
    min_keyframes: int = ranged(
        10,
        0,
        1000000,
        "A keyframe of this run may close a loop if its id is smaller than the query's by at least this.",
    )
    max_heading_deg: float = ranged(
        100.0,
        0.0,
        180.0,
        "A closure is refused if the odometry says that its keyframes are turned by more "
        "degrees than this; 180: never, for a camera that looks all around or a heading that "
        "drifts much.",
    )
    max_drift: float = ranged(
        0.2,
        0.0,
        10.0,
        "A closure is refused if the odometry says that its keyframes are farther apart than "
        "same_place_radius_m plus this share of the way driven between them; 0: never.",
    )
    closures: str = choice(
        "all",
        CLOSURES,
        "Closures that are published: all, with a prior where no relative pose could be "
        "measured, or only measured ones.",
    )
    max_depth_m: float = ranged(20.0, 0.1, 1000.0, "Points with a greater depth are not used to measure a closure.")
    max_keyframes: int = ranged(
        20000,
        0,
        50000,
        "Most keyframes that the map keeps; beyond, those that look most like another one are forgotten. 0: no limit.",
    )
    odometry_timeout_s: float = ranged(
        1.0, 0.0, 3600.0, "After this many seconds without odometry, keyframes are made by time alone."
    )
    max_speed_m_s: float = ranged(20.0, 0.01, 1000.0, "Odometry that moves faster has jumped: a new track begins.")
    max_turn_rate_deg_s: float = ranged(
        720.0, 1.0, 100000.0, "Odometry that turns faster has jumped: a new track begins."
    )
    jump_margin_m: float = ranged(
        0.5, 0.0, 1000.0, "A move of odometry by fewer metres is never a jump, however short the time."
    )
    reorder_s: float = ranged(
        0.5,
        0.0,
        60.0,
        "An image older than the last one by at most this many seconds is out of order and "
        "ignored; by more: time was reset.",
    )
    points: str = choice(
        "stored",
        POINTS,
        "Points that verify answers: stored with each keyframe, or none; they are then found "
        "in its picture when needed.",
    )
    thumbnail_side: int = ranged(320, 16, 4096, "Longest side of the stored picture of a keyframe in pixels.")

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata."""
        check_limits(self)


LOOP_RECOGNIZER = RecognizerConfig(top_k=50, sequence_length=10)
"""Recognition as the detector uses it by default: fewer candidates than a prior map's, and the sequence on."""
