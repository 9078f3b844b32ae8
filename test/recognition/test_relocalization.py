"""Asking until the place is sure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import Pose
from effovpr_ros.recognition.relocalization import Relocalization, RelocalizationConfig, brought_to
from effovpr_ros.recognition.sightings import Sighting


def turned(step: int) -> Pose:
    return Pose.from_yaw(0.0, 0.0, math.radians(30.0 * step))


def seen(step: int, x: float, confidence: float = 0.9, aside_deg: float = 0.0) -> Sighting:
    """A robot at x whose first heading is 0, after some steps of 30 degrees."""
    pose = Pose.from_yaw(x, 0.0, math.radians(30.0 * step + aside_deg))
    return Sighting(step, pose, np.diag([0.05**2] * 6), confidence, turned(step))


def turn(asking: Relocalization, answers: dict[int, tuple[Sighting, bool]]) -> list[bool]:
    """One turn in twelve images; whether it was sure after each."""
    sure = []
    for step in range(12):
        sighting, is_match = answers.get(step, (None, False))
        asking.add(turned(step), sighting, is_match=is_match)
        sure.append(asking.is_sure)
    return sure


def test_a_robot_that_turns_is_sure_after_one_turn():
    asking = Relocalization(RelocalizationConfig(num_agreeing=2))
    sure = turn(asking, {2: (seen(2, 3.0), True), 7: (seen(7, 3.05, 0.7), True)})
    # Until then another part of the room may look the same.
    assert sure == [False] * 11 + [True]
    assert (asking.num_images, asking.num_supporting, asking.confidence) == (12, 2, 0.9)
    first = brought_to(asking.answer, turned(0))
    assert (first.position_xyz[0], first.known_yaw_rad) == (pytest.approx(3.0, abs=0.1), pytest.approx(0.0, abs=1e-9))


def test_a_robot_that_stands_or_has_no_odometry_is_sure_by_number():
    for odometry in (turned(0), None):
        asking = Relocalization(RelocalizationConfig(num_agreeing=3))
        for number in range(3):
            assert not asking.is_sure
            asking.add(odometry, Sighting(number, Pose.from_yaw(5.0, 0.0, 0.0), np.eye(6) * 1e-3, 0.9, odometry))
        assert asking.is_sure


def test_doubtful_answers_support_a_pose_and_propose_none():
    asking = Relocalization(RelocalizationConfig(num_agreeing=2))
    # The nearest place of the map is 2 m off and looks 40 degrees aside, which is what a place is.
    doubtful = {step: (seen(step, 5.0, 0.5, aside_deg=40.0), False) for step in range(4)}
    assert not any(turn(asking, doubtful))
    assert (asking.answer, asking.num_supporting) == (None, 0)
    asking = Relocalization(RelocalizationConfig(num_agreeing=2))
    assert turn(asking, {**doubtful, 5: (seen(5, 3.0), True)})[-1]
    assert asking.num_supporting == 5


def test_a_room_that_looks_the_same_the_other_way_round_keeps_it_unsure():
    asking = Relocalization(RelocalizationConfig(num_agreeing=2))
    there = {step: (seen(step, 6.0, 0.95, aside_deg=180.0), True) for step in (3, 4)}
    here = {step: (seen(step, 0.0, 0.6), False) for step in (8, 9)}
    # 1.9 against 1.2: two MATCHes that look one way need two and a half times as much.
    assert not any(turn(asking, {**there, **here}))
    # One that looks another way decides.
    assert turn(
        Relocalization(RelocalizationConfig(num_agreeing=2)), {**there, **here, 6: (seen(6, 6.0, 0.9, 180.0), True)}
    )[-1]


def test_matches_of_little_confidence_do_not_count():
    asking = Relocalization(RelocalizationConfig(min_confidence=0.8))
    turn(asking, {step: (seen(step, 3.0, 0.7), True) for step in range(12)})
    assert (asking.is_sure, asking.answer, asking.confidence) == (False, None, 0.0)


@pytest.mark.parametrize(
    "settings", [{"timeout_s": 700.0}, {"timeout_s": math.nan}, {"min_confidence": 1.5}, {"num_agreeing": 21}]
)
def test_impossible_goals_are_refused(settings: dict[str, float]):
    with pytest.raises(ConfigError, match="is outside"):
        RelocalizationConfig(**settings)
