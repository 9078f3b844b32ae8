"""Second stage: score candidates by their mutual matches with the query (EffoVPR, section 3.2)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.features.image_features import LocalFeatures, PackedLocal
from effovpr_ros.matching.compiled import kernel_name, scoring
from effovpr_ros.matching.mutual_nn import mutual_nearest_neighbours, require_same_width
from effovpr_ros.matching.parallel import map_in_threads
from effovpr_ros.matching.rerank_config import RerankConfig


@dataclass(frozen=True)
class CandidateScore:
    """What re-ranking found out about one candidate.

    Attributes:
        score: higher is better.
        num_matches: mutual matches above T2.
        num_consistent: of them, those that agree on one displacement: the largest sum of 3x3 bins of the histogram of
            displacements, which has one bin a cell.
        displacement_xy_cells: query cell minus candidate cell, mean over the matches in these bins; (0, 0) without
            a match. Of equal sums, those with the fuller centre bin, then of the smaller row, then column.
    """

    score: float
    num_matches: int
    num_consistent: int
    displacement_xy_cells: tuple[float, float]

    @classmethod
    def of_rows(cls, table: NDArray[np.float64]) -> list[CandidateScore]:
        """From (K, 5): score, number of matches, number of consistent ones, and their displacement in x and y."""
        return [
            cls(score, int(matches), int(consistent), (x, y)) for score, matches, consistent, x, y in table.tolist()
        ]


class Reranker:
    """Scores candidates against a query on the CPU; `matching.on_device` does on a GPU."""

    def __init__(self, config: RerankConfig) -> None:
        """Keep the settings; a ConfigError where `EFFOVPR_KERNEL` names no kernel of this processor."""
        self.config = config
        self._kernel = kernel_name()

    def score(self, query: LocalFeatures, candidates: Sequence[PackedLocal]) -> list[CandidateScore]:
        """Score each candidate.

        Args:
            query: N keypoints; may be none.
            candidates: K sets of keypoints, any of them may be empty.

        Returns:
            K scores in the order of the candidates.

        Raises:
            DescriptorShapeError: descriptors of different models.
        """
        require_same_width(query, candidates)
        if not len(query):
            return [CandidateScore(0.0, 0, 0, (0.0, 0.0))] * len(candidates)
        return map_in_threads(functools.partial(self._score, query), candidates)

    def matched_cells(
        self, query: LocalFeatures, candidate: PackedLocal
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Cells of the mutual matches of one pair, for drawing.

        Returns:
            (P, 2) query cells and (P, 2) candidate cells as (column, row), best match first.
        """
        pair = candidate, self.config.min_similarity, self._kernel
        candidate_index, similarity = mutual_nearest_neighbours(query, *pair)
        best_first = np.argsort(-similarity, kind="stable")
        query_index = best_first[candidate_index[best_first] >= 0]
        return query.cells_xy[query_index], candidate.cells_xy[candidate_index[query_index]]

    def _score(self, query: LocalFeatures, candidates: Sequence[PackedLocal]) -> list[CandidateScore]:
        pairs = [(candidate.codes, candidate.cells_xy) for candidate in candidates]
        settings = self.config.min_similarity, self.config.score, self._kernel
        table = scoring.score(query.codes, query.cells_xy, pairs, *settings)
        return CandidateScore.of_rows(table)
