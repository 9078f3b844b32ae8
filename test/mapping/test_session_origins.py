"""Frames of sessions: what a bag says is kept, what does not relate is refused with what helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image
from synthetic import FINGERPRINT, new_place, picture, tiny_weights

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_origins import SessionOrigin, is_of_one_drive, join_session, read_origins
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.frame import PoseKind, PoseOrigin

SECOND = 10**9


def write_drive(path: Path, seeds: range, *, frame_id: str = "odom", child: str = "base_link", x0: float = 0.0) -> Path:
    with BagWriter(path) as writer:
        for number, seed in enumerate(seeds):
            stamp_ns = (1000 + number) * SECOND
            writer.write_image("/camera", stamp_ns, picture(seed), "camera")
            pose = Pose.from_yaw(x0 + 20.0 * number, 0.0, 0.0)
            writer.write_odometry("/odom", stamp_ns, pose, frame_id=frame_id, child_frame_id=child)
    return path


def write_fixes(path: Path, seeds: range) -> Path:
    with BagWriter(path) as writer:
        for number, seed in enumerate(seeds):
            stamp_ns = (1000 + number) * SECOND
            writer.write_image("/camera", stamp_ns, picture(seed), "camera")
            writer.write_fix("/fix", stamp_ns, GeoPoint(50.0, 8.0 + 1e-3 * number, 100.0), "gps_link", std_m=1.0)
    return path


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., int]:
    weights = tiny_weights(tmp_path)

    def run(folder: Path, source: Path, *more: str) -> int:
        model = ["--model", "vit_tiny_test_patch14", "--weights", str(weights), "--size", "56", "--t1", "0.0"]
        return main(["map", "build", str(folder), str(source), *model, *more])

    return run


def sessions_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str, str]]:
    capsys.readouterr()
    assert main(["map", "info", str(folder), "--json"]) == 0
    sessions = json.loads(capsys.readouterr().out)["sessions"]
    return [(item["name"], item["frame_id"], item["child_frame_id"]) for item in sessions]


def test_odometry_makes_a_session_in_its_frame_and_another_drive_does_not_join_it(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monday, tuesday = write_drive(tmp_path / "monday", range(4)), write_drive(tmp_path / "tuesday", range(4, 8), x0=0.1)
    folder = tmp_path / "map"
    assert build(folder, monday) == 0
    assert "poses in 'odom' are the map's, whose frame is called 'odom'" in capsys.readouterr().err
    assert sessions_of(folder, capsys) == [("monday", "odom", "base_link")]
    # The same drive goes on.
    assert build(folder, monday) == 0
    assert build(folder, tuesday) == 1
    said = capsys.readouterr().err
    assert "'odom', which does not relate to the frame 'odom'" in said
    assert "--session NAME --session-frame FRAME" in said
    with PlaceMap.open(folder) as place_map:
        assert len(place_map) == 4
    assert build(folder, tuesday, "--session", "tuesday", "--session-frame", "tuesday/odom") == 0
    assert sessions_of(folder, capsys) == [("monday", "odom", "base_link"), ("tuesday", "tuesday/odom", "base_link")]
    assert yaml.safe_load((folder / "map.yaml").read_text())["session_frames"] == {
        "monday": {"frame_id": "odom", "child_frame_id": "base_link"},
        "tuesday": {"frame_id": "tuesday/odom", "child_frame_id": "base_link"},
    }
    assert main(["map", "info", str(folder)]) == 0
    assert "4 with pose in frame tuesday/odom of base_link" in capsys.readouterr().out


def test_a_frame_may_be_given_a_name_and_drives_may_be_said_to_relate(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monday, tuesday = write_drive(tmp_path / "monday", range(4)), write_drive(tmp_path / "tuesday", range(4, 8), x0=0.1)
    folder = tmp_path / "map"
    assert build(folder, monday, "--frame-id", "map") == 0
    assert "poses in 'odom' are the map's, whose frame is called 'map'" in capsys.readouterr().err
    assert build(folder, tuesday) == 1
    assert "say with --session-frame map" in capsys.readouterr().err
    assert build(folder, tuesday, "--session", "tuesday", "--session-frame", "map") == 0
    assert "taken to be in the map's frame 'map', as --session-frame says" in capsys.readouterr().err
    assert sessions_of(folder, capsys) == [("monday", "map", "base_link"), ("tuesday", "map", "base_link")]


def test_a_map_frame_of_the_same_name_is_taken_for_the_same_and_other_bodies_are_named(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "map"
    assert build(folder, write_drive(tmp_path / "a", range(4), frame_id="map")) == 0
    capsys.readouterr()
    assert build(folder, write_drive(tmp_path / "b", range(4, 8), frame_id="/map", child="camera_link")) == 0
    said = capsys.readouterr().err
    assert "poses in 'map' are taken to be in the map's frame of that name" in said
    assert "its poses are those of 'camera_link', other sessions' of base_link" in said
    assert build(folder, write_drive(tmp_path / "c", range(8, 12), frame_id="world")) == 1
    assert "'world', which does not relate to the frame 'map'" in capsys.readouterr().err


def test_geo_tagged_photographs_never_land_at_the_origin_of_another_frame(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "map"
    assert build(folder, write_drive(tmp_path / "drive", range(4))) == 0
    fixes = write_fixes(tmp_path / "fixes", range(4, 8))
    assert build(folder, fixes) == 1
    assert "no datum to place geo-tags by" in capsys.readouterr().err
    assert build(folder, fixes, "--session", "fixes", "--session-frame", "fixes/enu") == 0
    assert "east, north and up of (50.0, 8.0) in a frame of their own, 'fixes/enu'" in capsys.readouterr().err
    with PlaceMap.open(folder) as place_map:
        assert place_map.datum is None
        tagged = [place for place in place_map.places() if place.session == "fixes"]
        assert [place.map_pose for place in tagged] == [None] * 4
        assert [place.geo.longitude_deg for place in tagged if place.geo] == pytest.approx([8.0, 8.001, 8.002, 8.003])
        origin = read_origins(place_map)["fixes"]
        assert (origin.datum, origin.child_frame_id) == (Datum(GeoPoint(50.0, 8.0, 100.0)), "gps_link")
    # The other way round, odometry does not join a frame of the earth.
    earth = tmp_path / "earth"
    assert build(earth, fixes) == 0
    assert build(earth, tmp_path / "drive") == 1
    assert "'odom', which does not relate to the frame 'map'" in capsys.readouterr().err
    assert build(earth, write_fixes(tmp_path / "again", range(8, 12))) == 0


def test_pictures_without_positions_leave_the_frame_to_what_comes_later(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "plain").mkdir()
    Image.fromarray(picture(40)).save(tmp_path / "plain" / "a.png")
    folder = tmp_path / "map"
    assert build(folder, tmp_path / "plain") == 0
    assert build(folder, write_fixes(tmp_path / "fixes", range(4))) == 0
    with PlaceMap.open(folder) as place_map:
        assert place_map.datum == Datum(GeoPoint(50.0, 8.0, 100.0))
        poses = [place.map_pose for place in place_map.places()]
        assert poses[0] is None
        assert all(poses[1:])


def test_maps_of_two_drives_do_not_merge_unless_kept_apart(
    build: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, seeds, x0 in (("a", range(4), 0.0), ("b", range(4, 8), 0.1)):
        assert build(tmp_path / f"map_{name}", write_drive(tmp_path / name, seeds, x0=x0), "--frame-id", "map") == 0
    maps = [str(tmp_path / "map_a"), str(tmp_path / "map_b")]
    assert main(["map", "merge", str(tmp_path / "out"), *maps]) == 1
    assert "they are by odometry, which begins where a drive begins" in capsys.readouterr().err
    assert main(["map", "merge", str(tmp_path / "out"), *maps, "--keep-frames"]) == 0
    assert sessions_of(tmp_path / "out", capsys) == [("a", "map", "base_link"), ("b", "map_b/map", "base_link")]


def test_a_session_of_before_goes_on_and_it_is_said(tmp_path: Path):
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(0)])
        drive = PoseOrigin(PoseKind.DRIVE, "odom", "base", None, "1234")
        (note,) = join_session(place_map, "a", drive)
        assert "no record of its frames" in note
        with pytest.raises(MapError, match="does not relate"):
            join_session(place_map, "b", drive)
        assert join_session(place_map, "c", PoseOrigin(PoseKind.NONE)) == []
        (note,) = join_session(place_map, "d", PoseOrigin(PoseKind.MAP))
        assert "positions of the table are taken to be in the map's frame 'map'" in note
        assert read_origins(place_map)["d"] == SessionOrigin()


@pytest.mark.parametrize("repeated", ["night/frame", ""])
def test_another_drive_does_not_join_the_own_frame_of_a_session(tmp_path: Path, repeated: str):
    """With the frame named again, and without: the session has it."""
    here, there = Datum(GeoPoint(50.0, 8.0, 100.0)), Datum(GeoPoint(50.0, 8.1, 100.0))

    def joined(first: PoseOrigin, second: PoseOrigin) -> list[str]:
        with PlaceMap.create(tmp_path / str(len(list(tmp_path.iterdir()))), fingerprint=FINGERPRINT) as place_map:
            place_map.add([new_place(0, session="day")])
            join_session(place_map, "night", first, "night/frame")
            place_map.add([new_place(1, session="night")])
            return join_session(place_map, "night", second, repeated)

    odometry = PoseOrigin(PoseKind.DRIVE, "odom", "base", None, "1")
    assert joined(odometry, odometry) == []
    with pytest.raises(MapError, match="'odom' of one drive says nothing of another's; give it a session and a frame"):
        joined(odometry, PoseOrigin(PoseKind.DRIVE, "odom", "base", None, "2"))
    # A name that outlives a drive relates; another one does not.
    site = PoseOrigin(PoseKind.DRIVE, "site", "base", None, "1")
    (note,) = joined(site, PoseOrigin(PoseKind.DRIVE, "site", "base", None, "2"))
    assert note == "poses of session 'night' are in a frame of their own, 'night/frame' (the source names it 'site')"
    with pytest.raises(MapError, match="do not relate"):
        joined(site, PoseOrigin(PoseKind.DRIVE, "hall", "base", None, "2"))
    earth = PoseOrigin(PoseKind.EARTH, "", "gps", here, "1")
    assert len(joined(earth, PoseOrigin(PoseKind.EARTH, "", "gps", here, "2"))) == 1
    with pytest.raises(MapError, match="they are placed by another datum"):
        joined(earth, PoseOrigin(PoseKind.EARTH, "", "gps", there, "2"))
    with pytest.raises(MapError, match="they are placed by another datum"):
        joined(earth, PoseOrigin(PoseKind.DRIVE, "odom", "base", None, "2"))


def test_a_damaged_record_is_named(tmp_path: Path):
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        for stored in (b"[1]", b'{"a": {"frame_id": "odom"}}', b'{"a": 3}', b"\xff"):
            place_map.set_property("session_origins", stored)
            with pytest.raises(MapFormatError, match="sessions' poses is damaged"):
                read_origins(place_map)


def test_frames_that_begin_with_a_drive():
    for name in ("odom", "robot_1/odom", "odom_combined", "camera_init", ""):
        assert is_of_one_drive(name)
    for name in ("map", "world", "odometer/map", "utm"):
        assert not is_of_one_drive(name)


def test_the_least_sure_positions_of_a_session_count(tmp_path: Path):
    datum = Datum(GeoPoint(50.0, 8.0))
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        for std_m, kept in ((4.0, 4.0), (None, 4.0), (6.5, 6.5), (5.0, 6.5)):
            join_session(place_map, "walk", PoseOrigin(PoseKind.EARTH, datum=datum, position_std_m=std_m))
            assert read_origins(place_map)["walk"].position_std_m == kept
        # As earlier versions wrote it.
        stored = json.loads(place_map.get_property("session_origins") or b"{}")
        del stored["walk"]["position_std_m"]
        place_map.set_property("session_origins", json.dumps(stored).encode())
        assert read_origins(place_map)["walk"].position_std_m is None
