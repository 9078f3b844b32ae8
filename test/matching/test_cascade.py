"""Which candidates are scored by all patches, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.cascade import score_candidates
from effovpr_ros.matching.mutual_nn import match_candidates
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker


class Scores:
    """Scores that are given; remembers what was asked for."""

    def __init__(self, coarse: Sequence[float], full: Sequence[float]) -> None:
        self.coarse, self.full = coarse, full
        self.asked: list[tuple[list[int], bool]] = []

    def __call__(self, numbers: Sequence[int], every_other: bool) -> list[CandidateScore]:
        self.asked.append((list(numbers), every_other))
        values = self.coarse if every_other else self.full
        return [CandidateScore(values[number], int(values[number]), 1, (0.0, 0.0)) for number in numbers]

    @property
    def in_full(self) -> set[int]:
        return {number for numbers, every_other in self.asked if not every_other for number in numbers}


def nowhere(best: int) -> set[int]:
    """All candidates show one place."""
    return set()


def test_few_candidates_and_few_keypoints_are_scored_by_all_patches_at_once():
    for num_keypoints, count in ((529, 59), (255, 60)):
        scores = Scores([0.0] * count, list(range(count)))
        found = score_candidates(num_keypoints, count, scores, nowhere)
        assert [item.score for item in found] == list(range(count))
        assert scores.asked == [(list(range(count)), False)]


def test_the_best_and_the_first_and_every_tenth_are_scored_in_full_and_others_are_estimated():
    # The last are the best; all patches give three times as much.
    coarse = [float(number) for number in range(80)]
    full = [3.0 * value for value in coarse]
    scores = Scores(coarse, full)
    found = score_candidates(529, 80, scores, nowhere)
    # The best 20 are 60 to 79, the first 5 are 0 to 4. Of the rest, 59 down to 5, the sixth and every tenth from it.
    sample = [54, 44, 34, 24, 14]
    assert scores.asked == [
        (list(range(80)), True),
        ([0, 1, 2, 3, 4, *range(60, 80), *sample], False),
    ]
    assert [item.score for item in found] == full
    assert found[53] == CandidateScore(159.0, 159, 1, (0.0, 0.0))


def test_the_ratio_is_the_median_of_the_sample_whatever_the_best_have():
    coarse = [float(number) for number in range(80)]
    full = [10.0 * value for value in coarse]
    for number, ratio in zip((54, 44, 34, 24, 14), (2.0, 2.0, 2.5, 3.0, 9.0), strict=True):
        full[number] = ratio * coarse[number]
    found = score_candidates(529, 80, Scores(coarse, full), nowhere)
    assert found[20].score == pytest.approx(2.5 * 20)
    assert found[20].num_matches == 50


def test_none_of_the_best_fifteen_is_an_estimate():
    coarse = [100.0] * 20 + [90.0] * 40
    # The best by half of the patches have nothing by all of them; the others have as much, and one has more.
    full = [1.0] * 20 + [90.0] * 40
    full[55] = 500.0
    scores = Scores(coarse, full)
    found = score_candidates(529, 60, scores, nowhere)
    best_first = sorted(range(60), key=lambda number: -found[number].score)
    assert set(best_first[:15]) <= scores.in_full
    assert all(found[number].score == full[number] for number in scores.in_full)


def test_the_best_ten_elsewhere_are_no_estimates_either():
    # By half of the patches 0 to 29 are far ahead. Elsewhere than the best, 0, are those from 30 on.
    coarse = [100.0 - number for number in range(80)]
    scores = Scores(coarse, [2.0 * value for value in coarse])
    score_candidates(529, 80, scores, lambda best: set(range(30, 80)) if best == 0 else set())
    # The best 20 are 0 to 19, of the rest the sixth and every tenth from it; then 30 to 39, less 35 of the sample.
    assert scores.asked[1:] == [
        ([*range(20), 25, 35, 45, 55, 65, 75], False),
        ([30, 31, 32, 33, 34, 36, 37, 38, 39], False),
    ]


def test_candidates_without_any_match_stay_without():
    found = score_candidates(529, 60, Scores([0.0] * 60, [0.0] * 60), nowhere)
    assert {item.score for item in found} == {0.0}


def test_every_other_cell_is_black_on_a_checkerboard():
    cells = np.array([(x, y) for y in range(3) for x in range(4)], np.uint8)
    codes = np.arange(24, dtype=np.int8).reshape(12, 2)
    half = LocalFeatures(codes, cells).every_other
    assert half.cells_xy.tolist() == [[0, 0], [2, 0], [1, 1], [3, 1], [0, 2], [2, 2]]
    assert half.codes.tolist() == codes[[0, 2, 5, 7, 8, 10]].tolist()


def test_scores_by_every_other_cell_count_its_matches_alone():
    cells = np.array([(x, y) for y in range(2) for x in range(4)], np.uint8)
    query = LocalFeatures(7 * np.eye(8, dtype=np.int8), cells)
    reranker = Reranker(RerankConfig("count"))
    assert reranker.score(query, [query])[0].num_matches == 8
    assert reranker.score(query, [query], every_other=True)[0].num_matches == 4


def test_without_norms_products_are_compared_as_if_all_codes_had_the_usual_one():
    # Of codes of length 4 it is 7 / 2.5 * 2 = 5.6: 5 x 5 are 0.797 of its square, and 4 x 5 + 1 x 0 are 0.638.
    cells = np.array([(0, 0), (2, 0)], np.uint8)
    query = LocalFeatures(np.array([[5, 0, 0, 0], [0, 5, 0, 0]], np.int8), cells)
    candidate = LocalFeatures(np.array([[4, 1, 0, 0], [0, 5, 0, 0]], np.int8), cells)
    matches = match_candidates(query, [candidate], 0.6, norms=False)
    assert matches.candidate_index.tolist() == [[0, 1]]
    assert matches.similarity[0] == pytest.approx([20 / 5.6**2, 25 / 5.6**2])
    assert match_candidates(query, [candidate], 0.7, norms=False).candidate_index.tolist() == [[-1, 1]]
    # By cosines the first pair has 20 / (5 sqrt(17)) = 0.970.
    assert match_candidates(query, [candidate], 0.95).candidate_index.tolist() == [[0, 1]]
