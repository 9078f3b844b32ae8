"""Re-ranking scores on descriptors whose matches are known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker

EMPTY = LocalFeatures(np.empty((0, 8), np.int8), np.empty((0, 2), np.uint8))


def axes(numbers: list[int], cells_xy: list[tuple[int, int]]) -> LocalFeatures:
    """Descriptors that are coordinate axes: axis i matches axis i with cosine 1 and nothing else."""
    return LocalFeatures(7 * np.eye(8, dtype=np.int8)[numbers], np.array(cells_xy, np.uint8).reshape(-1, 2))


QUERY = axes([0, 1, 2, 3], [(5, 5), (6, 5), (7, 9), (1, 1)])
# Displacements query - candidate: (2, 1), (3, 1), (2, 1) agree within a 3x3; axis 3 is displaced by (-6, 0).
SHIFTED = axes([3, 2, 1, 0], [(7, 1), (5, 8), (3, 4), (3, 4)])
TWO_OF_FOUR = axes([0, 1, 6], [(5, 5), (0, 0), (9, 9)])


def test_count_and_winning_displacement_worked_by_hand():
    scores = Reranker(RerankConfig("count")).score(QUERY, [item.packed for item in (TWO_OF_FOUR, EMPTY, SHIFTED)])
    assert [(s.score, s.num_matches, s.num_consistent) for s in scores] == [(2.0, 2, 1), (0.0, 0, 0), (4.0, 4, 3)]
    # Displacements (0, 0) and (6, 5) have one vote each; the smaller row wins.
    assert scores[0].displacement_xy_cells == (0.0, 0.0)
    assert scores[1] == CandidateScore(0.0, 0, 0, (0.0, 0.0))
    assert scores[2].displacement_xy_cells == pytest.approx((7 / 3, 1.0))


def test_spatial_counts_only_the_agreeing_matches():
    scores = Reranker(RerankConfig("spatial")).score(QUERY, [item.packed for item in (TWO_OF_FOUR, EMPTY, SHIFTED)])
    assert [(score.score, score.num_matches) for score in scores] == [(1.0, 2), (0.0, 0), (3.0, 4)]


def test_weighted_counts_each_match_by_its_excess_over_the_threshold():
    query = LocalFeatures(5 * np.eye(2, 4, dtype=np.int8), np.zeros((2, 2), np.uint8))
    # Cosines of 1 and of 3 / sqrt(3^2 + 4^2) with the query's.
    candidate = LocalFeatures(np.array([[1, 0, 0, 0], [0, 3, 4, 0]], np.int8), np.zeros((2, 2), np.uint8))
    score = Reranker(RerankConfig("weighted", min_similarity=0.5)).score(query, [candidate.packed])[0]
    # (1 - 0.5) / 0.5 + (0.6 - 0.5) / 0.5
    assert score.score == pytest.approx(1.2)
    assert score.num_matches == 2


def test_matched_cells_come_best_first():
    query = LocalFeatures(np.eye(3, 4, dtype=np.int8), np.array([[1, 2], [3, 4], [5, 6]], np.uint8))
    candidate = LocalFeatures(np.array([[0, 0, 1, 0], [4, 0, 0, 3]], np.int8), np.array([[10, 11], [12, 13]], np.uint8))
    query_cells, candidate_cells = Reranker(RerankConfig()).matched_cells(query, candidate.packed)
    assert query_cells.tolist() == [[5, 6], [1, 2]]
    assert candidate_cells.tolist() == [[10, 11], [12, 13]]
    query_cells, candidate_cells = Reranker(RerankConfig()).matched_cells(query, EMPTY.packed)
    assert query_cells.shape == candidate_cells.shape == (0, 2)


def test_query_without_keypoints_and_no_candidates():
    reranker = Reranker(RerankConfig("spatial"))
    assert reranker.score(EMPTY, [QUERY.packed, EMPTY.packed]) == [CandidateScore(0.0, 0, 0, (0.0, 0.0))] * 2
    assert reranker.score(QUERY, []) == []


@pytest.mark.parametrize("bad", [{"score": "sum"}, {"min_similarity": 1.0}, {"min_similarity": float("nan")}])
def test_impossible_settings_are_refused(bad: dict[str, float | str]):
    with pytest.raises(ConfigError, match=str(next(iter(bad.values())))):
        RerankConfig(**bad)
