"""What ranked candidates say: is it a match, how sure, and how far off may the pose be? Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.mapping.place import Candidate, GeoPoint, Place
from effovpr_ros.recognition.config import RecognizerConfig

# WGS84 semi-major axis. For telling places metres apart, a sphere is as good as the ellipsoid (0.5 %).
_EARTH_RADIUS_M = 6378137.0
# Similarity by which the uncalibrated confidence of a decision without re-ranking goes from 0.5 to 0.73.
_SIMILARITY_SCALE = 0.02


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
        status: see `decide_by_score` and `decide_by_similarity`.
        confidence: in [0, 1]. A monotone heuristic, NOT a calibrated probability: it grows with the evidence
            for the best candidate and with its lead over other places, and is at least 0.5 just when the
            status is MATCH.
        reason: the figures behind the status, for people.
        decided_by: see `recognition.temporal`.
    """

    status: Status
    confidence: float
    reason: str
    decided_by: DecidedBy = DecidedBy.SINGLE_IMAGE


def distance_between_m(a: Place, b: Place) -> float | None:
    """Metres between two places: by poses (3-D) if both have one, else geo-tags (horizontal), else None.

    Height is left out of geo-tags because many have none and GNSS heights are poor.
    """
    if a.pose is not None and b.pose is not None:
        return math.dist(a.pose.position_xyz, b.pose.position_xyz)
    if a.geo is not None and b.geo is not None:
        return _horizontal_distance_m(a.geo, b.geo)
    return None


def is_same_place(a: Place, b: Place, config: RecognizerConfig) -> bool:
    """Whether two map entries show one place, so that they support each other rather than compete.

    Within `same_place_radius_m` where positions are known; else in one session at most `same_place_ids`
    apart.
    """
    distance_m = distance_between_m(a, b)
    if distance_m is not None:
        return distance_m <= config.same_place_radius_m
    return a.session == b.session and abs(a.place_id - b.place_id) <= config.same_place_ids


def best_rival(candidates: Sequence[Candidate], config: RecognizerConfig) -> Candidate | None:
    """First candidate in rank order that is at another place than the first; None if there is none."""
    for candidate in candidates[1:]:
        if not is_same_place(candidates[0].place, candidate.place, config):
            return candidate
    return None


def may_skip_reranking(candidates: Sequence[Candidate], config: RecognizerConfig) -> bool:
    """Whether the first stage is so clear that the second is not needed.

    Never without a rival: a lead over nothing proves nothing.
    """
    if config.skip_margin == 0.0 or not candidates:
        return False
    rival = best_rival(candidates, config)
    return rival is not None and candidates[0].similarity - rival.similarity > config.skip_margin


def decide_by_score(candidates: Sequence[Candidate], num_keypoints: int, config: RecognizerConfig) -> Decision:
    """Judge re-ranked candidates.

    NO_MATCH: no candidate or no keypoint; top global similarity below `min_similarity_global`; or consensus of
    the best candidate (matches that agree on one displacement / query keypoints) below `min_consensus`.
    AMBIGUOUS: consensus below `match_consensus`, or the best score is less than `min_score_ratio` times that of
    the best rival at another place. MATCH otherwise. The ranking asks how many patches look alike; whether to
    believe its winner asks how many of them also agree on where they moved, which look-alike places lack.

    The confidence is the logistic function of 3 ln(x), that is x^3 / (1 + x^3), with x the smaller of
    consensus / match_consensus and ratio / min_score_ratio.

    Args:
        candidates: best score first.
        num_keypoints: N of the query.
        config: thresholds.
    """
    refusal = _refuse_at_once(candidates, config)
    if refusal is not None:
        return refusal
    if num_keypoints == 0:
        return Decision(Status.NO_MATCH, 0.0, "the query has no keypoints to verify a candidate with")
    best, rival = candidates[0], best_rival(candidates, config)
    consensus = best.num_consistent / num_keypoints
    ratio = best.score / rival.score if rival is not None and rival.score > 0.0 else math.inf
    evidence = (
        f"place {best.place.place_id}: {best.num_consistent} of {num_keypoints} keypoints agree ({consensus:.3f}), "
        f"score {best.score:.1f}"
    )
    strength = min(_quotient(consensus, config.match_consensus), ratio / config.min_score_ratio)
    confidence = 1.0 / (1.0 + strength**-3) if strength > 0.0 else 0.0

    if consensus < config.min_consensus:
        return Decision(Status.NO_MATCH, confidence, f"{evidence}; below min_consensus {config.min_consensus:g}")
    if consensus < config.match_consensus:
        return Decision(Status.AMBIGUOUS, confidence, f"{evidence}; below match_consensus {config.match_consensus:g}")
    if rival is None:
        return Decision(Status.MATCH, confidence, f"{evidence}, no candidate at another place")
    lead = f"{ratio:.2f} times the {rival.score:.1f} of place {rival.place.place_id} elsewhere"
    if ratio < config.min_score_ratio:
        reason = f"{evidence}, only {lead}; below min_score_ratio {config.min_score_ratio:g}"
        return Decision(Status.AMBIGUOUS, confidence, reason)
    return Decision(Status.MATCH, confidence, f"{evidence}, {lead}")


