"""`evaluate bag` with several cameras: moments, what is right for a camera that looks another way, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from synthetic import picture, tiny_extractor

from effovpr_ros.cli.main import main
from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.mounted_cameras import MountedCamera, parse_pose
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.lab.evaluation.bag_truth import PoseTruth, from_bag
from effovpr_ros.lab.evaluation.rig_queries import CameraFrame, looking, moments_of
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.frame import Frame

SECOND = 10**9
ODOM, FRONT, REAR = "/odom", "/front/image_raw", "/rear/image_raw"
CAMERA = CameraModel((56, 56), (50.0, 50.0), (27.5, 27.5))
QUARTER = math.pi / 2.0
AHEAD = parse_pose(f"0.2 0 0.5 {-QUARTER} 0 {-QUARTER}")
BEHIND = parse_pose(f"-0.2 0 0.5 {-QUARTER} 0 {QUARTER}")
TRUTH = PoseTruth(pose_topic=ODOM, radius_m=2.0, max_heading_deg=45.0)


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return tiny_extractor(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, extractor: FeatureExtractor) -> Path:
    """Place n, at 20 n m, shows picture n; the body and its one camera look east."""
    folder = tmp_path_factory.mktemp("maps") / "house"
    frames = [
        Frame(f"{n}.jpg", "first", n, Pose.from_yaw(20.0 * n, 0.0, 0.0), None, lambda n=n: picture(n)) for n in range(4)
    ]
    with PlaceMap.create(folder, fingerprint=extractor.fingerprint) as place_map:
        set_session_camera(place_map, "first", MountedCamera(CAMERA, AHEAD))
        build_map(place_map, extractor, frames, BuildConfig())
    return folder


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The way back: the body looks west; ahead is what the map has not, behind what it has. The last has no image."""
    path = tmp_path_factory.mktemp("bags") / "back"
    with BagWriter(path) as writer:
        for topic, frame_id, mounting in ((FRONT, "front", AHEAD), (REAR, "rear", BEHIND)):
            writer.write_static_transform(0, "base_link", frame_id, mounting)
            writer.write_camera_info(f"{topic.rsplit('/', 1)[0]}/camera_info", SECOND, frame_id, CAMERA)
        for number, place in enumerate((3, 2, 1, 0)):
            stamp_ns = 1000 * SECOND + number * 400_000_000
            writer.write_odometry(
                ODOM,
                stamp_ns,
                Pose.from_yaw(20.0 * place + 1.0, 0.0, math.pi),
                frame_id="map",
                child_frame_id="base_link",
            )
            writer.write_image(FRONT, stamp_ns, picture(10 + place), "front", jpeg_quality=None)
            if place:
                writer.write_image(REAR, stamp_ns + 20_000_000, picture(place), "rear", jpeg_quality=None)
        writer.write_odometry(
            ODOM,
            1001 * SECOND + 600_000_000,
            Pose.from_yaw(1.0, 0.0, math.pi),
            frame_id="map",
            child_frame_id="base_link",
        )
    return path


def at(name: str, stamp_s: float) -> CameraFrame:
    return CameraFrame(name, Frame(name, "drive", round(stamp_s * SECOND), None, None, lambda: picture(0)), None)


def test_images_of_one_moment_are_joined_and_others_stand_alone():
    front = [at("front", stamp_s) for stamp_s in (1.0, 1.1, 1.2, 1.3)]
    # 10 ms late, missing, 29 ms early, 31 ms late; and one before everything.
    rear = [at("rear", stamp_s) for stamp_s in (0.5, 1.01, 1.171, 1.331)]
    found = [
        [(item.name, round(item.frame.stamp_ns * 1e-9, 6)) for item in moment] for moment in moments_of([front, rear])
    ]
    assert found == [
        [("rear", 0.5)],
        [("front", 1.0), ("rear", 1.01)],
        [("front", 1.1)],
        [("front", 1.2), ("rear", 1.171)],
        [("front", 1.3)],
        [("rear", 1.331)],
    ]
    assert moments_of([[], []]) == []


def test_a_heading_is_where_a_camera_looks():
    frame = Frame("a", "drive", 1, Pose.from_yaw(3.0, 4.0, 0.3), None, lambda: picture(0))
    for mounting, expected in ((AHEAD, 0.3), (BEHIND, 0.3 - math.pi)):
        (turned,) = looking([frame], [MountedCamera(CAMERA, mounting)])
        assert turned.pose.position_xyz == (3.0, 4.0, 0.0)
        assert turned.pose.known_yaw_rad == pytest.approx(expected)
    assert looking([frame], [MountedCamera(CAMERA, None)]) is None
    assert looking([frame], [None]) is None


def test_what_the_rear_camera_sees_is_right_on_the_way_back(house: Path, drive: Path):
    both = from_bag(house, drive, TRUTH, image_topics=[FRONT, REAR])
    assert [[item.name for item in moment] for moment in both.moments] == [["front", "rear"]] * 3 + [["front"]]
    assert both.positives == [frozenset({3}), frozenset({2}), frozenset({1}), frozenset()]
    assert both.queries[0].stamp_ns == 1000 * SECOND
    assert both.notes == ["4 queries of front and rear, 1 of them without the image of a camera"]
    with pytest.raises(EvaluationError, match="none is within 2 m and 45 degrees of a place"):
        from_bag(house, drive, TRUTH, image_topics=[FRONT])
    # One camera that looks backward, and the body's heading is not what counts.
    assert from_bag(house, drive, TRUTH, image_topics=[REAR]).positives == both.positives[:3]
    with pytest.raises(EvaluationError, match="--image-topic names /front/image_raw twice"):
        from_bag(house, drive, TRUTH, image_topics=[FRONT, FRONT])


def test_the_command_asks_with_all_cameras(
    tmp_path: Path, house: Path, drive: Path, extractor: FeatureExtractor, capsys: pytest.CaptureFixture[str]
):
    arguments = ["evaluate", "bag", str(house), str(drive), "--pose", ODOM, "--radius", "2", "--json"]
    arguments += ["--weights", extractor.config.weights, "--size", "56", "--model", "vit_tiny_test_patch14"]
    recall = {}
    for topics in ([FRONT], [FRONT, REAR]):
        out = tmp_path / str(len(topics))
        assert main([*arguments, "--image-topic", *topics, "--out", str(out)]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["dataset"]["queries"] == 4
        recall[len(topics)] = result["methods"]["effovpr"]["recall"]["1"]
        page = (out / "report.html").read_text()
    # The picture that is drawn is that of the camera whose place is answered.
    assert "1000.020000000 (query 0)" in page
    # Three of four queries are answered by the rear camera; by the front one, chance alone.
    assert recall[2] >= 0.75 > recall[1]
    assert main([*arguments, "--image-topic", FRONT, REAR, "--methods", "effovpr", "vlad"]) == 1
    assert "vlad cannot ask with several cameras; leave them out, or name one --image-topic" in capsys.readouterr().err
