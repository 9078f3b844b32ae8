"""Several cameras of one bag in one map."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from described import described
from synthetic import picture, tiny_weights

from effovpr_ros.cli.main import main
from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.mounted_cameras import parse_pose
from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import read_cameras
from effovpr_ros.sources.bag_writer import BagWriter

AHEAD = parse_pose("0.2 0 0.5 -1.5707963267948966 0 -1.5707963267948966")
BACK = parse_pose("-0.3 0 0.6 -1.5707963267948966 0 1.5707963267948966")
TOPICS = ["/front/image_raw", "/rear/image_raw"]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Four moments; the rear camera has another calibration."""
    with BagWriter(tmp_path / "drive") as writer:
        for name, mounting in (("front", AHEAD), ("rear", BACK)):
            writer.write_static_transform(0, "base_link", f"{name}_optical", mounting)
        for number in range(4):
            stamp_ns = (1 + number) * 10**9
            pose = Pose.from_yaw(5.0 * number, 0.0, 0.0)
            writer.write_odometry("/odom", stamp_ns, pose, frame_id="odom", child_frame_id="base_link")
            for name, focal_px, first in (("front", 50.0, 0), ("rear", 40.0, 20)):
                image = np.asarray(picture(first + number))
                size_wh = (image.shape[1], image.shape[0])
                camera = CameraModel(size_wh, (focal_px, focal_px), (size_wh[0] / 2.0, size_wh[1] / 2.0))
                writer.write_camera_info(f"/{name}/camera_info", stamp_ns, f"{name}_optical", camera)
                writer.write_image(f"/{name}/image_raw", stamp_ns, image, f"{name}_optical", jpeg_quality=None)
    return tmp_path / "drive"


def build(bag: Path, folder: Path, *more: str) -> int:
    weights = tiny_weights(bag.parent)
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(weights), "--size", "56", "--t1", "0.0"]
    fast = ["--points", "none", "--device", "cpu", "--engine", "torch"]
    return main(["map", "build", str(folder), str(bag), *model, *fast, *more])


def test_each_camera_is_a_session_with_its_own_calibration_and_mounting(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert build(bag, tmp_path / "map", "--json", "--image-topic", *TOPICS) == 0
    reports = described("map-build", capsys.readouterr().out)["cameras"]
    assert {name: report["added"] for name, report in reports.items()} == {"front": 4, "rear": 4}
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert place_map.sessions == ["drive:front", "drive:rear"]
        cameras = read_cameras(place_map)
        for name, focal_px, mounting in (("front", 50.0, AHEAD), ("rear", 40.0, BACK)):
            found = cameras[f"drive:{name}"]
            assert found.camera.focal_xy_px == (focal_px, focal_px)
            assert found.body_from_camera is not None
            assert found.body_from_camera.known_xyz == pytest.approx(mounting.known_xyz)
            assert (found.body_from_camera.turn_rad(mounting) or 0.0) < math.radians(0.01)
        # Poses are the body's, in one frame.
        by_stamp: dict[int, set[tuple[Pose | None, str]]] = {}
        for place in place_map.places():
            by_stamp.setdefault(place.stamp_ns, set()).add((place.pose, place.own_frame))
        assert [len(poses) for poses in by_stamp.values()] == [1, 1, 1, 1]
    # The same command again adds nothing.
    assert build(bag, tmp_path / "map", "--json", "--image-topic", *TOPICS) == 0
    reports = json.loads(capsys.readouterr().out)["cameras"]
    assert [report["already_present"] for report in reports.values()] == [4, 4]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--image-topic", TOPICS[0], TOPICS[0]), "twice"),
        (("--image-topic", *TOPICS, "--camera-pose", "0", "0", "0", "0", "0", "0"), "are of one camera"),
        (("--image-topic", TOPICS[0], "/left/image_raw"), "/left/image_raw"),
    ],
)
def test_impossible_cameras_are_refused(
    bag: Path, tmp_path: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
):
    assert build(bag, tmp_path / "map", *more) == 1
    assert said in capsys.readouterr().err
