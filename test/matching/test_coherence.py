"""Scores by what moves alike: by hand, and against loops over all pairs of matches and all displacements."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker


def keypoints(cells_xy: list[tuple[int, int]], axes: list[int] | None = None) -> LocalFeatures:
    """Keypoints whose descriptors are axes of 64 dimensions: the first, the second, ..., or those named."""
    numbers = range(len(cells_xy)) if axes is None else axes
    return LocalFeatures(7 * np.eye(64, dtype=np.int8)[list(numbers)], np.array(cells_xy, np.uint8))


QUERY = keypoints([(5, 5), (6, 5), (7, 7), (8, 5), (20, 20)])
# Displacements query - candidate: (2, 1), (3, 1), (4, 2), (2, 1), (2, 1).
MOVED = keypoints([(3, 4), (3, 4), (3, 5), (6, 4), (18, 19)])


def coherent(query: LocalFeatures, *candidates: LocalFeatures) -> list[CandidateScore]:
    return Reranker(RerankConfig("coherent")).score(query, [candidate.packed for candidate in candidates])


def test_coherent_score_worked_by_hand():
    (score,) = coherent(QUERY, MOVED)
    # 0 and 1 are neighbours and differ by one cell, as are 1 and 2, and 1 and 3; 0 and 2 are neighbours but differ by
    # two cells, as are 2 and 3; 0 and 3 lie three columns apart, and nothing is near 4. So 1 has three that moved
    # alike, and 0, 2 and 3 one. All five lie within a cell of the displacement (3, 1).
    assert score.num_consistent == 5
    assert score.score == pytest.approx(math.log(2) + 3 * math.log(3) + math.log(5) + 5)
    assert score.num_matches == 5


def test_patches_without_a_match_are_no_neighbours():
    # Keypoints 0 and 3 alone, three columns apart; what another candidate matched is forgotten.
    _, score = coherent(QUERY, MOVED, keypoints([(3, 4), (6, 4)], axes=[0, 3]))
    assert score.score == pytest.approx(2 * math.log(2) + 2)


def test_keypoints_of_one_cell_are_no_neighbours_of_each_other():
    # Neither extractor nor map gives such: all at one patch, which moved by as many displacements.
    query = keypoints([(3, 3)] * 10)
    apart = keypoints([(20 * number, 0) for number in range(10)])
    (score,) = coherent(query, apart)
    assert score.score == pytest.approx(10 * math.log(2) + 1)


def test_equal_windows_do_not_depend_on_other_candidates():
    query = keypoints([(20, 20), (30, 20), (40, 20), (50, 20)])
    # Displacements (10, 0) and (12, 0), (0, 0) and (2, 1): two windows of two, with nothing in their centres. That
    # around the first two reaches one row higher.
    candidate = keypoints([(10, 20), (18, 20), (40, 20), (48, 19)])
    scattered = keypoints([(40, 0), (60, 60), (0, 40), (90, 10)])
    for others in ([], [scattered]):
        score = coherent(query, candidate, *others)[0]
        assert (score.num_consistent, score.displacement_xy_cells) == (2, (11.0, 0.0))


def test_a_patch_at_every_border_is_compared():
    # A full 5x5 grid that moved as one, at the beginning and at the end of what cells can be.
    for first in (0, 251):
        features = keypoints([(first + x, first + y) for y in range(5) for x in range(5)])
        # A corner has 8 neighbours, beside it 11 twice, in the middle of a side 14; then 15, 19, 24 inwards.
        counts = {8: 4, 11: 8, 14: 4, 15: 4, 19: 4, 24: 1}
        expected = sum(number * math.log(2 + neighbours) for neighbours, number in counts.items())
        assert coherent(features, features)[0].score == pytest.approx(expected + 25)


def naive_score(displacements: dict[tuple[int, int], tuple[int, int]]) -> CandidateScore:
    """Displacements of matches by the query's cells, scored by loops over all pairs and all 3x3 windows."""

    def alike(cell: tuple[int, int]) -> int:
        return sum(
            other != cell
            and max(abs(cell[axis] - other[axis]) for axis in (0, 1)) <= 2
            and max(abs(displacements[cell][axis] - displacements[other][axis]) for axis in (0, 1)) <= 1
            for other in displacements
        )

    votes = Counter(displacements.values())
    best = (0, 0, 0, 0)
    for x in range(-40, 41):
        for y in range(-40, 41):
            total = sum(votes[x + i, y + j] for i in (-1, 0, 1) for j in (-1, 0, 1))
            best = max(best, (total, votes[x, y], -y, -x))
    total, _, y, x = best[0], best[1], -best[2], -best[3]
    inside = [moved for moved in displacements.values() if abs(moved[0] - x) <= 1 and abs(moved[1] - y) <= 1]
    mean = tuple(np.mean(inside, axis=0).tolist()) if inside else (0.0, 0.0)
    score = sum(math.log(2 + alike(cell)) for cell in displacements) + total
    return CandidateScore(score, len(displacements), total, mean)


@pytest.mark.parametrize("seed", range(6))
def test_score_equals_loops_over_pairs_and_windows(seed: int):
    rng = np.random.default_rng(seed)
    grid = [(x, y) for y in range(9) for x in range(11)]
    cells = [grid[number] for number in np.sort(rng.permutation(len(grid))[:60])]
    query = keypoints(cells)
    candidates = []
    for size, spread in ((50, 1), (0, 1), (4, 9), (60, 9), (30, 2)):
        axes = rng.permutation(64)[:size].tolist()
        moved = [np.clip(np.array(cells[axis % 60]) + rng.integers(-spread, spread + 1, 2), 0, 22) for axis in axes]
        candidates.append(LocalFeatures(7 * np.eye(64, dtype=np.int8)[axes], np.array(moved, np.uint8).reshape(-1, 2)))
    for candidate, score in zip(candidates, coherent(query, *candidates), strict=True):
        displacements = {
            cells[axis]: (cells[axis][0] - int(cell[0]), cells[axis][1] - int(cell[1]))
            for axis, cell in zip(candidate.codes.argmax(axis=1), candidate.cells_xy, strict=True)
            if axis < 60
        }
        expected = naive_score(displacements)
        assert score.score == pytest.approx(expected.score)
        assert (score.num_matches, score.num_consistent) == (expected.num_matches, expected.num_consistent)
        assert score.displacement_xy_cells == pytest.approx(expected.displacement_xy_cells)