def decide_by_similarity(candidates: Sequence[Candidate], config: RecognizerConfig) -> Decision:
    """Judge candidates of the first stage alone.

    NO_MATCH: no candidate, or top similarity below `min_similarity_global`. AMBIGUOUS: below
    `match_similarity`, or the lead over the best rival at another place is below `min_similarity_margin`.
    MATCH otherwise.

    The confidence is the logistic function of the smaller excess over the two thresholds, in units of 0.02.

    Args:
        candidates: highest similarity first.
        config: thresholds.
    """
    refusal = _refuse_at_once(candidates, config)
    if refusal is not None:
        return refusal
    best, rival = candidates[0], best_rival(candidates, config)
    margin = best.similarity - rival.similarity if rival is not None else math.inf
    excess = min(best.similarity - config.match_similarity, margin - config.min_similarity_margin)
    confidence = 1.0 / (1.0 + math.exp(-excess / _SIMILARITY_SCALE))
    evidence = f"place {best.place.place_id}: global similarity {best.similarity:.3f}, not re-ranked,"

    if best.similarity < config.match_similarity:
        reason = f"{evidence} is below match_similarity {config.match_similarity:g}"
        return Decision(Status.AMBIGUOUS, confidence, reason)
    if rival is None:
        return Decision(Status.MATCH, confidence, f"{evidence} no candidate at another place")
    lead = f"leads place {rival.place.place_id} elsewhere by {margin:.3f}"
    if margin < config.min_similarity_margin:
        reason = f"{evidence} {lead}, below min_similarity_margin {config.min_similarity_margin:g}"
        return Decision(Status.AMBIGUOUS, confidence, reason)
    return Decision(Status.MATCH, confidence, f"{evidence} {lead}")


def pose_covariance(candidates: Sequence[Candidate], config: RecognizerConfig) -> NDArray[np.float64]:
    """Covariance of the best candidate's pose from how far its supporters spread about it.

    Supporters are the candidates within `same_place_radius_m` that have poses, weighted by score (by
    similarity if nothing was re-ranked). The spread of x, y, z and yaw is taken about the best candidate,
    since that is the pose published, and added to the floor of `min_position_std_m` and `min_yaw_std_rad`.
    Roll and pitch have the floor alone; where the best place's heading is unknown, all three angles have a standard
    deviation of pi. Diagonal, hence positive definite and without negative entries,
    which Nav2's AMCL rejects.

    Args:
        candidates: best first; the first has a pose.
        config: radius and floors.

    Returns:
        (6, 6) float64 in m^2 and rad^2, order x y z roll pitch yaw (REP-103,
        geometry_msgs/PoseWithCovariance).
    """
    best = candidates[0].place.pose
    if best is None:
        raise ValueError(f"place {candidates[0].place.place_id} has no pose, so no covariance")
    reranked = candidates[0].score > 0.0
    spread, total = np.zeros(6), 0.0
    for candidate in candidates:
        pose = candidate.place.pose
        if pose is None or math.dist(pose.position_xyz, best.position_xyz) > config.same_place_radius_m:
            continue
        weight = max(candidate.score if reranked else candidate.similarity, 0.0)
        turn_rad = math.remainder(pose.yaw_rad - best.yaw_rad, math.tau)
        offset_xyz = np.subtract(pose.position_xyz, best.position_xyz)
        spread += weight * np.square([*offset_xyz, 0.0, 0.0, turn_rad])
        total += weight
    angle_std = config.min_yaw_std_rad if candidates[0].place.has_heading else math.pi
    floor = np.square([config.min_position_std_m] * 3 + [angle_std] * 3)
    return np.asarray(np.diag(floor + (spread / total if total > 0.0 else 0.0)), dtype=np.float64)


def bearing_offset(displacement_xy_cells: tuple[float, float], grid_wh: tuple[int, int]) -> float:
    """Horizontal displacement of the query against the place as a fraction of the image width.

    Positive: the query sees the scene further right than the map did.
    """
    return displacement_xy_cells[0] / grid_wh[0]


def _refuse_at_once(candidates: Sequence[Candidate], config: RecognizerConfig) -> Decision | None:
    if not candidates:
        return Decision(Status.NO_MATCH, 0.0, "the map has no candidate: it is empty or none lies within the hint")
    top = max(candidates, key=lambda candidate: candidate.similarity)
    if top.similarity < config.min_similarity_global:
        reason = (
            f"top global similarity {top.similarity:.3f} (place {top.place.place_id}) is below "
            f"min_similarity_global {config.min_similarity_global:g}"
        )
        return Decision(Status.NO_MATCH, 0.0, reason)
    return None


def _quotient(value: float, threshold: float) -> float:
    return value / threshold if threshold > 0.0 else math.inf


def _horizontal_distance_m(a: GeoPoint, b: GeoPoint) -> float:
    """Local east-north approximation at the mean latitude, valid across the 180th meridian."""
    mean_latitude = math.radians((a.latitude_deg + b.latitude_deg) / 2.0)
    turn_deg = math.remainder(b.longitude_deg - a.longitude_deg, 360.0)
    east_m = math.radians(turn_deg) * math.cos(mean_latitude) * _EARTH_RADIUS_M
    north_m = math.radians(b.latitude_deg - a.latitude_deg) * _EARTH_RADIUS_M
    return math.hypot(east_m, north_m)
