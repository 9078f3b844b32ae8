"""What one image says of each candidate, free of the unit of its scores and of the background of places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.mapping.place import Candidate

Array = NDArray[np.float64]

# A best score must exceed the typical one by so many standard deviations to count as evidence in full.
_CLEAR_STD = 5.0
# The mean is over so many images, after so many that said nothing.
_BACKGROUND_FRAMES = 50.0
_BACKGROUND_PRIOR = 5.0


def candidate_evidence(candidates: Sequence[Candidate]) -> Array:
    """What one image says of each candidate, whatever the unit of its scores.

    The score (the global similarity, if nothing was re-ranked) above the median of the candidates, as a fraction of
    the best one's, or of five robust standard deviations where the best does not stand out so far.

    Args:
        candidates: K, in any order.

    Returns:
        (K,) float64 in [-1, 1].
    """
    scores = np.array([candidate.score for candidate in candidates])
    if not scores.any():
        scores = np.array([candidate.similarity for candidate in candidates])
    excess = scores - np.median(scores)
    std = 1.4826 * float(np.median(np.abs(excess)))
    unit = max(float(excess.max()), _CLEAR_STD * std)
    return np.clip(excess / unit, -1.0, 1.0) if unit > 0.0 else np.zeros(len(scores))


class BackgroundEvidence:
    """How places answer images that do not show them: some look a little like everything. One row a place."""

    def __init__(self) -> None:
        """Start without any."""
        self._sums: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        """Places that are known."""
        return len(self._sums)

    def of(self, place_ids: Sequence[int]) -> Array:
        """(K,) float64 evidence to expect of places that an image does not show; 0 for one not seen before."""
        sums = np.array([self._sums.get(number, (0.0, 0.0)) for number in place_ids])
        return np.asarray(sums[:, 0] / (sums[:, 1] + _BACKGROUND_PRIOR), np.float64)

    def forget(self, place_id: int) -> None:
        """Drop a place."""
        self._sums.pop(place_id, None)

    def learn(self, place_ids: Sequence[int], evidence: Array, unseen: Array) -> None:
        """Add one image.

        Args:
            place_ids: K places.
            evidence: (K,) of the image.
            unseen: (K,) probability that the image does not show the place.
        """
        kept = 1.0 - 1.0 / _BACKGROUND_FRAMES
        for number, value, share in zip(place_ids, evidence.tolist(), unseen.tolist(), strict=True):
            total, count = self._sums.get(number, (0.0, 0.0))
            self._sums[number] = (kept * total + share * value, kept * count + share)
