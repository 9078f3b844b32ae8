"""The order of the candidates by all three stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.mapping.place import Candidate
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import is_same_place

# Chosen on rendered levels and corridor_walk under imitated changes, confirmed on lund_walk and rtabmap_loop; see
# docs/verification.md. What matters little is a round number.
_SCORE_EXPONENT = 0.5
# Points that say nothing: fewer cannot turn the order of two scores that differ by much.
_FLOOR = 20.0
# From this share of keypoints on that agree on one displacement, the first two stages see well themselves; for each
# hundredth beyond, a new first candidate must be better by 2 % more.
_SEES_WELL = 0.1
_MARGIN_PER_SHARE = 2.0
# A difference in cosine of global descriptors that is worth a factor of e, where nothing was re-ranked. Not fitted.
_SIMILARITY_SCALE = 0.1

Array = NDArray[np.float64]


def reorder(candidates: Sequence[Candidate], num_keypoints: int, config: RecognizerConfig) -> list[Candidate]:
    """Weigh the scores of the first two stages and the points that were verified.

    What counts of the points is half the inliers of the homography and a quarter of the matches, as many of them as
    parallax or blur keep off a homography. Each is the mean of the candidate's own and of the most that any candidate
    at its place has: points tell places apart well, and neighbouring pictures of one place less well.

    Args:
        candidates: best first by the first two stages.
        num_keypoints: of the query.
        config: what counts as one place.

    Returns:
        Best first by all; those that were not verified stay in their order behind those that were.
    """
    verified = [item for item in candidates if item.points is not None]
    if len(verified) < 2:
        return list(candidates)
    combined = _scores(verified) ** _SCORE_EXPONENT * (_points(verified, config) + _FLOOR)
    order = [int(number) for number in np.argsort(-combined, kind="stable")]
    share = verified[0].num_consistent / max(num_keypoints, 1)
    wanted = 1.0 + _MARGIN_PER_SHARE * max(0.0, share - _SEES_WELL)
    if combined[order[0]] < wanted * combined[0]:
        order.remove(0)
        order.insert(0, 0)
    return [*(verified[number] for number in order), *(item for item in candidates if item.points is None)]


def _scores(candidates: Sequence[Candidate]) -> Array:
    """(K,) of the first two stages, the best 1."""
    scores = np.array([max(item.score, 0.0) for item in candidates])
    if scores.any():
        return np.asarray(scores / scores.max(), np.float64)
    similarities = np.array([item.similarity for item in candidates])
    return np.asarray(np.exp((similarities - similarities.max()) / _SIMILARITY_SCALE), np.float64)


def _points(candidates: Sequence[Candidate], config: RecognizerConfig) -> Array:
    """(K,) what the points say."""
    counts = [item.points for item in candidates]
    own = np.array([0.5 * item.homography + 0.25 * item.matches if item else 0.0 for item in counts])
    same = np.array([[is_same_place(a.place, b.place, config) for b in candidates] for a in candidates])
    homography = np.array([item.homography if item else 0 for item in counts], np.float64)
    matches = np.array([item.matches if item else 0 for item in counts], np.float64)
    here = 0.5 * np.where(same, homography, 0.0).max(axis=1) + 0.25 * np.where(same, matches, 0.0).max(axis=1)
    return np.asarray((own + here) / 2.0, np.float64)
