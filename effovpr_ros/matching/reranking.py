"""Second stage: score candidates by their mutual matches with the query (EffoVPR, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.coherence import neighbour_support, spatial_consensus
from effovpr_ros.matching.mutual_nn import match_candidates, require_same_width
from effovpr_ros.matching.parallel import map_in_threads
from effovpr_ros.matching.rerank_config import RerankConfig

# ln(2 + s) for each number s of neighbours within the 5x5.
_WORTH = np.log(2.0 + np.arange(25))


@dataclass(frozen=True)
class CandidateScore:
    """What re-ranking found out about one candidate.

    Attributes:
        score: higher is better.
        num_matches: mutual matches above T2.
        num_consistent: of them, those that agree on one displacement, see `spatial_consensus`.
        displacement_xy_cells: query cell minus candidate cell, mean over the matches of the largest 3x3 bin
            of the displacement histogram; (0, 0) without a match.
    """

    score: float
    num_matches: int
    num_consistent: int
    displacement_xy_cells: tuple[float, float]


class Reranker:
    """Scores candidates against a query on the CPU; `matching.on_device` does on a GPU."""

    def __init__(self, config: RerankConfig) -> None:
        """Keep the settings."""
        self.config = config

    def score(
        self, query: LocalFeatures, candidates: Sequence[LocalFeatures], *, every_other: bool = False
    ) -> list[CandidateScore]:
        """Score each candidate.

        Args:
            query: N keypoints; may be none.
            candidates: K sets of keypoints, any of them may be empty.
            every_other: by half of the keypoints of either and about by their cosines, at a third of the cost or less.

        Returns:
            K scores in the order of the candidates.

        Raises:
            DescriptorShapeError: descriptors of different models.
        """
        # Here, since the error counts the candidates.
        require_same_width(query, candidates)
        if every_other:
            query, candidates = query.every_other, [candidate.every_other for candidate in candidates]
        return map_in_threads(partial(self._score, query, norms=not every_other), candidates)

    def matched_cells(
        self, query: LocalFeatures, candidate: LocalFeatures
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Cells of the mutual matches of one pair, for drawing.

        Returns:
            (P, 2) query cells and (P, 2) candidate cells as (column, row), best match first.
        """
        matches = match_candidates(query, [candidate], self.config.min_similarity)
        best_first = np.argsort(-matches.similarity[0], kind="stable")
        query_index = best_first[matches.candidate_index[0, best_first] >= 0]
        return query.cells_xy[query_index], candidate.cells_xy[matches.candidate_index[0, query_index]]

    def _score(self, query: LocalFeatures, candidates: Sequence[LocalFeatures], *, norms: bool) -> list[CandidateScore]:
        matches = match_candidates(query, candidates, self.config.min_similarity, norms=norms)
        matched = matches.candidate_index >= 0
        num_matches = matched.sum(axis=1)
        votes, displacements = spatial_consensus(query, candidates, matches)
        if self.config.score == "count":
            scores = num_matches.astype(np.float64)
        elif self.config.score == "weighted":
            excess = matches.similarity.astype(np.float64) - self.config.min_similarity
            scores = np.where(matched, excess, 0.0).sum(axis=1) / (1.0 - self.config.min_similarity)
        elif self.config.score == "coherent":
            support = neighbour_support(query, candidates, matches)
            scores = np.where(matched, _WORTH[support], 0.0).sum(axis=1) + votes
        else:
            scores = votes.astype(np.float64)
        return [
            CandidateScore(float(score), int(count), int(agree), (float(x), float(y)))
            for score, count, agree, (x, y) in zip(scores, num_matches, votes, displacements, strict=True)
        ]
