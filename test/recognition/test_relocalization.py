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


def seen(
    step: int, x: float, confidence: float = 0.9, aside_deg: float = 0.0, *, is_match: bool = True, metric: bool = False
) -> Sighting:
    """A robot at x whose first heading is 0, after some steps of 30 degrees."""
    pose = Pose.from_yaw(x, 0.0, math.radians(30.0 * step + aside_deg))
    return Sighting(step, pose, np.diag([0.05**2] * 6), confidence, turned(step), is_match, metric)


def turn(asking: Relocalization, answers: dict[int, Sighting], *, elsewhere: bool = True) -> list[bool]:
    """One turn in twelve images; whether it was sure after each. What is not given names places here and there."""
    sure = []
    for step in range(12):
        far = seen(step, 1000.0 + 50.0 * step, 0.01, is_match=False) if elsewhere else None
        asking.add(turned(step), answers.get(step, far))
        sure.append(asking.is_sure)
    return sure


def test_a_robot_that_turns_is_sure_after_one_turn():
    asking = Relocalization(RelocalizationConfig(num_agreeing=2))
    sure = turn(asking, {2: seen(2, 3.0), 7: seen(7, 3.05, 0.7)})
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
    doubtful = {step: seen(step, 5.0, 0.5, aside_deg=40.0, is_match=False) for step in range(4)}
    assert not any(turn(asking, doubtful))
    assert (asking.answer, asking.num_supporting) == (None, 0)
    asking = Relocalization(RelocalizationConfig(num_agreeing=2))
    assert turn(asking, {**doubtful, 5: seen(5, 3.0)})[-1]
    assert asking.num_supporting == 5


def test_a_room_that_looks_the_same_the_other_way_round_keeps_it_unsure():
    asking = Relocalization(RelocalizationConfig(num_agreeing=2))
    there = {step: seen(step, 6.0, 0.95, aside_deg=180.0) for step in (3, 4)}
    here = {step: seen(step, 0.0, 0.6, is_match=False) for step in (8, 9)}
    # 1.9 against 1.2: two MATCHes that look one way need two and a half times as much.
    assert not any(turn(asking, {**there, **here}))
    # One that looks another way decides.
    assert turn(Relocalization(RelocalizationConfig(num_agreeing=2)), {**there, **here, 6: seen(6, 6.0, 0.9, 180.0)})[
        -1
    ]


def measured(step: int, x: float, confidence: float = 0.4) -> Sighting:
    return seen(step, x, confidence, is_match=False, metric=True)


def test_doubtful_answers_tell_a_pose_where_views_that_share_nothing_measure_the_same():
    asking = Relocalization(RelocalizationConfig())
    assert turn(asking, {1: measured(1, 3.0), 4: measured(4, 3.02), 8: measured(8, 2.98)}) == [False] * 11 + [True]
    assert asking.num_supporting == 3
    assert brought_to(asking.answer, turned(0)).position_xyz[0] == pytest.approx(3.0, abs=0.03)
    # That all three are wrong: 0.6 * 0.6 * 0.6.
    assert asking.confidence == pytest.approx(1.0 - 0.216)


def test_pictures_of_one_view_tell_nothing_however_many():
    asking = Relocalization(RelocalizationConfig())
    # Steps of 10 degrees: all within two views.
    for number in range(5):
        there = Pose.from_yaw(0.0, 0.0, math.radians(10.0 * number))
        pose = Pose.from_yaw(3.0, 0.0, math.radians(10.0 * number))
        asking.add(there, Sighting(number, pose, np.diag([0.05**2] * 6), 0.8, there, is_match=False))
    assert not any(turn(asking, {}))


def test_poses_that_odometry_does_not_bring_together_tell_nothing():
    # Half a metre between each two, and all know themselves to 5 cm; 0.1 m is odometry's.
    answers = {step: measured(step, 0.5 * step) for step in range(0, 12, 2)}
    assert not any(turn(Relocalization(RelocalizationConfig()), answers))


def test_another_pose_that_half_as_many_views_tell_is_borne_and_more_are_not():
    here = {step: measured(step, 3.0) for step in (0, 1, 2, 3)}
    there = {step: measured(step, -9.0) for step in (6, 7, 8)}
    assert turn(Relocalization(RelocalizationConfig()), {**here, 6: there[6], 7: there[7]})[-1]
    assert not any(turn(Relocalization(RelocalizationConfig()), {**here, **there}))


@pytest.mark.parametrize("metric", [True, False])
def test_one_wall_is_not_believed_where_all_else_shows_no_place_of_the_map(metric: bool):
    # Off the map a wall like one of the map's is seen in three images, 60 degrees apart at most.
    asking = Relocalization(RelocalizationConfig())
    wall = {step: seen(step, 3.0, 0.95, metric=metric) for step in (4, 5, 6)}
    assert not any(turn(asking, wall, elsewhere=False))
    # Half of the images show places, or two that share nothing agree.
    assert turn(Relocalization(RelocalizationConfig()), wall)[-1]
    across = {**wall, 8: seen(8, 3.0, 0.95, metric=metric)}
    assert turn(Relocalization(RelocalizationConfig()), across, elsewhere=False)[-1]


def test_only_the_last_hundred_answers_count():
    asking = Relocalization(RelocalizationConfig())
    turn(asking, {1: measured(1, 3.0), 4: measured(4, 3.0)})
    for number in range(100):
        far = Pose.from_yaw(10.0 * number, 50.0, 0.0)
        asking.add(turned(0), Sighting(100 + number, far, np.diag([0.05**2] * 6), 0.4, turned(0), is_match=False))
    asking.add(turned(8), measured(8, 3.0))
    assert not asking.is_sure


def test_matches_of_little_confidence_do_not_count():
    asking = Relocalization(RelocalizationConfig(min_confidence=0.8))
    turn(asking, {step: seen(step, 3.0, 0.7) for step in range(12)})
    assert (asking.is_sure, asking.answer, asking.confidence) == (False, None, 0.0)


@pytest.mark.parametrize(
    "settings", [{"timeout_s": 700.0}, {"timeout_s": math.nan}, {"min_confidence": 1.5}, {"num_agreeing": 21}]
)
def test_impossible_goals_are_refused(settings: dict[str, float]):
    with pytest.raises(ConfigError, match="is outside"):
        RelocalizationConfig(**settings)
