"""Decisions and covariances worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.confidence import ConfidenceModel
from effovpr_ros.recognition.decision import (
    DecidedBy,
    Decision,
    Status,
    bearing_offset,
    decide,
    may_skip_reranking,
    pose_covariance,
)
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

CONFIG = RecognizerConfig()


def pose_at(x: float, y: float = 0.0, *, z: float = 0.0, yaw: float = 0.0) -> Pose:
    return Pose((x, y, z), (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)))


def place(place_id: int, pose: Pose | None = None, *, geo: GeoPoint | None = None) -> Place:
    return Place(place_id, "a", 0, f"{place_id}.jpg", pose, geo, (64, 48))


def candidate(place_id: int, x: float, score: float = 0.0, similarity: float = 0.9) -> Candidate:
    """A match a point of the score; all but five of them agree on one displacement."""
    return Candidate(place(place_id, pose_at(x)), similarity, round(score), max(round(score) - 5, 0), score)


def judge(
    candidates: Sequence[Candidate], *, config: RecognizerConfig = CONFIG, match_confidence: float = 0.8
) -> Decision:
    """Log-odds of (similarity - 0.5) times ten: 0.5 at 0.5, 0.881 at 0.7, 0.119 at 0.3."""
    calibration = ConfidenceModel("by hand", (10.0, 0.0, 0.0, 0.0, 0.0, 0.0), -5.0, match_confidence, 0.99, "", 9, 0.0)
    return decide(candidates, 100, config, calibration)


@pytest.mark.parametrize(
    ("similarity", "status", "said"),
    [
        (0.7, Status.MATCH, "confidence 0.881, at least 0.800"),
        (0.5, Status.AMBIGUOUS, "confidence 0.500 is below 0.800"),
        (0.3, Status.AMBIGUOUS, "confidence 0.119 is below 0.800"),
        (0.2, Status.NO_MATCH, "confidence 0.047 is below min_confidence 0.100"),
    ],
)
def test_status_by_confidence(similarity: float, status: Status, said: str):
    decision = judge([candidate(1, 0, similarity=similarity)])
    assert decision.status is status
    assert decision.reason.endswith(f"; {said}")
    assert decision.confidence == pytest.approx(1.0 / (1.0 + math.exp(5.0 - 10.0 * similarity)), rel=1e-12)
    assert decision.decided_by is DecidedBy.SINGLE_IMAGE


def test_equal_to_a_threshold_is_enough():
    # The log-odds are 0 exactly.
    ranked = [candidate(1, 0, similarity=0.5)]
    assert judge(ranked, match_confidence=0.5).status is Status.MATCH
    assert judge(ranked, config=RecognizerConfig(min_confidence=0.5)).status is Status.AMBIGUOUS


def test_what_is_below_a_threshold_never_reads_as_equal_to_it():
    ranked = [candidate(1, 0, similarity=0.5)]
    assert judge(ranked, match_confidence=0.5002).reason.endswith("; confidence 0.500 is below 0.501")
    # 0.4998 by a hair less of similarity; and 0.069 * 1000 is a little more than 69 in floating point.
    ranked = [candidate(1, 0, similarity=0.49992)]
    assert judge(ranked, match_confidence=0.5).reason.endswith("; confidence 0.499 is below 0.500")
    ranked = [candidate(1, 0, similarity=0.2)]
    refused = judge(ranked, config=RecognizerConfig(min_confidence=0.069)).reason
    assert refused.endswith("; confidence 0.047 is below min_confidence 0.069")


def test_a_set_threshold_comes_before_the_calibration_s():
    ranked = [candidate(1, 0, similarity=0.7)]
    assert judge(ranked, config=RecognizerConfig(match_confidence=0.9)).status is Status.AMBIGUOUS
    assert judge(ranked, config=RecognizerConfig(match_confidence=0.88), match_confidence=0.99).status is Status.MATCH
    assert judge(ranked, config=RecognizerConfig(match_confidence=0.0), match_confidence=0.99).status is (
        Status.AMBIGUOUS
    )
    # A precision that was never reached makes no MATCH of anything.
    assert judge([candidate(1, 0, similarity=1e9)], match_confidence=1.0).status is Status.AMBIGUOUS


def test_below_min_confidence_is_no_match_even_where_the_calibration_asks_for_less():
    decision = judge([candidate(1, 0, similarity=0.2)], match_confidence=0.04)
    assert (decision.status, round(decision.confidence, 3)) == (Status.NO_MATCH, 0.047)
    assert judge([candidate(1, 0, similarity=0.2)], config=RecognizerConfig(min_confidence=0.0)).status is (
        Status.AMBIGUOUS
    )


def test_refusals_without_evidence_say_why():
    nothing = judge([])
    assert "no candidate" in nothing.reason
    config = RecognizerConfig(min_similarity_global=0.8)
    # The highest similarity counts, wherever re-ranking has put it.
    assert judge([candidate(1, 0, 9.0, 0.75), candidate(2, 30, 5.0, 0.81)], config=config).status is Status.MATCH
    weak = judge([candidate(1, 0, 9.0, 0.70), candidate(2, 30, 5.0, 0.79)], config=config)
    assert weak.reason == "top global similarity 0.790 (place 2) is below min_similarity_global 0.8"
    for decision in (nothing, weak):
        assert (decision.status, decision.confidence) == (Status.NO_MATCH, 0.0)


def test_the_reason_names_the_figures():
    best, near, far = candidate(1, 0, 40.0, 0.7), candidate(2, 1, 30.0, 0.7), candidate(9, 30, 20.4, 0.6)
    said = judge([best, near, far]).reason
    assert said.startswith(
        "place 1: global similarity 0.700, 40 of 100 keypoints matched, 35 consistent, score 40.0 (20.4 of place 9 "
        "elsewhere); confidence"
    )
    assert ", no candidate at another place; confidence" in judge([best, near]).reason
    # The first stage alone: one rival, and two more that few make, have a third of the lead of 0.1.
    ranked = [candidate(1, 0, similarity=0.7), candidate(9, 30, similarity=0.6)]
    assert judge(ranked).reason.startswith("place 1: global similarity 0.700, 0.033 above place 9 elsewhere; ")


def test_confidence_never_falls_with_evidence():
    calibration = ConfidenceModel("by hand", (1.0, 5.0, 2.0, 1.5, 1.0, 0.5), -3.0, 0.9, 0.99, "", 9, 0.0)

    def confidence(best: Candidate, *others: Candidate) -> float:
        return decide([best, *others], 100, CONFIG, calibration).confidence

    by_score = [confidence(candidate(1, 0, score), candidate(9, 30, 20.0)) for score in range(20, 101, 5)]
    by_rival = [confidence(candidate(1, 0, 60.0), candidate(9, 30, float(rival))) for rival in range(60, -1, -5)]
    by_similarity = [
        confidence(candidate(1, 0, 60.0, value / 10), candidate(9, 30, 20.0, 0.1)) for value in range(1, 10)
    ]
    for series in (by_score, by_rival, by_similarity):
        assert all(later > earlier for earlier, later in pairwise(series))


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


def test_a_place_that_is_less_sure_than_the_floor_makes_the_answer_less_sure():
    """Photographs of a phone: 5 m along each axis; half the weight lies 2 m ahead."""
    ranked = [candidate(1, 0, 50), candidate(2, 2, 50)]
    variances = np.diag(pose_covariance(ranked, CONFIG, place_std_m=5.0))
    np.testing.assert_allclose(variances, [27.0, 25.0, 25.0, 0.17**2, 0.17**2, 0.17**2])
    # What is surer than the floor does not lower it.
    assert pose_covariance(ranked[:1], CONFIG, place_std_m=0.02)[0, 0] == 0.25


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
    photo = Candidate(place(1, Pose((3.0, 0.0, 0.0), None), geo=GeoPoint(50.0, 8.0)), 0.9, 50, 50, 50.0)
    turned = Candidate(place(2, pose_at(3.0, yaw=1.0), geo=GeoPoint(50.0, 8.0)), 0.9, 50, 50, 50.0)
    # A supporter's heading says nothing of the best place's.
    for ranked in ([photo], [photo, turned]):
        np.testing.assert_allclose(np.diag(pose_covariance(ranked, CONFIG)), [0.25] * 3 + [math.pi**2] * 3)
    assert pose_covariance([turned, photo], CONFIG)[5, 5] == pytest.approx(0.17**2)
    # East is a heading like any other.
    east = Candidate(place(1, pose_at(3.0), geo=GeoPoint(50.0, 8.0)), 0.9, 50, 50, 50.0)
    assert pose_covariance([east], CONFIG)[5, 5] == pytest.approx(0.17**2)


def test_an_unknown_height_has_a_large_variance_and_says_nothing_of_others():
    flat = Candidate(place(1, Pose((0.0, 0.0, None), (0.0, 0.0, 0.0, 1.0))), 0.9, 50, 50, 50.0)
    high = Candidate(place(2, pose_at(0.0, z=500.0)), 0.9, 50, 50, 50.0)
    low = Candidate(place(3, pose_at(0.0, z=498.0)), 0.9, 50, 50, 50.0)
    assert pose_covariance([flat, high], CONFIG)[2, 2] == pytest.approx(1000.0**2)
    # Two of three know their height, and they spread about the best by 0 and 2 m with equal weights.
    assert pose_covariance([high, flat, low], CONFIG)[2, 2] == pytest.approx(0.25 + 4.0 / 2.0)


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
    moved = replace(candidate(1, 0, 40.0), displacement_xy_cells=(4.6, -3.0))
    assert bearing_offset(moved, (23, 23)) == pytest.approx(0.2)
    # Without a matched patch nothing is known of it.
    assert bearing_offset(candidate(1, 0), (23, 23)) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"top_k": 0},
        {"score": "sum"},
        {"min_confidence": -0.1},
        {"match_confidence": 1.1},
        {"match_confidence": float("nan")},
        {"min_position_std_m": 0.0},
        {"same_place_radius_m": float("nan")},
        {"match_confidence": 0.4, "min_confidence": 0.5},
    ],
)
def test_impossible_settings_are_refused_by_name(bad: dict[str, float | str]):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        RecognizerConfig(**bad)


def test_no_threshold_of_its_own_contradicts_no_minimum():
    assert RecognizerConfig(match_confidence=0.0, min_confidence=0.5).min_confidence == 0.5


def test_every_setting_describes_itself_and_holds_its_own_default():
    for entry in fields(RecognizerConfig):
        assert entry.metadata["description"].endswith("."), entry.name
        if not isinstance(entry.default, bool):
            assert {"min", "max"} <= set(entry.metadata) or "choices" in entry.metadata, entry.name
