"""Few of many candidates are scored by all their patches; what the others would score follows from every other patch.

All are scored by every other patch first, which costs a third at most. Those that can win, and a few of the others, are
then scored by all. The few tell by how much the scores of all patches are larger, so that the others' are estimated
without favour: what wrong candidates score is what the confidence compares with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.matching.reranking import CandidateScore

FEWEST_CANDIDATES = 60
"""Fewer are all scored by all patches."""
FEWEST_KEYPOINTS = 256
"""Half of fewer say too little, and all of them cost little."""

# Chosen on rtabmap_loop and rendered buildings; docs/defaults.md says what they do on other sets.
_BEST = 20
_FIRST = 5
_SAMPLE_EVERY = 10
# What is verified by default, and whom it is compared with, is never chosen by an estimate.
_BEST_IN_FULL = 15
_RIVALS_IN_FULL = 10


def score_candidates(
    num_keypoints: int,
    num_candidates: int,
    score: Callable[[Sequence[int], bool], Sequence[CandidateScore]],
    elsewhere: Callable[[int], Collection[int]],
) -> list[CandidateScore]:
    """Score candidates; of many, those that cannot win by an estimate.

    Args:
        num_keypoints: of the query.
        num_candidates: K, in the order of the first stage.
        score: from numbers of candidates, and whether every other patch is enough, to their scores.
        elsewhere: from the number of the best candidate to those that do not show its place.

    Returns:
        K scores in the order of the first stage. The best 15 at least are those of all patches, and the best 10
        elsewhere, of which the third stage chooses those that tell what a wrong answer gives.
    """
    everyone = range(num_candidates)
    if num_candidates < FEWEST_CANDIDATES or num_keypoints < FEWEST_KEYPOINTS:
        return list(score(everyone, False))
    coarse = score(everyone, True)
    best_first = np.argsort([-item.score for item in coarse], kind="stable").tolist()
    can_win = sorted({*best_first[:_BEST], *everyone[:_FIRST]})
    rest = [number for number in best_first if number not in can_win]
    sample = rest[_SAMPLE_EVERY // 2 :: _SAMPLE_EVERY]
    full = dict(zip([*can_win, *sample], score([*can_win, *sample], False), strict=True))
    estimates = _estimates(coarse, [(coarse[number], full[number]) for number in sample])
    while True:
        scores = [full.get(number, estimates[number]) for number in everyone]
        order = np.argsort([-item.score for item in scores], kind="stable").tolist()
        others = elsewhere(order[0])
        rivals = [number for number in order if number in others]
        needed = dict.fromkeys(order[:_BEST_IN_FULL] + rivals[:_RIVALS_IN_FULL])
        missing = [number for number in needed if number not in full]
        if not missing:
            return scores
        full |= zip(missing, score(missing, False), strict=True)


def _estimates(
    coarse: Sequence[CandidateScore], pairs: Sequence[tuple[CandidateScore, CandidateScore]]
) -> list[CandidateScore]:
    """What all patches would give, by candidates that were scored both ways: coarse and in full."""
    score, matches, consistent = (
        _ratio(np.array([(getattr(one, name), getattr(other, name)) for one, other in pairs], np.float64))
        for name in ("score", "num_matches", "num_consistent")
    )
    return [
        CandidateScore(
            item.score * score,
            round(item.num_matches * matches),
            round(item.num_consistent * consistent),
            item.displacement_xy_cells,
        )
        for item in coarse
    ]


def _ratio(pairs: NDArray[np.float64]) -> float:
    """Median of full / coarse, (P, 2) of coarse and full; 0 where no coarse one is above 0."""
    known = pairs.reshape(-1, 2)
    known = known[known[:, 0] > 0]
    return float(np.median(known[:, 1] / known[:, 0])) if len(known) else 0.0
