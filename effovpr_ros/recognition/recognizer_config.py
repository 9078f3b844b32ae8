"""Settings of place recognition, with the metadata that ROS parameters and options derive from."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.settings import check_limits, choice, ranged, setting
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.matching.rerank_config import SCORES, RerankConfig

VERIFY = ("auto", "on", "off")


@dataclass(frozen=True)
class RecognizerConfig:
    """How candidates are found, re-ranked and judged.

    Each field's metadata holds `description` and either `min` and `max`, both allowed, or `choices`.
    """

    top_k: int = ranged(100, 1, 10000, "Number of candidates that the global descriptor finds and that are re-ranked.")
    score: str = choice(
        RerankConfig().score,
        SCORES,
        "Re-ranking score. coherent: matches whose neighbours move alike count more; count: "
        "number of matches (the paper); weighted: by cosine; spatial: matches that agree on "
        "one displacement.",
    )
    min_similarity: float = ranged(
        RerankConfig().min_similarity, -1.0, 0.999, "T2: mutual matches at or below this cosine do not count."
    )
    rerank: bool = setting(True, "Re-rank by local features; false: decide by global similarity alone.")
    skip_margin: float = ranged(
        0.0,
        0.0,
        2.0,
        "Skip re-ranking if the similarity of the first candidate exceeds that of the best "
        "other place by more than this; 0: never skip.",
    )
    verify: str = choice(
        "auto",
        VERIFY,
        "Verify the best candidates by points. auto: where it may change the answer; on: always; off: never.",
    )
    verify_top_k: int = ranged(15, 1, 100, "Most candidates that are verified.")
    verify_budget_ms: float = ranged(
        250.0, 0.0, 60000.0, "Milliseconds after which no further candidate is verified; 0: no limit."
    )
    measure_pose: bool = setting(
        True,
        "Measure the pose of a MATCH where the map keeps cameras and their mounting; if "
        "false, it is always the matched place's.",
    )
    pose_max_std_m: float = ranged(
        PoseConfig().pose_max_std_m,
        0.001,
        1000.0,
        "A measured pose is refused if the foretold standard deviation of its position along "
        "an axis is above this, in metres.",
    )
    map_position_std_m: float = ranged(
        PoseConfig().map_position_std_m,
        0.0001,
        10.0,
        "Measured poses: assumed error of a map position relative to its neighbours, as a "
        "standard deviation in metres.",
    )
    map_angle_std_rad: float = ranged(
        PoseConfig().map_angle_std_rad,
        0.0001,
        0.5,
        "Measured poses: assumed error of a map orientation, as a standard deviation in radians.",
    )
    min_similarity_global: float = ranged(0.0, -1.0, 1.0, "NO_MATCH if the highest global similarity is below this.")
    match_confidence: float = ranged(
        0.0,
        0.0,
        1.0,
        "MATCH from this confidence on; 0: from the one at which the confidence model reaches its precision.",
    )
    min_confidence: float = ranged(0.1, 0.0, 1.0, "NO_MATCH if the confidence is below this.")
    same_place_radius_m: float = ranged(5.0, 0.0, 10000.0, "Places at most this many metres apart are one place.")
    same_place_ids: int = ranged(
        3,
        0,
        100000,
        "Where positions are unknown: places of one session at most this many ids apart are one place.",
    )
    min_position_std_m: float = ranged(
        0.5, 0.001, 1000.0, "Least standard deviation of a published x, y, z that was not measured, in metres."
    )
    min_yaw_std_rad: float = ranged(
        0.17, 0.001, 3.15, "Least standard deviation of a published yaw, roll, pitch that was not measured, in radians."
    )
    sequence_length: int = ranged(
        0, 0, 1000, "Number of recent images that support each other, such as 10; 0: each image is judged alone."
    )
    sequence_match: float = ranged(
        0.9, 0.5, 0.999, "Sequence: MATCH if at least this share of the belief is at one place."
    )
    sequence_max_gap_s: float = ranged(
        10.0, 0.01, 3600.0, "Sequence: a gap of more seconds between images begins a new track."
    )
    sequence_tolerance_m: float = ranged(
        2.0,
        0.01,
        1000.0,
        "Sequence: assumed difference between displacements in the map and by odometry, as a "
        "standard deviation in metres, in addition to a tenth of the way.",
    )

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata, and thresholds that contradict each other."""
        check_limits(self)
        if 0.0 < self.match_confidence < self.min_confidence:
            raise ConfigError(
                f"match_confidence {self.match_confidence} (MATCH from) is below "
                f"min_confidence {self.min_confidence} (NO_MATCH below)"
            )
