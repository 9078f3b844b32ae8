"""Mutual nearest neighbours: pairs worked by hand, and each kernel against a plain double loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError, DescriptorShapeError
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching import _scoring
from effovpr_ros.matching.compiled import KERNEL_VARIABLE, kernel_name, kernels
from effovpr_ros.matching.mutual_nn import mutual_nearest_neighbours
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import Reranker


def local_features(codes: NDArray[np.generic]) -> LocalFeatures:
    return LocalFeatures(codes.astype(np.int8), np.zeros((len(codes), 2), np.uint8))


def random_features(rng: np.random.Generator, count: int, width: int = 8) -> LocalFeatures:
    """Codes of four entries of 1 or -1, so that ties are frequent and exact: rounding plays no part."""
    signs = rng.integers(-1, 2, (count, width))
    signs[:, 0] = 1
    signs[:, 4:] = 0
    signs[:, 1:4] = np.where(signs[:, 1:4] == 0, 1, signs[:, 1:4])
    return local_features(signs)


def quadratic_reference(query: LocalFeatures, candidate: LocalFeatures, threshold: float) -> list[tuple[int, int]]:
    """The definition, written as loops: each of the candidate's chooses, the first of equals; so does whom it chose."""
    cosine = (query.descriptors.astype(np.float64) @ candidate.descriptors.astype(np.float64).T).tolist()
    chosen: dict[int, int] = {}
    for m in range(len(candidate)):
        n = max(range(len(query)), key=lambda n: cosine[n][m])
        if cosine[n][m] > threshold and all(cosine[n][m] >= other for other in cosine[n]):
            chosen.setdefault(n, m)
    return sorted(chosen.items())


def pairs(query: LocalFeatures, candidate: LocalFeatures, threshold: float) -> list[tuple[int, int]]:
    index, similarity = mutual_nearest_neighbours(query, candidate.packed, threshold)
    assert not similarity[index < 0].any()
    return [(n, m) for n, m in enumerate(index.tolist()) if m >= 0]


def test_pairs_worked_by_hand():
    query = local_features(np.array([[5, 0], [0, 5], [3, 4]]))
    candidate = local_features(np.array([[0, 7], [4, 3]]))
    # cosines: q0 (0, .8), q1 (1, .6), q2 (.8, .96). c0 chooses q1, c1 chooses q2; q0 chooses c1 in vain.
    assert pairs(query, candidate, 0.65) == [(1, 0), (2, 1)]
    index, similarity = mutual_nearest_neighbours(query, candidate.packed, 0.97)
    assert (index.tolist(), similarity.tolist()) == ([-1, 0, -1], [0.0, 1.0, 0.0])


def test_threshold_is_exclusive():
    query, candidate = local_features(np.array([[1, 1, 1, 1]])), local_features(np.array([[1, 1, 1, -1]]))
    assert pairs(query, candidate, 0.5) == []
    assert pairs(query, candidate, 0.4999) == [(0, 0)]


def test_ties_choose_the_lowest_index_on_both_sides():
    one, two = local_features(np.array([[7, 0]])), local_features(np.array([[7, 0], [7, 0]]))
    assert pairs(one, two, 0.5) == pairs(two, one, 0.5) == pairs(two, two, 0.5) == [(0, 0)]


@pytest.mark.parametrize(("num_query", "num_candidate"), [(0, 3), (3, 0), (0, 0)])
def test_empty_sets_have_no_pairs(num_query: int, num_candidate: int):
    query, candidate = (local_features(np.ones((count, 4))) for count in (num_query, num_candidate))
    index, similarity = mutual_nearest_neighbours(query, candidate.packed, 0.0)
    assert index.tolist() == [-1] * num_query
    assert similarity.tolist() == [0.0] * num_query


def test_a_keypoint_of_zeros_is_like_nothing():
    query = local_features(np.array([[0, 0], [0, 3]]))
    index, similarity = mutual_nearest_neighbours(query, local_features(np.array([[0, 1], [0, 0]])).packed, -1.0)
    # The candidate's zeros have a cosine of 0 with both, of which they choose the first.
    assert (index.tolist(), similarity.tolist()) == ([1, 0], [0.0, 1.0])


def test_widths_that_differ_are_refused_by_name():
    query, wider = local_features(np.ones((2, 4))), local_features(np.ones((2, 6)))
    with pytest.raises(DescriptorShapeError, match=r"candidate 0 .* length 6, the query of 4"):
        mutual_nearest_neighbours(query, wider.packed, 0.5)
    with pytest.raises(DescriptorShapeError, match=r"candidate 1 .* length 6, the query of 4"):
        Reranker(RerankConfig()).score(query, [query.packed, wider.packed])


@pytest.mark.parametrize(
    ("codes", "packed", "cells", "message"),
    [
        (np.full((2, 4), 8), np.zeros((2, 2)), np.zeros((2, 2)), "from -7 to 7"),
        (np.full((2, 4), -8), np.zeros((2, 2)), np.zeros((2, 2)), "from -7 to 7"),
        (np.ones((0, 4)), np.zeros((2, 2)), np.zeros((2, 2)), "N > 0"),
        (np.ones((2, 3)), np.zeros((2, 2)), np.zeros((2, 2)), "C even"),
        (np.ones((2, 4)), np.zeros((2, 3)), np.zeros((2, 2)), r"\(M, C / 2\)"),
        (np.ones((2, 4)), np.zeros((2, 2)), np.zeros((3, 2)), r"cells of a candidate must be \(M, 2\)"),
    ],
)
def test_compiled_code_refuses_what_it_would_read_beyond(
    codes: NDArray[np.float64], packed: NDArray[np.float64], cells: NDArray[np.float64], message: str
):
    query = codes.astype(np.int8), np.zeros((len(codes), 2), np.uint8)
    with pytest.raises(ValueError, match=message):
        _scoring.match(*query, packed.astype(np.uint8), cells.astype(np.uint8), 0.5, "portable")
    with pytest.raises(ValueError, match=message):
        _scoring.score(*query, [(packed.astype(np.uint8), cells.astype(np.uint8))], 0.5, "count", "portable")


