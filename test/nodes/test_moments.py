"""Images of several cameras become queries by their stamps."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from effovpr_ros.nodes.moments import Moments

MS = 1_000_000


def stamps(moments: list) -> list[tuple[int, list[int]]]:
    return [(moment.stamp_ns // MS, sorted(moment.items)) for moment in moments]


def test_images_of_one_time_are_one_query_whatever_their_order():
    moments: Moments[str] = Moments(2, 30 * MS, 0.1)
    assert moments.add(1, 1010 * MS, "rear", 0.0) == []
    (both,) = moments.add(0, 1000 * MS, "front", 0.02)
    assert both.items == {0: "front", 1: "rear"}
    assert (moments.complete, moments.incomplete, moments.late) == (1, 0, 0)


def test_a_camera_that_is_missing_holds_up_the_others_for_the_wait_alone():
    moments: Moments[str] = Moments(2, 30 * MS, 0.1)
    moments.add(0, 1000 * MS, "front", 0.0)
    assert moments.due(0.09) == []
    assert stamps(moments.due(0.1)) == [(1000, [0])]
    assert moments.incomplete == 1
    # It comes when its moment was closed: it is counted, and makes no query of its own.
    assert moments.add(1, 1005 * MS, "rear", 0.15) == []
    assert (moments.late, moments.due(9.0)) == (1, [])


def test_a_newer_moment_closes_the_older_one_before_it():
    moments: Moments[str] = Moments(2, 30 * MS, 10.0)
    moments.add(0, 1000 * MS, "front", 0.0)
    moments.add(0, 1066 * MS, "front", 0.066)
    assert stamps(moments.add(1, 1070 * MS, "rear", 0.07)) == [(1000, [0]), (1066, [0, 1])]


def test_stamps_just_beyond_the_tolerance_are_two_queries():
    moments: Moments[str] = Moments(2, 30 * MS, 0.1)
    moments.add(0, 1000 * MS, "front", 0.0)
    assert moments.add(1, 1030 * MS + 1, "rear", 0.0) == []
    assert stamps(moments.due(0.1)) == [(1000, [0]), (1030, [1])]


def test_two_cameras_at_fifteen_hertz_hold_no_more_than_eight_moments_and_lose_count_of_none():
    moments: Moments[int] = Moments(2, 30 * MS, 1000.0)
    closed = 0
    for number in range(3000):
        stamp_ns = number * 66 * MS
        closed += len(moments.add(0, stamp_ns, number, stamp_ns * 1e-9))
        # The second camera fails for a while.
        if not 1000 <= number < 2000:
            closed += len(moments.add(1, stamp_ns + 5 * MS, number, stamp_ns * 1e-9))
        assert len(moments._open) <= 8
    closed += len(moments.due(1e9))
    assert closed == moments.complete + moments.incomplete == 3000
    assert (moments.complete, moments.incomplete) == (2000, 1000)


def test_clocks_that_are_apart_are_known_by_twenty_lonely_moments():
    moments: Moments[int] = Moments(2, 30 * MS, 0.1)
    for number in range(12):
        moments.add(0, number * 100 * MS, number, number * 0.1)
        moments.add(1, number * 100 * MS + 50 * MS + 3600_000 * MS, number, number * 0.1)
        moments.due(number * 0.1)
    assert moments.apart_s() == pytest.approx(3600.05)
    # A camera that is silent has no clock.
    alone: Moments[int] = Moments(2, 30 * MS, 0.1)
    for number in range(50):
        alone.add(0, number * 100 * MS, number, number * 0.1)
        alone.due(number * 0.1)
    assert alone.apart_s() is None
