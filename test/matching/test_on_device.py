"""Scores by the computation for a GPU, here on the CPU: worked by hand, and as `Reranker` gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from effovpr_ros.core.errors import DescriptorShapeError
from effovpr_ros.features.codes import pack
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching import on_device
from effovpr_ros.matching.on_device import CodesOnDevice, score_on_device
from effovpr_ros.matching.rerank_config import SCORES, RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker


def axes(cells_xy: list[tuple[int, int]]) -> LocalFeatures:
    """Keypoints whose descriptors are the axes 0, 1, ... of 16 dimensions."""
    return LocalFeatures(7 * np.eye(16, dtype=np.int8)[: len(cells_xy)], np.array(cells_xy, np.uint8).reshape(-1, 2))


def scores(
    query: LocalFeatures, candidates: Sequence[LocalFeatures], config: RerankConfig, device: str = "cpu"
) -> list[CandidateScore]:
    """As `score_on_device` gives them; before and behind the candidates lie rows of nobody."""
    width = query.codes.shape[1]
    nobody = LocalFeatures(np.full((3, width), 7, np.int8), np.full((3, 2), 200, np.uint8))
    parts = [nobody, *candidates, nobody]
    packed = b"".join(pack(part.codes) for part in parts)
    cells = np.concatenate([part.cells_xy for part in parts])
    codes = CodesOnDevice(
        torch.frombuffer(bytearray(packed), dtype=torch.uint8).view(-1, width // 2).to(device),
        torch.from_numpy(cells).to(device),
        201,
    )
    ends = np.cumsum([len(part) for part in parts])
    count = np.array([len(candidate) for candidate in candidates], np.int64)
    return score_on_device(query, codes, ends[:-2], count, config)


def require_equal(found: Sequence[CandidateScore], wanted: Sequence[CandidateScore]) -> None:
    assert [(item.num_matches, item.num_consistent) for item in found] == [
        (item.num_matches, item.num_consistent) for item in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-9, abs=1e-9)
        assert one.displacement_xy_cells == pytest.approx(other.displacement_xy_cells, abs=1e-12)


QUERY = axes([(5, 5), (6, 5), (7, 7), (8, 5), (20, 20)])
# Displacements query - candidate: (2, 1), (3, 1), (4, 2), (2, 1), (2, 1).
MOVED = axes([(3, 4), (3, 4), (3, 5), (6, 4), (18, 19)])
EMPTY = axes([])


@pytest.mark.parametrize(
    ("score", "wanted"),
    [
        # 0 and 1 are neighbours that moved alike, as are 1 and 2, and 1 and 3; all five lie around (3, 1).
        ("coherent", math.log(2) + 3 * math.log(3) + math.log(5) + 5),
        ("count", 5.0),
        ("weighted", 5.0),
        ("spatial", 5.0),
    ],
)
def test_scores_worked_by_hand(score: str, wanted: float):
    found, nothing = scores(QUERY, [MOVED, EMPTY], RerankConfig(score))
    assert found.score == pytest.approx(wanted, rel=1e-6 if score == "weighted" else 1e-12)
    assert (found.num_matches, found.num_consistent) == (5, 5)
    assert found.displacement_xy_cells == pytest.approx((2.6, 1.2))
    assert nothing == CandidateScore(0.0, 0, 0, (0.0, 0.0))


def test_cosines_are_weighed_by_what_exceeds_the_threshold():
    query = LocalFeatures(np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.int8), np.array([[0, 0], [1, 0]], np.uint8))
    candidate = LocalFeatures(np.array([[3, 0, 4, 0], [0, 4, 3, 0]], np.int8), query.cells_xy)
    # Cosines 0.6 and 0.8: (0.6 - 0.5) / 0.5 + (0.8 - 0.5) / 0.5.
    assert scores(query, [candidate], RerankConfig("weighted", 0.5))[0].score == pytest.approx(0.8, abs=1e-6)
    # A pair at the threshold is none.
    assert scores(query, [candidate], RerankConfig("count", 0.75))[0].num_matches == 1


def test_of_equals_the_first_is_matched_on_both_sides():
    query = LocalFeatures(np.array([[5, 0], [5, 0]], np.int8), np.array([[9, 9], [0, 0]], np.uint8))
    candidate = LocalFeatures(np.array([[7, 0], [7, 0], [7, 0]], np.int8), np.array([[4, 7], [1, 1], [2, 2]], np.uint8))
    found = scores(query, [candidate], RerankConfig("count"))[0]
    assert (found.num_matches, found.displacement_xy_cells) == (1, (5.0, 2.0))


def test_equal_sums_go_to_the_fuller_centre_then_to_the_smaller_row_and_column():
    # Displacements (0, 0) and (1, 0), and twice (5, 5): two in either window, and two in the centre of the second.
    query = axes([(0, 0), (1, 0), (6, 6), (7, 7)])
    found = scores(query, [axes([(0, 0), (0, 0), (1, 1), (2, 2)])], RerankConfig("spatial"))[0]
    assert (found.num_consistent, found.displacement_xy_cells) == (2, (5.0, 5.0))
    # Displacements (0, 0) and (9, 9), one each and each its own centre: the smaller row.
    found = scores(axes([(9, 9), (0, 0)]), [axes([(0, 0), (0, 0)])], RerankConfig("spatial"))[0]
    assert (found.num_consistent, found.displacement_xy_cells) == (1, (0.0, 0.0))
    # Two windows of two without a centre; that around (10, 0) and (12, 0) reaches one row higher.
    query = axes([(20, 20), (30, 20), (40, 20), (50, 20)])
    found = scores(query, [axes([(10, 20), (18, 20), (40, 20), (48, 19)])], RerankConfig("spatial"))[0]
    assert (found.num_consistent, found.displacement_xy_cells) == (2, (11.0, 0.0))


def test_no_keypoints_and_no_candidates():
    zero = CandidateScore(0.0, 0, 0, (0.0, 0.0))
    assert scores(QUERY, [], RerankConfig()) == []
    assert scores(QUERY, [EMPTY, EMPTY], RerankConfig()) == [zero, zero]
    assert scores(EMPTY, [MOVED], RerankConfig()) == [zero]


def test_codes_of_another_length_are_refused():
    codes = CodesOnDevice(torch.zeros((2, 4), dtype=torch.uint8), torch.zeros((2, 2), dtype=torch.uint8), 1)
    with pytest.raises(DescriptorShapeError, match="length 8, the query of 16"):
        score_on_device(QUERY, codes, np.zeros(1, np.int64), np.full(1, 2), RerankConfig())


def grid_features(rng: np.random.Generator, size: int, width: int, *, few: bool) -> LocalFeatures:
    """Keypoints in some cells of 23 x 23; of few values, ties are frequent."""
    cells = np.stack(np.meshgrid(np.arange(23), np.arange(23)), -1).reshape(-1, 2).astype(np.uint8)
    codes = rng.integers(-1, 2, (size, width)) if few else np.rint(3 * rng.normal(size=(size, width))).clip(-7, 7)
    return LocalFeatures(codes.astype(np.int8), cells[np.sort(rng.permutation(529)[:size])])


@pytest.mark.parametrize("few", [True, False], ids=["ties", "general"])
@pytest.mark.parametrize("score", SCORES)
def test_candidates_of_all_sizes_are_scored_as_by_the_reranker(score: str, few: bool, monkeypatch: pytest.MonkeyPatch):
    # Blocks of some candidates each.
    monkeypatch.setattr(on_device, "_BLOCK_ROWS", 700)
    rng = np.random.default_rng(2)
    width = 8 if few else 32
    query = grid_features(rng, 150, width, few=few)
    candidates = [grid_features(rng, size, width, few=few) for size in (150, 0, 1, 529, 7, *[149] * 6, 0, 300)]
    # One that moved by two columns, with noise where that leaves them alike.
    noise = 0 if few else rng.integers(-1, 2, query.codes.shape)
    codes = np.clip(query.codes + noise, -7, 7).astype(np.int8)
    candidates.append(LocalFeatures(codes, query.cells_xy + np.array([2, 0], np.uint8)))
    config = RerankConfig(score, 0.3)
    wanted = Reranker(config).score(query, [candidate.packed for candidate in candidates])
    assert sum(item.num_matches for item in wanted) > 100
    assert wanted[-1].num_consistent > 60
    require_equal(scores(query, candidates, config), wanted)


def test_a_row_of_zeros_matches_nothing():
    query = axes([(0, 0), (1, 0)])
    candidate = LocalFeatures(np.zeros((2, 16), np.int8), query.cells_xy)
    assert scores(query, [candidate], RerankConfig(min_similarity=0.0))[0].num_matches == 0
