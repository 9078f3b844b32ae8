"""Which map entries are one place, worked by hand."""

from __future__ import annotations

import pytest

from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import best_rival, distance_between_m, is_same_place

CONFIG = RecognizerConfig(same_place_radius_m=5.0, same_place_ids=3)


def place(
    place_id: int,
    xyz: tuple[float, float, float | None] | None = None,
    *,
    geo: GeoPoint | None = None,
    session: str = "a",
) -> Place:
    pose = None if xyz is None else Pose(xyz, (0.0, 0.0, 0.0, 1.0))
    return Place(place_id, session, 0, f"{place_id}.jpg", pose, geo, (64, 48))


def test_same_place_by_pose_is_three_dimensional():
    here = place(1, (0.0, 0.0, 0.0))
    assert distance_between_m(here, place(2, (2.0, 3.0, 6.0))) == pytest.approx(7.0)
    # 5 m are one place, whatever session and number; a little more is not, nor is another floor.
    assert is_same_place(here, place(900, (3.0, 4.0, 0.0), session="b"), CONFIG)
    assert not is_same_place(here, place(2, (3.0, 4.1, 0.0)), CONFIG)
    assert not is_same_place(here, place(2, (0.0, 0.0, 6.0)), CONFIG)


def test_an_unknown_height_leaves_the_horizontal_distance():
    high, flat = place(1, (0.0, 0.0, 520.0)), place(2, (3.0, 4.0, None), session="b")
    assert distance_between_m(high, flat) == distance_between_m(flat, high) == pytest.approx(5.0)
    assert is_same_place(high, flat, CONFIG)
    assert not is_same_place(high, place(3, (0.0, 0.0, 0.0)), CONFIG)


def test_same_place_by_geo_tag_in_metres():
    here = place(1, geo=GeoPoint(60.0, 10.0, 0.0))
    # At 60 degrees north the ellipsoid is 6394.2 km wide: a degree is that times cos 60 times pi / 180, 55.80 km.
    east = place(2, geo=GeoPoint(60.0, 10.0001, 50.0))
    assert distance_between_m(here, east) == pytest.approx(5.580, abs=0.001)
    assert not is_same_place(here, east, CONFIG)
    assert is_same_place(here, place(3, geo=GeoPoint(60.00004, 10.0, 0.0)), CONFIG)


def test_geo_distance_across_the_180th_meridian():
    west, east = place(1, geo=GeoPoint(0.0, -179.99999, 0.0)), place(2, geo=GeoPoint(0.0, 179.99999, 0.0))
    assert distance_between_m(west, east) == pytest.approx(2.226, abs=0.001)


def test_poses_come_before_geo_tags_and_one_of_each_says_nothing():
    tag = GeoPoint(60.0, 10.0, 0.0)
    assert distance_between_m(place(1, (0.0, 0.0, 0.0), geo=tag), place(2, (9.0, 0.0, 0.0), geo=tag)) == 9.0
    assert distance_between_m(place(1, (0.0, 0.0, 0.0)), place(2, geo=tag)) is None


def test_same_place_by_id_where_positions_are_unknown():
    assert is_same_place(place(10), place(13), CONFIG)
    assert not is_same_place(place(10), place(14), CONFIG)
    assert not is_same_place(place(10), place(11, session="b"), CONFIG)
    assert is_same_place(place(10, (0.0, 0.0, 0.0)), place(11), CONFIG)


def test_best_rival_passes_over_supporters():
    ranked = [Candidate(place(n, (x, 0.0, 0.0)), 0.5) for n, x in ((1, 0.0), (2, 1.0), (9, 30.0), (10, 60.0))]
    rival = best_rival(ranked, CONFIG)
    assert rival is not None
    assert rival.place.place_id == 9
    assert best_rival(ranked[:2], CONFIG) is None
    assert best_rival([], CONFIG) is None
