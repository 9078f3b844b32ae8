"""Transitions between places worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import Place
from effovpr_ros.recognition.motion import NUM_MOTIONS, MapPositionTable, arrive, motion_after, turned_rad

SLOW, STEADY, FAST = range(3)
BACKWARD = 3


def place(place_id: int, pose: Pose | None = None, session: str = "a", geo: GeoPoint | None = None) -> Place:
    return Place(place_id, session, 0, "", pose, geo, (1, 1))


def go(
    before: list[Place],
    now: list[Place],
    lag: int = 1,
    motion: int = STEADY,
    moved: tuple[Pose, Pose] | None = None,
    tolerance_m: float = 2.0,
) -> np.ndarray:
    """Where belief of 1 in each earlier place arrives, over the later places."""
    table = MapPositionTable()
    departing = np.zeros((1, NUM_MOTIONS, len(before)))
    departing[0, motion] = 1.0
    arriving = arrive(
        departing, table.positions(before), table.positions(now), lag, moved=moved, tolerance_m=tolerance_m, reach_m=5.0
    )
    assert arriving.shape == (1, NUM_MOTIONS, len(now))
    assert arriving[0].sum() == pytest.approx(arriving[0, motion].sum())
    return arriving[0, motion]


def test_steps_along_the_session():
    now = [place(number) for number in range(7, 16)]
    np.testing.assert_allclose(go([place(10)], now), [0, 0, 0, 0.15, 0.7, 0.15, 0, 0, 0])
    np.testing.assert_allclose(go([place(10)], now, motion=SLOW), [0, 0, 0, 0.6, 0.4, 0, 0, 0, 0])
    np.testing.assert_allclose(go([place(10)], now, motion=FAST), [0, 0, 0, 0, 0.2, 0.5, 0.2, 0.1, 0])
    np.testing.assert_allclose(go([place(10)], now, motion=BACKWARD + STEADY), [0, 0.15, 0.7, 0.15, 0, 0, 0, 0, 0])


def test_two_and_three_frames_later():
    now = [place(number) for number in range(10, 14)]
    np.testing.assert_allclose(go([place(10)], now, 2, SLOW), [0.36, 0.48, 0.16, 0], atol=1e-12)
    np.testing.assert_allclose(go([place(10)], now, 3, SLOW), [0.216, 0.432, 0.288, 0.064])
    # The fastest: four places a frame, 0.1 ** 3.
    assert go([place(10)], [place(22)], 3, FAST)[0] == pytest.approx(0.001)


def test_nothing_goes_to_another_session_or_far_away():
    assert go([place(10)], [place(11, session="b"), place(40)]).tolist() == [0.0, 0.0]


def test_order_does_not_depend_on_the_order_of_the_candidates():
    shuffled = [place(12), place(10), place(11)]
    np.testing.assert_allclose(go([place(3), place(10)], shuffled), [0.15, 0.15, 0.7])


def test_a_motion_mostly_goes_on():
    belief = np.zeros((NUM_MOTIONS, 1))
    belief[FAST] = 1.0
    after = motion_after(belief)
    assert after.sum() == pytest.approx(1.0)
    assert after[FAST, 0] == pytest.approx(0.98)
    assert after[BACKWARD, 0] == pytest.approx(0.02 / 5)


def at(x: float, y: float = 0.0, yaw: float | None = 0.0) -> Pose:
    return Pose.from_yaw(x, y, yaw)


def test_odometry_as_a_vector_where_headings_are_known():
    # The map's x axis is the odometry's y axis: headings tell.
    moved = (at(0, 0, math.pi / 2), at(0, 3, math.pi / 2))
    now = [place(900, at(13)), place(901, at(10, 3)), place(902, at(15))]
    here, aside, ahead = go([place(10, at(10))], now, moved=moved)
    variance = 4.0 + 0.3**2
    assert here == pytest.approx(1 / (1 + aside / here + ahead / here))
    assert aside / here == pytest.approx(math.exp(-0.5 * 18.0 / variance))
    assert ahead / here == pytest.approx(math.exp(-0.5 * 4.0 / variance))


def test_odometry_as_a_length_where_headings_are_unknown():
    now = [place(1, at(3, yaw=None)), place(2, at(0, 3, None)), place(3, at(0, 7, None))]
    ahead, aside, far = go([place(0, at(0, yaw=None))], now, moved=(at(0, 0, 1.0), at(3, 0, 1.0)))
    assert ahead == pytest.approx(aside)
    assert far / ahead == pytest.approx(math.exp(-0.5 * 16.0 / (4.0 + 0.3**2)))


def test_a_height_that_is_unknown_leaves_the_horizontal_way():
    now = [place(1, Pose((3.0, 0.0, None), None)), place(2, Pose((3.0, 4.0, None), None))]
    ahead, far = go([place(0, Pose((0.0, 0.0, 520.0), None))], now, moved=(at(0), at(3)))
    # 3 m and 5 m, where 3 m were driven.
    assert far / ahead == pytest.approx(math.exp(-0.5 * 4.0 / (4.0 + 0.3**2)))


def test_odometry_without_a_heading_counts_as_a_length():
    now = [place(1, at(3)), place(2, at(0, 3))]
    ahead, aside = go([place(0, at(0))], now, moved=(at(0, yaw=None), at(3, yaw=None)))
    assert ahead == pytest.approx(aside)
    assert turned_rad(at(0, yaw=None), at(0, yaw=1.0)) == 0.0


def test_a_turn_that_the_odometry_does_not_know_is_unlikely():
    now = [place(1, at(3)), place(2, at(3, yaw=math.pi / 2)), place(3, at(3, yaw=2 * math.pi))]
    straight, turned, full = go([place(0, at(0))], now, moved=(at(0), at(3)))
    assert turned / straight == pytest.approx(math.exp(-0.5 * 2.0 / 0.25))
    assert full == pytest.approx(straight)


def test_few_places_that_agree_do_not_gain_belief_and_none_loses_it():
    moved = (at(0), at(3))
    assert go([place(0, at(0))], [place(1, at(3))], moved=moved)[0] == pytest.approx(1.0)
    assert go([place(0, at(0))], [place(1, at(7))], moved=moved)[0] == pytest.approx(math.exp(-0.5 * 16 / 4.09))
    assert go([place(0, at(0))], [place(1, at(90))], moved=moved)[0] < 1e-9


def test_without_odometry_positions_link_sessions():
    now = [place(11, at(10.0)), place(70, at(12.0), "b"), place(71, at(30.0), "b")]
    # Half of it goes along the session, half to what is near.
    np.testing.assert_allclose(go([place(10, at(9.0))], now), [0.35, 0.5, 0.0])
    # Within 5 m a frame.
    np.testing.assert_allclose(go([place(10, at(20.0))], [now[2]], lag=1), [0.0])
    np.testing.assert_allclose(go([place(10, at(20.0))], [now[2]], lag=2), [1.0])


def test_places_without_positions_follow_the_order_beside_others_that_have_them():
    now = [place(11), place(12, at(3))]
    moved = (at(0), at(3))
    np.testing.assert_allclose(go([place(10)], now, moved=moved), [0.7, 0.15])
    np.testing.assert_allclose(go([place(10, at(0))], now, moved=moved), [0.35, 0.5])
