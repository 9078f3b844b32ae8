"""Settings of place recognition, with the metadata that ROS parameters and options derive from."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.settings import check_limits, choice, ranged, setting
from effovpr_ros.geometry.measured_pose import PoseConfig
from effovpr_ros.matching.reranking import SCORES, RerankConfig

VERIFY = ("auto", "on", "off")


@dataclass(frozen=True)
class RecognizerConfig:
    """How candidates are found, re-ranked and judged.

    Each field's metadata holds `description` and either `min` and `max`, both allowed, or `choices`.
    """

    top_k: int = ranged(100, 1, 10000, "Candidates retrieved by the global descriptor and re-ranked.")
    score: str = choice(
        RerankConfig().score,
        SCORES,
        "Re-ranking score: coherent motion of neighbours, count (the paper), weighted by cosine, or spatial consensus.",
    )
    min_similarity: float = ranged(
        RerankConfig().min_similarity, -1.0, 0.999, "T2: mutual matches at or below this cosine do not count."
    )
    rerank: bool = setting(True, "Re-rank by local features; off decides on global similarity alone.")
    skip_margin: float = ranged(
        0.0,
        0.0,
        2.0,
        "Skip re-ranking if the best similarity leads the best other place by more; 0: never skip.",
    )
    verify: str = choice(
        "auto",
        VERIFY,
        "Verify the best candidates by points: auto, where it may change the answer; on: always; off: never.",
    )
    verify_top_k: int = ranged(15, 1, 100, "Candidates that are verified.")
    verify_budget_ms: float = ranged(
        250.0, 0.0, 60000.0, "No further candidates are verified after so long; 0: all, however long it takes."
    )
    measure_pose: bool = setting(
        True, "Measure the pose of a MATCH where the map keeps cameras and their mounting; else it is the place's."
    )
    pose_max_std_m: float = ranged(
        PoseConfig().pose_max_std_m,
        0.001,
        1000.0,
        "A measured position is refused if its foretold standard deviation along an axis is above.",
    )
    map_position_std_m: float = ranged(
        PoseConfig().map_position_std_m,
        0.0001,
        10.0,
        "Measured poses: standard deviation of the map's positions against their neighbours'.",
    )
    map_angle_std_rad: float = ranged(
        PoseConfig().map_angle_std_rad, 0.0001, 0.5, "Measured poses: standard deviation of the map's orientations."
    )
    min_similarity_global: float = ranged(0.0, -1.0, 1.0, "NO_MATCH if the top global similarity is below.")
    match_confidence: float = ranged(
        0.0, 0.0, 1.0, "MATCH from this confidence on; 0: the confidence model's, for the precision it was fitted for."
    )
    min_confidence: float = ranged(0.1, 0.0, 1.0, "NO_MATCH if the confidence is below.")
    same_place_radius_m: float = ranged(5.0, 0.0, 10000.0, "Places at most this far apart are one place.")
    same_place_ids: int = ranged(
        3,
        0,
        100000,
        "Where positions are unknown: places of one session at most this many ids apart are one place.",
    )
    min_position_std_m: float = ranged(0.5, 0.001, 1000.0, "Least standard deviation of a published x, y, z.")
    min_yaw_std_rad: float = ranged(0.17, 0.001, 3.15, "Least standard deviation of a published yaw, roll, pitch.")
    sequence_length: int = ranged(
        0, 0, 1000, "Recent images that support each other, about 10; 0: each image is judged alone."
    )
    sequence_match: float = ranged(0.9, 0.5, 0.999, "Sequence: MATCH if so much of the belief is at one place.")
    sequence_max_gap_s: float = ranged(10.0, 0.01, 3600.0, "Sequence: a longer gap between images breaks the track.")
    sequence_tolerance_m: float = ranged(
        2.0,
        0.01,
        1000.0,
        "Sequence: standard deviation of map displacements against odometry, beside a tenth of the way.",
    )

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata, and thresholds that contradict each other."""
        check_limits(self)
        if 0.0 < self.match_confidence < self.min_confidence:
            raise ConfigError(
                f"match_confidence {self.match_confidence} (MATCH from) is below "
                f"min_confidence {self.min_confidence} (NO_MATCH below)"
            )
