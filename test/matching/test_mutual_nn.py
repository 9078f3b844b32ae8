"""Mutual nearest neighbours: hand-worked pairs, and the batched computation against a plain double loop."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from effovpr_ros.core.errors import DescriptorShapeError
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching import mutual_nn
from effovpr_ros.matching.mutual_nn import match_candidates, mutual_nearest_neighbours


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


def test_pairs_worked_by_hand():
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    candidate = torch.tensor([[0.0, 1.0], [0.8, 0.6]])
    # cosines: q0 (0, .8), q1 (1, .6), q2 (.8, .96). c0 chooses q1, c1 chooses q2; q0 chooses c1 in vain.
    assert mutual_nearest_neighbours(query, candidate, 0.65).tolist() == [[1, 0], [2, 1]]


def test_threshold_is_exclusive():
    query, candidate = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert mutual_nearest_neighbours(query, candidate, 0.5).tolist() == []
    assert mutual_nearest_neighbours(query, candidate, 0.4999).tolist() == [[0, 0]]


def test_ties_choose_the_lowest_index_on_both_sides():
    one, two = torch.eye(2)[:1], torch.eye(2)[[0, 0]]
    assert mutual_nearest_neighbours(one, two, 0.5).tolist() == [[0, 0]]
    assert mutual_nearest_neighbours(two, one, 0.5).tolist() == [[0, 0]]
    assert mutual_nearest_neighbours(two, two, 0.5).tolist() == [[0, 0]]


@pytest.mark.parametrize(("num_query", "num_candidate"), [(0, 3), (3, 0), (0, 0)])
def test_empty_sets_have_no_pairs(num_query: int, num_candidate: int):
    pairs = mutual_nearest_neighbours(torch.ones(num_query, 4), torch.ones(num_candidate, 4), 0.0)
    assert pairs.shape == (0, 2)
    assert pairs.dtype == torch.int64


def test_nan_never_matches():
    query = torch.tensor([[float("nan"), 0.0], [0.0, 1.0]])
    assert mutual_nearest_neighbours(query, torch.tensor([[0.0, 1.0]]), 0.5).tolist() == []


def test_widths_that_differ_are_refused_by_name():
    with pytest.raises(DescriptorShapeError, match=r"\(2, 4\).*\(2, 5\)"):
        mutual_nearest_neighbours(torch.ones(2, 4), torch.ones(2, 5), 0.5)
    candidates = [local_features(np.ones((2, 4))), local_features(np.ones((2, 5)))]
    with pytest.raises(DescriptorShapeError, match="candidate 1"):
        match_candidates(candidates[0], candidates, 0.5)


@pytest.mark.parametrize("sizes", [[5, 5, 5], [0, 7, 1, 0, 40, 3], [600, 600, 10, 1030, 2], [0, 0]])
@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.65])
def test_batched_equals_quadratic_reference_with_ties_and_ragged_sizes(sizes: list[int], threshold: float):
    rng = np.random.default_rng(3)
    query = random_features(rng, 12)
    candidates = [random_features(rng, size) for size in sizes]
    matches = match_candidates(query, candidates, threshold)
    assert matches.candidate_index.shape == matches.similarity.shape == (len(sizes), 12)
    for row, candidate in enumerate(candidates):
        expected = quadratic_reference(query, candidate, threshold)
        found = [(n, int(m)) for n, m in enumerate(matches.candidate_index[row]) if m >= 0]
        assert found == expected
        for n, m in expected:
            assert matches.similarity[row, n] == query.codes[n] @ candidate.codes[m] / 4
        assert not matches.similarity[row, matches.candidate_index[row] < 0].any()


def test_padding_is_never_a_neighbour():
    query = local_features(np.array([[1.0, 0.0]]))
    # Computed beside a set of three, the lone descriptor must win although its cosine is below that of zeros.
    candidates = [local_features(np.array([[-1, 1]])), local_features(np.ones((3, 2)))]
    matches = match_candidates(query, candidates, -1.0)
    assert matches.candidate_index.tolist() == [[0], [0]]
    assert matches.similarity.ravel() == pytest.approx([-(0.5**0.5), 0.5**0.5])


def test_batched_equals_pairwise_on_general_descriptors():
    rng = np.random.default_rng(5)

    def unit(count: int) -> LocalFeatures:
        return local_features(np.rint(3 * rng.normal(size=(count, 32))).clip(-7, 7))

    query, candidates = unit(50), [unit(size) for size in (60, 0, 31, 50, 300, 800, 7)]
    matches = match_candidates(query, candidates, 0.2)
    assert (matches.candidate_index >= 0).sum() > 50
    for row, candidate in enumerate(candidates):
        pairs = mutual_nearest_neighbours(
            torch.tensor(query.descriptors), torch.tensor(candidate.descriptors), 0.2
        ).numpy()
        expected = np.full(50, -1)
        expected[pairs[:, 0]] = pairs[:, 1]
        np.testing.assert_array_equal(matches.candidate_index[row], expected)


@pytest.mark.parametrize("rows", [1, 22, 23, 24, 46, 60])
def test_of_equal_keypoints_the_first_is_chosen_wherever_the_second_is(rows: int):
    # The query's two axes; in the candidate each stands twice, the second time last, and all else is their mean.
    query = local_features(np.array([[5, 0], [0, 5]]))
    for first in {0, rows // 2, rows - 1}:
        codes = np.full((rows + 1, 2), 3)
        codes[[first, rows]] = (7, 0)
        assert match_candidates(query, [local_features(codes)], 0.8).candidate_index.tolist() == [[first, -1]]


def test_an_equal_that_prefers_another_is_in_nobodys_way():
    # Keypoint 0 is as similar to the query's second keypoint as keypoint 40 is, but more so to the first. Nothing is
    # nearer to the second than 40, and nothing nearer to 40 than the second.
    query = local_features(np.array([[1, 1, 1, 1], [1, 1, 1, -1]]))
    codes = np.zeros((50, 4))
    codes[0], codes[40] = (1, 1, 1, 1), (-1, 1, 1, -1)
    matches = match_candidates(query, [local_features(codes)], 0.4)
    assert matches.candidate_index.tolist() == [[0, 40]]
    assert matches.similarity.tolist() == [[1.0, 0.5]]


def test_no_candidates_and_no_keypoints_give_empty_matches():
    query = local_features(np.ones((3, 4)))
    assert match_candidates(query, [], 0.5).candidate_index.shape == (0, 3)
    nothing = local_features(np.empty((0, 4)))
    assert match_candidates(nothing, [query, query], 0.5).candidate_index.shape == (2, 0)


def test_read_only_codes_are_matched_without_a_warning():
    codes = np.eye(3, 4, dtype=np.int8)
    codes.flags.writeable = False
    features = LocalFeatures(codes, np.zeros((3, 2), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matches = match_candidates(features, [features], 0.5)
    assert matches.candidate_index.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("integer", [True, False])
def test_integer_kernel_and_float_fallback_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch, integer: bool):
    rng = np.random.default_rng(7)
    query, *candidates = (local_features(rng.integers(-7, 8, (size, 384))) for size in (90, 80, 3, 200))
    monkeypatch.setattr(mutual_nn, "has_integer_kernel", lambda: integer)
    matches = match_candidates(query, candidates, -1.0)
    for row, candidate in enumerate(candidates):
        exact = candidate.codes.astype(np.int64) @ query.codes.T.astype(np.int64)
        cosine = exact / np.outer(*(np.linalg.norm(item.codes.astype(float), axis=1) for item in (candidate, query)))
        nearest = cosine.argmax(axis=0)
        mutual = cosine.argmax(axis=1)[nearest] == np.arange(90)
        np.testing.assert_array_equal(matches.candidate_index[row], np.where(mutual, nearest, -1))
        np.testing.assert_allclose(matches.similarity[row], np.where(mutual, cosine.max(axis=0), 0.0), atol=1e-6)


def test_same_input_same_output():
    rng = np.random.default_rng(11)
    query, candidates = random_features(rng, 40), [random_features(rng, size) for size in (30, 0, 90)]
    first, second = (match_candidates(query, candidates, 0.1) for _ in range(2))
    np.testing.assert_array_equal(first.candidate_index, second.candidate_index)
    np.testing.assert_array_equal(first.similarity, second.similarity)