# Within and beyond a vector of each kernel, and of what it sums at a time.
@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("num_query", [1, 12, 33])
@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.65])
def test_every_kernel_equals_a_quadratic_reference_with_ties(kernel: str, num_query: int, threshold: float):
    rng = np.random.default_rng(3)
    query = random_features(rng, num_query)
    for size in (1, 2, 5, 7, 40, 600):
        candidate = random_features(rng, size)
        index, similarity = mutual_nearest_neighbours(query, candidate.packed, threshold, kernel)
        expected = quadratic_reference(query, candidate, threshold)
        assert [(n, m) for n, m in enumerate(index.tolist()) if m >= 0] == expected
        for n, m in expected:
            assert similarity[n] == query.codes[n] @ candidate.codes[m] / 4
        assert not similarity[index < 0].any()


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("width", [2, 6, 8, 88, 90, 384, 1536])
def test_every_kernel_is_exact_in_each_width(kernel: str, width: int):
    rng = np.random.default_rng(7)
    query, *candidates = (local_features(rng.integers(-7, 8, (size, width))) for size in (90, 80, 3, 200))
    # The largest sums that there can be.
    extremes = local_features(np.repeat([[7], [-7]], width, axis=1))
    for asked, candidate in [
        *((query, candidate) for candidate in candidates),
        (extremes, extremes),
        (extremes, query),
    ]:
        index, similarity = mutual_nearest_neighbours(asked, candidate.packed, -1.0, kernel)
        exact = (candidate.codes.astype(np.int64) @ asked.codes.T.astype(np.int64)).astype(np.float32)
        # Rounded as descriptors are, so that equals are the same ones.
        cosine = exact * asked.inverse_norms * candidate.inverse_norms[:, None]
        chosen = cosine.argmax(axis=1)
        mutual = cosine[np.arange(len(candidate)), chosen] == cosine.max(axis=0)[chosen]
        wanted = np.full(len(asked), -1)
        for m in np.flatnonzero(mutual)[::-1]:
            wanted[chosen[m]] = m
        np.testing.assert_array_equal(index, wanted)
        np.testing.assert_array_equal(similarity, np.where(wanted < 0, 0.0, cosine.max(axis=0)))


def test_compiled_code_refuses_other_names_and_thresholds():
    one = np.ones((1, 2), np.int8), np.zeros((1, 2), np.uint8)
    with pytest.raises(ValueError, match="no such score"):
        _scoring.score(*one, [], 0.5, "sum", "portable")
    for threshold in (float("nan"), -math.inf, 1.0):
        with pytest.raises(ValueError, match="min_similarity must be in"):
            _scoring.score(*one, [], threshold, "count", "portable")


def test_the_environment_chooses_a_kernel(monkeypatch: pytest.MonkeyPatch):
    assert kernel_name() == kernels()[0]
    monkeypatch.setenv(KERNEL_VARIABLE, "portable")
    assert kernel_name() == "portable"
    monkeypatch.setenv(KERNEL_VARIABLE, "abacus")
    with pytest.raises(ConfigError, match=r"abacus.*portable"):
        Reranker(RerankConfig())
    query = local_features(np.ones((1, 2)))
    with pytest.raises(ValueError, match="abacus"):
        mutual_nearest_neighbours(query, query.packed, 0.5, "abacus")


@pytest.mark.parametrize("rows", [1, 22, 23, 24, 46, 60])
def test_of_equal_keypoints_the_first_is_chosen_wherever_the_second_is(rows: int):
    # The query's two axes; in the candidate each stands twice, the second time last, and all else is their mean.
    query = local_features(np.array([[5, 0], [0, 5]]))
    for first in {0, rows // 2, rows - 1}:
        codes = np.full((rows + 1, 2), 3)
        codes[[first, rows]] = (7, 0)
        assert pairs(query, local_features(codes), 0.8) == [(0, first)]


def test_an_equal_that_prefers_another_is_in_nobodys_way():
    # Keypoint 0 is as similar to the query's second keypoint as keypoint 40 is, but more so to the first. Nothing is
    # nearer to the second than 40, and nothing nearer to 40 than the second.
    query = local_features(np.array([[1, 1, 1, 1], [1, 1, 1, -1]]))
    codes = np.zeros((50, 4))
    codes[0], codes[40] = (1, 1, 1, 1), (-1, 1, 1, -1)
    index, similarity = mutual_nearest_neighbours(query, local_features(codes).packed, 0.4)
    assert (index.tolist(), similarity.tolist()) == ([0, 40], [1.0, 0.5])


def test_read_only_memory_and_rows_with_gaps_are_matched():
    codes = np.eye(3, 4, dtype=np.int8)
    codes.flags.writeable = False
    features = LocalFeatures(codes, np.zeros((3, 2), np.uint8))
    assert pairs(features, features, 0.5) == [(0, 0), (1, 1), (2, 2)]
    apart = LocalFeatures(np.repeat(codes, 2, axis=0)[::2], np.zeros((6, 2), np.uint8)[::2])
    assert pairs(apart, apart, 0.5) == [(0, 0), (1, 1), (2, 2)]
