"""What ranked candidates say: is it a match, how sure, and how far off may the pose be? Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place import Candidate
from effovpr_ros.recognition.confidence import ConfidenceModel
from effovpr_ros.recognition.evidence import MapNull, evidence_for
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import apart_by_score, best_rival


class Status(IntEnum):
    """Outcome of a recognition; values as in PlaceMatch.msg."""

    NO_MATCH = 0
    AMBIGUOUS = 1
    MATCH = 2


class DecidedBy(IntEnum):
    """What a status rests on; values as in PlaceMatch.msg."""

    SINGLE_IMAGE = 0
    SEQUENCE = 1


@dataclass(frozen=True)
class Decision:
    """Judgement over the best candidate.

    Attributes:
        status: see `decide`.
        confidence: in [0, 1], probability that the best candidate is right; see `recognition.confidence`.
        reason: the figures behind the status, for people.
        decided_by: see `recognition.temporal`.
    """

    status: Status
    confidence: float
    reason: str
    decided_by: DecidedBy = DecidedBy.SINGLE_IMAGE


def may_skip_reranking(candidates: Sequence[Candidate], config: RecognizerConfig) -> bool:
    """Whether the first stage is so clear that the second is not needed.

    Never without a rival: a lead over nothing proves nothing.
    """
    if config.skip_margin == 0.0 or not candidates:
        return False
    rival = best_rival(candidates, config)
    return rival is not None and candidates[0].similarity - rival.similarity > config.skip_margin


def decide(
    candidates: Sequence[Candidate],
    num_keypoints: int,
    config: RecognizerConfig,
    model: ConfidenceModel,
    null: MapNull | None = None,
) -> Decision:
    """Judge ranked candidates.

    NO_MATCH: no candidate, top global similarity below `min_similarity_global`, or a confidence below
    `min_confidence`. MATCH: a confidence of at least `match_confidence`, or where that is 0 the model's own. AMBIGUOUS
    otherwise.

    Args:
        candidates: best first.
        num_keypoints: of the query.
        config: thresholds.
        model: of the confidence.
        null: what wrong answers of the map reach; None where it is not known.
    """
    if not candidates:
        return Decision(Status.NO_MATCH, 0.0, "the map has no candidate: it is empty or none lies within the hint")
    top = max(candidates, key=lambda candidate: candidate.similarity)
    if top.similarity < config.min_similarity_global:
        reason = (
            f"top global similarity {top.similarity:.3f} (place {top.place.place_id}) is below "
            f"min_similarity_global {config.min_similarity_global:g}"
        )
        return Decision(Status.NO_MATCH, 0.0, reason)
    best = candidates[0]
    rival = best_rival(candidates, apart_by_score(config, null.spacing_m if null else None))
    evidence = evidence_for(candidates, num_keypoints, config, null)
    confidence = model.probability(evidence)
    figures = f"place {best.place.place_id}: global similarity {best.similarity:.3f}"
    if best.num_matches:
        figures += f", {best.num_matches} of {num_keypoints} keypoints matched, {best.num_consistent} consistent"
    if rival is None:
        figures += ", no candidate at another place"
    elif best.score > 0.0:
        figures += f", score {best.score:.1f} ({rival.score:.1f} of place {rival.place.place_id} elsewhere)"
    else:
        figures += f", {evidence.similarity_lead:.3f} above place {rival.place.place_id} elsewhere"
    if best.points is not None:
        figures += f", {best.points.homography} of {best.points.matches} matched points are inliers"
    wanted = config.match_confidence or model.match_confidence
    if confidence < config.min_confidence:
        reason = f"{figures}; confidence {_is_below(confidence, config.min_confidence, 'min_confidence ')}"
        return Decision(Status.NO_MATCH, confidence, reason)
    if confidence >= wanted:
        return Decision(Status.MATCH, confidence, f"{figures}; confidence {confidence:.3f}, at least {wanted:.3f}")
    return Decision(Status.AMBIGUOUS, confidence, f"{figures}; confidence {_is_below(confidence, wanted)}")


def _is_below(value: float, limit: float, name: str = "") -> str:
    """The smaller rounded down and the greater up, so that they never read as equal."""
    return f"{math.floor(value * 1000) / 1000:.3f} is below {name}{math.ceil(round(limit * 1000, 6)) / 1000:.3f}"


_UNKNOWN_HEIGHT_STD_M = 1000.0
"""Of a height that is not known: 10^6 m^2, as other packages publish it; consumers that fuse it give it no weight."""


def pose_covariance(
    candidates: Sequence[Candidate],
    config: RecognizerConfig,
    published: Pose | None = None,
    place_std_m: float | None = None,
) -> NDArray[np.float64]:
    """Covariance of the best candidate's pose from how far its supporters spread about it.

    Supporters are the candidates within `same_place_radius_m` that have poses of its frame, weighted by score (by
    similarity if nothing was re-ranked). The spread of x, y, z and yaw is taken about the best candidate,
    since that is the pose published, and added to the floor of `min_position_std_m` and `min_yaw_std_rad`. Where the
    map knows that its own position is less sure, that counts instead.
    Roll and pitch have the floor alone. What the best place's pose does not know has no spread: a height has a standard
    deviation of 1000 m, all three angles one of pi. Diagonal, hence positive definite and without negative entries,
    which Nav2's AMCL rejects.

    Args:
        candidates: best first; the first has a pose.
        config: radius and floors.
        published: pose that follows from the best place's, of which the orientation may not be known; None: that one.
        place_std_m: standard deviation of the best place's own position, as of a phone's GPS, where it is known.

    Returns:
        (6, 6) float64 in m^2 and rad^2, order x y z roll pitch yaw (REP-103,
        geometry_msgs/PoseWithCovariance).
    """
    first = candidates[0].place
    best = first.pose
    if best is None:
        raise ValueError(f"place {first.place_id} has no pose, so no covariance")
    reranked = candidates[0].score > 0.0
    # Weights by axis, since a supporter may know one and not the other.
    spread, total = np.zeros(6), np.zeros(6)
    for candidate in candidates:
        pose = candidate.place.pose
        if pose is None or candidate.place.own_frame != first.own_frame:
            continue
        if pose.distance_m(best) > config.same_place_radius_m:
            continue
        weight = max(candidate.score if reranked else candidate.similarity, 0.0)
        offset = _offset(best, pose)
        spread += weight * np.nan_to_num(np.square(offset), nan=0.0)
        total += weight * ~np.isnan(offset)
    position_std_m = max(config.min_position_std_m, place_std_m or 0.0)
    height_std_m = position_std_m if best.position_xyz[2] is not None else _UNKNOWN_HEIGHT_STD_M
    angle_std_rad = config.min_yaw_std_rad if (published or best).quat_xyzw is not None else math.pi
    floor = np.square([position_std_m] * 2 + [height_std_m] + [angle_std_rad] * 3)
    mean = np.divide(spread, total, out=np.zeros(6), where=total > 0.0)
    return np.asarray(np.diag(floor + mean), dtype=np.float64)


def _offset(best: Pose, pose: Pose) -> NDArray[np.float64]:
    """(6,) how far a pose is from another one, order x y z roll pitch yaw; NaN where it is unknown, 0 for tilt."""
    (x, y, z), (x0, y0, z0) = pose.position_xyz, best.position_xyz
    up_m = math.nan if z is None or z0 is None else z - z0
    yaw_rad, yaw0_rad = pose.yaw_rad, best.yaw_rad
    turn_rad = math.nan if yaw_rad is None or yaw0_rad is None else math.remainder(yaw_rad - yaw0_rad, math.tau)
    return np.array([x - x0, y - y0, up_m, 0.0, 0.0, turn_rad])


def bearing_offset(candidate: Candidate, grid_wh: tuple[int, int]) -> float | None:
    """Horizontal displacement of the query against the place as a fraction of the image width.

    Positive: the query sees the scene further right than the map did. None where no patch matched.
    """
    return candidate.displacement_xy_cells[0] / grid_wh[0] if candidate.num_matches else None
