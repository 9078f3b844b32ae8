"""Second stage: score candidates by their mutual matches with the query (EffoVPR, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.errors import ConfigError
from effovpr_ros.features.extractor import LocalFeatures
from effovpr_ros.matching.mutual_nn import BatchMatches, match_candidates

SCORES = ("count", "weighted", "spatial")


@dataclass(frozen=True)
class RerankConfig:
    """How a candidate's score is made from its mutual matches above T2.

    Attributes:
        score: weighted, where each match counts (cosine - T2) / (1 - T2), so that matches near the threshold
            count little; count, the number of matches (the paper); or spatial, the number of matches that agree
            on a displacement. On the real image sets weighted finds more than count, and spatial less.
        min_similarity: T2, pairs at or below this cosine are no matches.
    """

    score: str = "weighted"
    min_similarity: float = 0.65

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.score not in SCORES:
            raise ConfigError(f"score {self.score!r} is unknown; use {', '.join(SCORES)}")
        if not -1.0 <= self.min_similarity < 1.0:
            raise ConfigError(f"min_similarity (T2) {self.min_similarity} is outside [-1, 1)")


@dataclass(frozen=True)
class CandidateScore:
    """What re-ranking found out about one candidate.

    Attributes:
        score: higher is better; at most the number of query keypoints, whatever the kind of score.
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
    """Scores candidates against a query."""

    def __init__(self, config: RerankConfig, device: str = "cpu") -> None:
        """Keep the settings.

        Args:
            config: how to score.
            device: torch device of the matching.
        """
        self.config = config
        self.device = device

    def score(self, query: LocalFeatures, candidates: Sequence[LocalFeatures]) -> list[CandidateScore]:
        """Score each candidate.

        Args:
            query: N keypoints; may be none.
            candidates: K sets of keypoints, any of them may be empty.

        Returns:
            K scores in the order of the candidates.

        Raises:
            DescriptorShapeError: descriptors of different models.
        """
        matches = match_candidates(query, candidates, self.config.min_similarity, self.device)
        matched = matches.candidate_index >= 0
        num_matches = matched.sum(axis=1)
        votes, displacements = spatial_consensus(query, candidates, matches)
        if self.config.score == "count":
            scores = num_matches.astype(np.float64)
        elif self.config.score == "weighted":
            excess = (matches.similarity - self.config.min_similarity) / (1.0 - self.config.min_similarity)
            scores = np.where(matched, excess, 0.0).sum(axis=1, dtype=np.float64)
        else:
            scores = votes.astype(np.float64)
        return [
            CandidateScore(float(score), int(count), int(agree), (float(x), float(y)))
            for score, count, agree, (x, y) in zip(scores, num_matches, votes, displacements, strict=True)
        ]

    def matched_cells(
        self, query: LocalFeatures, candidate: LocalFeatures
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Cells of the mutual matches of one pair, for drawing.

        Returns:
            (P, 2) query cells and (P, 2) candidate cells as (column, row), best match first.
        """
        matches = match_candidates(query, [candidate], self.config.min_similarity, self.device)
        best_first = np.argsort(-matches.similarity[0], kind="stable")
        query_index = best_first[matches.candidate_index[0, best_first] >= 0]
        return query.cells_xy[query_index], candidate.cells_xy[matches.candidate_index[0, query_index]]


def spatial_consensus(
    query: LocalFeatures, candidates: Sequence[LocalFeatures], matches: BatchMatches
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many matches of each candidate agree on one displacement of patch cells, and on which.

    Displacements (query cell - candidate cell) are voted into a histogram of one bin a cell; the 3x3 bins
    with the largest sum win. Equal sums: the one with the fuller centre bin, then the smaller row, then the
    smaller column.

    Args:
        query: N keypoints.
        candidates: K sets of keypoints.
        matches: of the query in the candidates.

    Returns:
        (K,) int64 largest 3x3 sums and (K, 2) float64 mean (x, y) displacement of the matches in it, (0, 0)
        if none.
    """
    num_candidates = len(candidates)
    votes, displacements = np.zeros(num_candidates, np.int64), np.zeros((num_candidates, 2))
    number, query_index = np.nonzero(matches.candidate_index >= 0)
    if len(number) == 0:
        return votes, displacements
    first_cell = np.concatenate([[0], np.cumsum([len(candidate) for candidate in candidates])])
    all_cells = np.concatenate([candidate.cells_xy for candidate in candidates]).astype(np.int64)
    candidate_cells = all_cells[first_cell[number] + matches.candidate_index[number, query_index]]
    displacement = query.cells_xy[query_index].astype(np.int64) - candidate_cells

    # One empty bin on each side spares the 3x3 sum its borders.
    lowest = displacement.min(axis=0) - 1
    width, height = displacement.max(axis=0) - lowest + 2
    column, row = (displacement - lowest).T
    bins = np.bincount((number * height + row) * width + column, minlength=num_candidates * height * width)
    histogram = bins.reshape(num_candidates, height, width)
    of_columns = histogram[:, :, :-2] + histogram[:, :, 1:-1] + histogram[:, :, 2:]
    sums = of_columns[:, :-2] + of_columns[:, 1:-1] + of_columns[:, 2:]
    centre_breaks_ties = sums * (len(query) + 1) + histogram[:, 1:-1, 1:-1]
    winner = centre_breaks_ties.reshape(num_candidates, -1).argmax(axis=1)
    votes = sums.reshape(num_candidates, -1)[np.arange(num_candidates), winner]

    winning_row, winning_column = np.divmod(winner, width - 2)
    row_apart, column_apart = row - 1 - winning_row[number], column - 1 - winning_column[number]
    in_window = (np.abs(row_apart) <= 1) & (np.abs(column_apart) <= 1)
    for axis in (0, 1):
        total = np.bincount(number[in_window], displacement[in_window, axis], minlength=num_candidates)
        displacements[:, axis] = total / np.maximum(votes, 1)
    return votes, displacements
