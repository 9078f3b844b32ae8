"""Neighbour support: by hand, and against a loop over all pairs of matches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.coherence import neighbour_support, spatial_consensus
from effovpr_ros.matching.mutual_nn import BatchMatches, match_candidates
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import Reranker


def keypoints(cells_xy: list[tuple[int, int]]) -> LocalFeatures:
    """Keypoints whose descriptors are the axes 0, 1, ... of 16 dimensions."""
    return LocalFeatures(7 * np.eye(16, dtype=np.int8)[: len(cells_xy)], np.array(cells_xy, np.uint8))


QUERY = keypoints([(5, 5), (6, 5), (7, 7), (8, 5), (20, 20)])
# Displacements query - candidate: (2, 1), (3, 1), (4, 2), (2, 1), (2, 1).
MOVED = keypoints([(3, 4), (3, 4), (3, 5), (6, 4), (18, 19)])


def test_support_worked_by_hand():
    matches = BatchMatches(np.array([[0, 1, 2, 3, 4], [0, -1, -1, 3, -1]]), np.ones((2, 5), np.float32))
    # 0 and 1 are neighbours and differ by one cell, as are 1 and 2, and 1 and 3; 0 and 2 are neighbours but differ by
    # two cells, as are 2 and 3; 0 and 3 lie three columns apart, and nothing is near 4.
    assert neighbour_support(QUERY, [MOVED, MOVED], matches).tolist() == [[1, 3, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_coherent_score_worked_by_hand():
    score = Reranker(RerankConfig("coherent")).score(QUERY, [MOVED])[0]
    # And all five lie within a cell of the displacement (3, 1).
    assert score.num_consistent == 5
    assert score.score == pytest.approx(math.log(2) + 3 * math.log(3) + math.log(5) + 5)
    assert score.num_matches == 5


def test_equal_windows_do_not_depend_on_other_candidates():
    query = keypoints([(20, 20), (30, 20), (40, 20), (50, 20)])
    # Displacements (10, 0) and (12, 0), (0, 0) and (2, 1): two windows of two, with nothing in their centres. That
    # around the first two reaches one row higher.
    candidate = keypoints([(10, 20), (18, 20), (40, 20), (48, 19)])
    scattered = keypoints([(40, 0), (60, 60), (0, 40), (90, 10)])
    alone = Reranker(RerankConfig("spatial")).score(query, [candidate])[0]
    assert (alone.num_consistent, alone.displacement_xy_cells) == (2, (11.0, 0.0))
    matches = match_candidates(query, [candidate, scattered], 0.6)
    votes, displacements = spatial_consensus(query, [candidate, scattered], matches)
    assert (votes[0], displacements[0].tolist()) == (2, [11.0, 0.0])


def test_a_patch_at_every_border_is_compared():
    # A full 5x5 grid that moved as one: the centre has 24 neighbours, a corner 8.
    cells = [(x, y) for y in range(5) for x in range(5)]
    features = LocalFeatures(np.zeros((25, 2), np.int8), np.array(cells, np.uint8))
    support = neighbour_support(features, [features], BatchMatches(np.arange(25)[None], np.ones((1, 25), np.float32)))
    assert support.reshape(5, 5)[[0, 0, 2, 4], [0, 4, 2, 2]].tolist() == [8, 8, 24, 14]


@pytest.mark.parametrize("seed", range(4))
def test_support_equals_a_loop_over_pairs(seed: int):
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(9), np.arange(7)), -1).reshape(-1, 2).astype(np.uint8)
    query = LocalFeatures(np.zeros((40, 2), np.int8), cells[np.sort(rng.permutation(63)[:40])])
    sizes = [50, 0, 30]
    candidates = [LocalFeatures(np.zeros((size, 2), np.int8), cells[:size]) for size in sizes]
    index = np.stack([rng.integers(-1, size, 40) if size else np.full(40, -1) for size in sizes])
    support = neighbour_support(query, candidates, BatchMatches(index, np.ones((3, 40), np.float32)))
    for row, candidate in enumerate(candidates):
        moved = {
            n: query.cells_xy[n].astype(int) - candidate.cells_xy[m].astype(int)
            for n, m in enumerate(index[row])
            if m >= 0
        }
        for n in range(40):
            alike = [
                other
                for other in moved
                if n in moved
                and other != n
                and np.abs(query.cells_xy[n].astype(int) - query.cells_xy[other]).max() <= 2
                and np.abs(moved[n] - moved[other]).max() <= 1
            ]
            assert support[row, n] == len(alike)
