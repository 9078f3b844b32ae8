"""Sessions of one map, worked by hand: their frames, and what is never compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.pose_frames import PoseFrames
from effovpr_ros.mapping.session_origins import SessionOrigin
from effovpr_ros.mapping.sessions import SessionSummary, summarise
from effovpr_ros.recognition.decision import pose_covariance
from effovpr_ros.recognition.motion import NUM_MOTIONS, MapPositionTable, arrive
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import distance_between_m, is_same_place

CONFIG = RecognizerConfig(same_place_radius_m=5.0, same_place_ids=3)


def place(place_id: int, x: float, session: str = "a", own_frame: str = "", geo: GeoPoint | None = None) -> Place:
    pose = Pose.from_yaw(x, 0.0, 0.0)
    return Place(place_id, session, 0, f"{place_id}.jpg", pose, geo, (64, 48), own_frame)


def test_poses_of_different_frames_are_not_compared():
    here, other = place(0, 1.0), place(40, 1.0, "b", "b/odom")
    assert distance_between_m(here, other) is None
    assert not is_same_place(here, other, CONFIG)
    assert distance_between_m(other, place(41, 3.0, "c", "b/odom")) == 2.0
    tag = GeoPoint(50.0, 8.0)
    assert distance_between_m(place(0, 1.0, geo=tag), place(40, 90.0, "b", "b/odom", tag)) == 0.0


def test_only_poses_of_the_first_places_frame_spread_the_covariance():
    config = RecognizerConfig(min_position_std_m=1.0)
    ranked = [Candidate(place(0, 0.0), 0.5, score=1.0), Candidate(place(1, 4.0, "b", "b/odom"), 0.5, score=1.0)]
    assert pose_covariance(ranked, config)[0, 0] == pytest.approx(1.0)
    both = [ranked[0], Candidate(place(1, 4.0, "b"), 0.5, score=1.0)]
    # The mean of 0 and 16 square metres, above the floor.
    assert pose_covariance(both, config)[0, 0] == pytest.approx(9.0)


def test_odometry_does_not_link_places_of_different_frames():
    moved = (Pose.from_yaw(0.0, 0.0, 0.0), Pose.from_yaw(3.0, 0.0, 0.0))
    now = [place(1, 3.0), place(50, 3.0, "b", "b/odom"), place(60, 3.0, "c")]
    table, departing = MapPositionTable(), np.zeros((1, NUM_MOTIONS, 1))
    departing[0, 1, 0] = 1.0
    for given in (moved, None):
        arriving = arrive(
            departing,
            table.positions([place(0, 0.0)]),
            table.positions(now),
            1,
            moved=given,
            tolerance_m=2.0,
            reach_m=5.0,
        )[0, 1]
        assert arriving[0] > 0.0
        assert arriving[1] == 0.0
        assert arriving[2] > 0.0


def test_frames_of_poses_by_session_and_number():
    frames = PoseFrames().begin("a", 3, "a/odom").begin("b", 0, "b/odom").begin("a", 7, "")
    again = PoseFrames.from_bytes(frames.to_bytes())
    for known in (frames, again):
        assert [known.frame_of("a", number) for number in (0, 2, 3, 6, 7, 99)] == ["", "", "a/odom", "a/odom", "", ""]
        assert [known.frame_of("b", 0), known.frame_of("c", 0)] == ["b/odom", ""]
    # What begins at the same number or before replaces what began there.
    assert [frames.begin("a", 7, "x").frame_of("a", number) for number in (6, 7)] == ["a/odom", "x"]
    assert [frames.begin("a", 2, "x").frame_of("a", number) for number in (1, 2, 7)] == ["", "x", "x"]
    assert frames.frame_of("a", 7) == ""


@pytest.mark.parametrize(
    "stored", [b'{"b": "b/odom"}', b'{"b": 3}', b'{"b": [["b/odom", "0"]]}', b'["b"]', b"\xff", b"{"]
)
def test_frames_in_another_form_are_refused_by_file_and_remedy(tmp_path: Path, stored: bytes):
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(0)])
        place_map._store.set_property("session_frames", stored)
    with pytest.raises(MapFormatError, match=r"m/places\.sqlite3 keeps the frames .*`effovpr map build`"):
        PlaceMap.open(tmp_path / "m")


def test_a_sessions_frame_is_kept_without_a_flush(tmp_path: Path):
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(0)])
        place_map.set_session_frame("b", "b/odom")
        place_map.add([new_place(1, session="b"), new_place(2)])
        assert [item.own_frame for item in place_map.places()] == ["", "b/odom", ""]
    with PlaceMap.open(tmp_path / "m") as place_map:
        assert [item.own_frame for item in place_map.places()] == ["", "b/odom", ""]
        assert place_map.place(1).map_pose is None
        assert place_map.place(1).pose == Pose.from_yaw(1.0, 0.0, 0.0)


def test_a_sessions_frame_cannot_change_once_it_has_places(tmp_path: Path):
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        place_map.set_session_frame("b", "b/odom")
        place_map.set_session_frame("b", "map")
        place_map.set_session_frame("b", "b/odom")
        place_map.add([new_place(0), new_place(1, session="b")])
        place_map.set_session_frame("b", "b/odom")
        place_map.set_session_frame("a", "map")
        with pytest.raises(MapError, match=r"session 'b' has places already.*'other'; name the frame before"):
            place_map.set_session_frame("b", "other")
        with pytest.raises(MapError, match=r"'a' has places already"):
            place_map.set_session_frame("a", "other")
    with PlaceMap.open(tmp_path / "m") as place_map, pytest.raises(MapError, match="read-only"):
        place_map.set_session_frame("c", "c/odom")


def test_summaries_by_session():
    tag = GeoPoint(50.0, 8.0)
    places = [
        Place(0, "a", 30, "0", Pose.from_yaw(0, 0, 0), None, (1, 1)),
        Place(1, "b", 0, "1", None, tag, (1, 1), "b/odom"),
        Place(2, "a", 10, "2", None, None, (1, 1)),
    ]
    assert summarise(places, "map", {"a": SessionOrigin(child_frame_id="base_link")}) == [
        SessionSummary("a", "map", "base_link", 2, 1, 0, 10, 30),
        SessionSummary("b", "b/odom", "", 1, 0, 1, 0, 0),
    ]
    assert summarise([], "map", {}) == []
