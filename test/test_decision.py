"""Decisions and covariances worked by hand."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from effovpr_ros.errors import ConfigError
from effovpr_ros.mapping.place import Candidate, GeoPoint, Place, Pose
from effovpr_ros.recognition.config import RecognizerConfig
from effovpr_ros.recognition.decision import (
    Status,
    bearing_offset,
    best_rival,
    decide_by_score,
    decide_by_similarity,
    distance_between_m,
    is_same_place,
    may_skip_reranking,
    pose_covariance,
)

CONFIG = RecognizerConfig(
    min_similarity_global=0.3,
    min_consensus=0.1,
    match_consensus=0.2,
    min_score_ratio=1.5,
    match_similarity=0.8,
    min_similarity_margin=0.05,
)


def pose_at(x: float, y: float = 0.0, *, z: float = 0.0, yaw: float = 0.0) -> Pose:
    return Pose((x, y, z), (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)))


def place(place_id: int, pose: Pose | None = None, *, geo: GeoPoint | None = None, session: str = "a") -> Place:
    return Place(place_id, session, 0, f"{place_id}.jpg", pose, geo, (64, 48))


def candidate(place_id: int, x: float, score: float = 0.0, similarity: float = 0.9) -> Candidate:
    """All matches agree on one displacement."""
    return Candidate(place(place_id, pose_at(x)), similarity, round(score), round(score), score)


def test_same_place_by_pose_is_three_dimensional():
    assert is_same_place(place(1, pose_at(0)), place(900, pose_at(3, 4), session="b"), CONFIG)
    assert not is_same_place(place(1, pose_at(0)), place(2, pose_at(3, 4.1)), CONFIG)
    assert not is_same_place(place(1, pose_at(0)), place(2, pose_at(0, z=6.0)), CONFIG)


def test_same_place_by_geo_tag_in_metres():
    here = place(1, geo=GeoPoint(60.0, 10.0, 0.0))
    # At 60 degrees north a degree of longitude is half of 111.32 km.
    east = place(2, geo=GeoPoint(60.0, 10.0001, 50.0))
    assert distance_between_m(here, east) == pytest.approx(5.566, abs=0.01)
    assert not is_same_place(here, east, CONFIG)
    assert is_same_place(here, place(3, geo=GeoPoint(60.00004, 10.0, 0.0)), CONFIG)


def test_geo_distance_across_the_180th_meridian():
    west, east = place(1, geo=GeoPoint(0.0, -179.99999, 0.0)), place(2, geo=GeoPoint(0.0, 179.99999, 0.0))
    assert distance_between_m(west, east) == pytest.approx(2.226, abs=0.001)


def test_same_place_by_id_where_positions_are_unknown():
    assert is_same_place(place(10), place(13), CONFIG)
    assert not is_same_place(place(10), place(14), CONFIG)
    assert not is_same_place(place(10), place(11, session="b"), CONFIG)
    assert is_same_place(place(10, pose_at(0)), place(11), CONFIG)


def test_best_rival_passes_over_supporters():
    ranked = [candidate(1, 0, 50), candidate(2, 1, 40), candidate(9, 30, 20), candidate(10, 60, 10)]
    rival = best_rival(ranked, CONFIG)
    assert rival is not None
    assert rival.place.place_id == 9
    assert best_rival(ranked[:2], CONFIG) is None
    assert best_rival([], CONFIG) is None


@pytest.mark.parametrize(
    ("best", "rival", "status", "said"),
    [
        (40, 20, Status.MATCH, "2.00 times"),
        (40, 0, Status.MATCH, "inf times"),
        (30, 20, Status.MATCH, "1.50 times"),
        (29, 20, Status.AMBIGUOUS, "min_score_ratio 1.5"),
        (19, 1, Status.AMBIGUOUS, "match_consensus 0.2"),
        (10, 1, Status.AMBIGUOUS, "(0.100)"),
        (9, 1, Status.NO_MATCH, "min_consensus 0.1"),
    ],
)
def test_status_by_score(best: int, rival: int, status: Status, said: str):
    decision = decide_by_score([candidate(1, 0, best), candidate(2, 1, best), candidate(9, 30, rival)], 100, CONFIG)
    assert decision.status is status
    assert said in decision.reason
    assert (decision.confidence >= 0.5) == (status is Status.MATCH)


def test_many_matches_that_agree_on_nothing_are_no_match():
    scattered = Candidate(place(1, pose_at(0)), 0.9, 60, 9, 60.0)
    decision = decide_by_score([scattered, candidate(9, 30, 20)], 100, CONFIG)
    assert decision.status is Status.NO_MATCH
    assert "9 of 100 keypoints agree (0.090)" in decision.reason


def test_match_without_a_rival():
    decision = decide_by_score([candidate(1, 0, 40)], 100, CONFIG)
    assert decision.status is Status.MATCH
    # x = 0.4 / 0.2 = 2: 8 / 9.
    assert decision.confidence == pytest.approx(8 / 9)


def test_refusals_without_evidence_say_why():
    assert "no candidate" in decide_by_score([], 100, CONFIG).reason
    assert "no keypoints" in decide_by_score([candidate(1, 0, 0)], 0, CONFIG).reason
    weak = decide_by_score([candidate(1, 0, 90, similarity=0.2)], 100, CONFIG)
    assert "0.200 (place 1) is below min_similarity_global 0.3" in weak.reason
    for decision in (decide_by_score([], 9, CONFIG), decide_by_similarity([], CONFIG), weak):
        assert (decision.status, decision.confidence) == (Status.NO_MATCH, 0.0)


def test_confidence_grows_with_evidence_and_with_lead():
    by_score = [
        decide_by_score([candidate(1, 0, score), candidate(9, 30, 20)], 100, CONFIG).confidence
        for score in range(0, 101, 5)
    ]
    assert by_score == sorted(by_score)
    by_rival = [
        decide_by_score([candidate(1, 0, 60), candidate(9, 30, rival)], 100, CONFIG).confidence
        for rival in range(60, -1, -5)
    ]
    assert by_rival == sorted(by_rival)
    assert 0.0 <= min(by_score + by_rival) < 0.2 < 0.8 < max(by_score + by_rival) <= 1.0


@pytest.mark.parametrize(
    ("best", "rival", "status"),
    [
        (0.90, 0.80, Status.MATCH),
        (0.90, 0.86, Status.AMBIGUOUS),
        (0.79, 0.50, Status.AMBIGUOUS),
        (0.29, 0.10, Status.NO_MATCH),
    ],
)
def test_status_by_similarity(best: float, rival: float, status: Status):
    ranked = [candidate(1, 0, similarity=best), candidate(9, 30, similarity=rival)]
    decision = decide_by_similarity(ranked, CONFIG)
    assert decision.status is status
    assert (decision.confidence >= 0.5) == (status is Status.MATCH)


def test_similarity_match_without_a_rival():
    assert decide_by_similarity([candidate(1, 0, similarity=0.9)], CONFIG).status is Status.MATCH


def test_reranking_is_skipped_only_on_a_clear_lead_over_another_place():
    ranked = [
        candidate(1, 0, similarity=0.9),
        candidate(2, 1, similarity=0.89),
        candidate(9, 30, similarity=0.7),
    ]
    assert may_skip_reranking(ranked, RecognizerConfig(skip_margin=0.19))
    assert not may_skip_reranking(ranked, RecognizerConfig(skip_margin=0.21))
    assert not may_skip_reranking(ranked, RecognizerConfig(skip_margin=0.0))
    assert not may_skip_reranking(ranked[:2], RecognizerConfig(skip_margin=0.01))
    assert not may_skip_reranking([], RecognizerConfig(skip_margin=0.01))


def test_covariance_of_one_supporter_is_the_floor():
    covariance = pose_covariance([candidate(1, 0, 50), candidate(9, 30, 50)], CONFIG)
    np.testing.assert_allclose(np.diag(covariance), [0.25, 0.25, 0.25, 0.17**2, 0.17**2, 0.17**2])


def test_covariance_adds_the_spread_of_supporters_weighted_by_score():
    ranked = [candidate(1, 0, 60), Candidate(place(2, pose_at(2.0, 1.0, yaw=0.5)), 0.9, 20, 20, 20.0)]
    variances = np.diag(pose_covariance(ranked, CONFIG))
    # A quarter of the weight lies 2 m ahead, 1 m aside, turned by 0.5 rad.
    np.testing.assert_allclose(
        variances, [0.25 + 1.0, 0.25 + 0.25, 0.25, 0.17**2, 0.17**2, 0.17**2 + 0.0625], rtol=1e-9
    )


def test_covariance_wraps_yaw_and_weights_by_similarity_without_scores():
    ranked = [
        Candidate(place(1, pose_at(0, yaw=math.pi - 0.1)), 0.5),
        Candidate(place(2, pose_at(0, yaw=-math.pi + 0.1)), 0.5),
    ]
    assert pose_covariance(ranked, CONFIG)[5, 5] == pytest.approx(0.17**2 + 0.02)


def test_an_unknown_heading_is_published_as_unknown():
    photo = Candidate(place(1, pose_at(3.0), geo=GeoPoint(50.0, 8.0)), 0.9, 50, 50, 50.0)
    np.testing.assert_allclose(np.diag(pose_covariance([photo], CONFIG)), [0.25] * 3 + [math.pi**2] * 3)
    turned = Candidate(place(1, pose_at(3.0, yaw=1.0), geo=GeoPoint(50.0, 8.0)), 0.9, 50, 50, 50.0)
    assert pose_covariance([turned], CONFIG)[5, 5] == pytest.approx(0.17**2)


def test_covariance_is_diagonal_positive_definite_and_symmetric():
    rng = np.random.default_rng(0)
    ranked = [
        Candidate(place(i, pose_at(*rng.normal(size=2), yaw=rng.uniform(-3, 3))), 0.5, 5, 5, float(9 - i))
        for i in range(9)
    ]
    covariance = pose_covariance(ranked, CONFIG)
    assert covariance.shape == (6, 6)
    assert (covariance >= 0.0).all()
    assert (covariance == np.diag(np.diag(covariance))).all()
    assert (np.linalg.eigvalsh(covariance) > 0.0).all()


def test_bearing_offset_is_a_fraction_of_the_width():
    assert bearing_offset((4.6, -3.0), (23, 23)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "bad",
    [
        {"top_k": 0},
        {"score": "sum"},
        {"min_consensus": -0.1},
        {"min_score_ratio": 0.9},
        {"min_position_std_m": 0.0},
        {"same_place_radius_m": float("nan")},
        {"min_consensus": 0.5, "match_consensus": 0.4},
    ],
)
def test_impossible_settings_are_refused_by_name(bad: dict[str, float | str]):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        RecognizerConfig(**bad)


def test_every_setting_describes_itself_and_holds_its_own_default():
    for entry in fields(RecognizerConfig):
        assert entry.metadata["description"].endswith("."), entry.name
        if not isinstance(entry.default, bool):
            assert {"min", "max"} <= set(entry.metadata) or "choices" in entry.metadata, entry.name
