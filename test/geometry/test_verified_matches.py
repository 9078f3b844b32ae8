"""Verified matches: values worked out by hand, shifts that are known, and input that verifies nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from effovpr_ros.engines.agreement import scene
from effovpr_ros.geometry import verified_matches
from effovpr_ros.geometry.points import DESCRIPTOR_SCALE, SIFT, XFEAT, PointExtractor, Points, no_points
from effovpr_ros.geometry.verified_matches import mutual_matches, verify, with_fundamental

SIZE = (640, 480)
UNIT = int(DESCRIPTOR_SCALE[XFEAT])


def points(descriptors: list[list[float]], xy: list[list[float]] | None = None, kind: str = XFEAT) -> Points:
    """Points whose descriptors have the given leading entries and zeros behind."""
    codes = np.zeros((len(descriptors), 64 if kind == XFEAT else 128), np.int8)
    for row, values in enumerate(descriptors):
        codes[row, : len(values)] = np.rint(np.array(values) * 127)
    places = np.array(xy if xy is not None else [[row, row] for row in range(len(descriptors))], np.float32)
    return Points(kind, places.reshape(-1, 2), codes, SIZE)


def numbered(xy: np.ndarray, size_wh: tuple[int, int] = SIZE) -> Points:
    """Points that each have a descriptor of their own, the same at every call: nothing but the geometry differs."""
    codes = np.random.default_rng(1).normal(0.0, 1.0, (len(xy), 64))
    codes *= UNIT / np.linalg.norm(codes, axis=1, keepdims=True)
    return Points(XFEAT, np.asarray(xy, np.float32), np.clip(np.rint(codes), -127, 127).astype(np.int8), size_wh)


def spread(count: int = 60, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform((20, 20), (600, 440), (count, 2))


def test_mutual_neighbours_by_hand(monkeypatch: pytest.MonkeyPatch):
    """Scale 127: a cosine is a product over 127^2.

    Query 0 = (1, 0), 1 = (0, 1), 2 = (0.6, 0.8); candidate 0 = (0, 1), 1 = (0.8, 0.6), 2 = (-1, 0).
    Cosines of candidate 0: 0, 1, 0.8, so it chooses query 1, whose nearest it is (1 > 0.6).
    Candidate 1: 0.8, 0.6, 0.96, so it chooses query 2, whose nearest it is (0.96 > 0.8).
    Candidate 2: -1, 0, -0.6, so it chooses query 1, which prefers candidate 0.
    """
    monkeypatch.setitem(verified_matches.DESCRIPTOR_SCALE, XFEAT, 127.0)
    query, candidate = points([[1, 0], [0, 1], [0.6, 0.8]]), points([[0, 1], [0.8, 0.6], [-1, 0]])
    query_index, candidate_index, similarity = mutual_matches(query, candidate)
    assert query_index.tolist() == [1, 2]
    assert candidate_index.tolist() == [0, 1]
    # (76, 102) . (102, 76) = 15504, over 16129.
    assert similarity.tolist() == pytest.approx([1.0, 15504 / 16129], abs=1e-6)
    # 0.8 alone is below the least cosine.
    assert len(mutual_matches(points([[1, 0]]), points([[0.8, 0.6]]))[0]) == 0


def test_equals_have_one_partner_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(verified_matches.DESCRIPTOR_SCALE, XFEAT, 127.0)
    one = [1.0, 0.0]
    query_index, candidate_index, _ = mutual_matches(points([one, one, one]), points([one, one]))
    assert query_index.tolist() == [0]
    assert candidate_index.tolist() == [0]


def test_without_8_bit_instructions_the_same_pairs(monkeypatch: pytest.MonkeyPatch):
    query, candidate = numbered(spread()), numbered(spread()).strongest(40)
    fast = mutual_matches(query, candidate)
    monkeypatch.setattr(verified_matches, "has_integer_kernel", lambda: False)
    for with_kernel, without in zip(fast, mutual_matches(query, candidate), strict=True):
        np.testing.assert_array_equal(with_kernel, without)


def test_a_shifted_plane_agrees_with_its_homography():
    """50 points move by (12, -7), 10 by somewhere else: 50 inliers of both models."""
    here = spread()
    there = here + np.array([12.0, -7.0])
    there[50:] = spread(10, seed=9)
    (found,) = verify(numbered(here), [numbered(there)])
    assert len(found) == 60
    assert found.on_homography.tolist() == [True] * 50 + [False] * 10
    assert found.num_homography == 50
    assert found.num_fundamental is not None and found.num_fundamental >= 50
    np.testing.assert_allclose(found.candidate_xy[:50] - found.query_xy[:50], [[12.0, -7.0]] * 50, atol=1e-4)


def test_depth_agrees_with_the_fundamental_matrix_alone():
    """A sideways step of 0.4 m before points 2 to 12 m away: no homography holds for all, a fundamental matrix does."""
    rng = np.random.default_rng(0)
    depth = rng.uniform(2.0, 12.0, 80)
    here = spread(80)
    there = here - np.column_stack([500.0 * 0.4 / depth, np.zeros(80)])
    (found,) = verify(numbered(here), [numbered(there)])
    assert found.num_fundamental == 80
    assert 8 <= found.num_homography < 75


def test_errors_are_counted_in_pixels_of_the_working_picture():
    """A picture of 1280 x 960 is looked at in half its size: an error of 6 px there is 3 px and an inlier."""
    here = spread() * 2.0
    there = here + np.array([30.0, 10.0])
    there[40:, 1] += 6.0
    large = (1280, 960)
    (found,) = verify(numbered(here, large), [numbered(there, large)])
    assert found.num_homography == 60
    (as_small,) = verify(numbered(here), [numbered(there)])
    assert as_small.num_homography == 40


def test_answers_repeat():
    here, there = spread(), spread(seed=4)
    there[:25] = here[:25] + 5.0
    first, second = (verify(numbered(here), [numbered(there)] * 3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.on_homography, other.on_homography)
        np.testing.assert_array_equal(one.on_fundamental, other.on_fundamental)
    assert first[0].num_homography == first[2].num_homography


@pytest.mark.parametrize(
    "xy",
    [
        spread(7),
        np.column_stack([np.linspace(10, 600, 40), np.linspace(20, 300, 40)]),
        np.full((40, 2), 77.0),
        np.column_stack([np.linspace(10, 600, 40), np.full(40, 50.0)])
        + np.random.default_rng(0).normal(0, 0.3, (40, 2)),
    ],
    ids=["seven", "a line", "one spot", "nearly a line"],
)
def test_what_fits_any_geometry_verifies_nothing(xy: np.ndarray):
    (found,) = verify(numbered(xy), [numbered(xy + 3.0)])
    assert len(found) == len(xy)
    assert found.num_homography == 0
    assert found.num_fundamental == 0


def test_matches_on_which_opencv_fails_verify_nothing():
    # Many points at few spots: of some such sets OpenCV's local optimisation makes no matrix, and it raises.
    generator, counts = np.random.default_rng(0), []
    for _ in range(60):
        spots = generator.uniform((20, 20), (600, 440), (8, 2))
        here = spots[generator.integers(8, size=12)]
        there = here + generator.normal(0.0, 2.0, here.shape)
        (found,) = verify(numbered(here), [numbered(there)])
        counts.append(found.num_fundamental)
    assert all(0 <= count <= 12 for count in counts)
    assert 0 in counts


def test_eight_matches_are_enough():
    here = spread(8)
    (found,) = verify(numbered(here), [numbered(here + 4.0)])
    assert found.num_homography == 8


def test_nothing_to_match():
    some = numbered(spread())
    assert verify(some, []) == []
    empty = no_points(XFEAT, SIZE)
    of_sift = points([[1.0]] * 20, kind=SIFT)
    for query, candidate in ((some, empty), (empty, some), (empty, empty), (some, of_sift)):
        (found,) = verify(query, [candidate])
        assert (len(found), found.num_homography, found.num_fundamental) == (0, 0, 0)


def test_the_fundamental_matrix_where_it_is_asked_for():
    here = spread(60)
    depth = np.random.default_rng(0).uniform(2.0, 12.0, 60)
    query, candidate = numbered(here), numbered(here - np.column_stack([200.0 / depth, np.zeros(60)]))
    found = verify(query, [candidate, candidate], num_fundamental=1)
    assert found[0].num_fundamental == 60
    assert found[1].num_fundamental is None
    later = with_fundamental(query, [(matches, candidate) for matches in found])
    assert later[0] is found[0]
    assert later[1].num_fundamental == 60


@pytest.mark.parametrize("kind", [XFEAT, SIFT])
def test_a_picture_that_is_moved_and_one_that_is_another(kind: str):
    """A warp that is known: inliers lie where it puts them."""
    extractor = PointExtractor(kind=kind)
    picture = scene(0, SIZE)
    warp = np.array([[0.98, 0.03, 14.0], [-0.02, 1.01, -9.0], [1e-5, 2e-5, 1.0]])
    moved = cv2.warpPerspective(picture, warp, SIZE, borderMode=cv2.BORDER_REFLECT)
    same, other = verify(extractor.extract(picture), [extractor.extract(moved), extractor.extract(scene(3, SIZE))])
    assert same.num_homography > 80
    assert same.num_homography > 10 * other.num_homography
    expected = cv2.perspectiveTransform(same.query_xy[same.on_homography][:, None].astype(np.float64), warp)[:, 0]
    assert np.median(np.linalg.norm(expected - same.candidate_xy[same.on_homography], axis=1)) < 1.5
