"""A bag through the loop closure detector over DDS: keyframes and closures as lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from synthetic import picture

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.slam_score import read_closures, read_keyframes
from effovpr_ros.msg import Keyframe, LoopClosure
from effovpr_ros.nodes.loop_replay import closure_record, keyframe_record
from effovpr_ros.sources.bag_writer import BagWriter

SECOND = 10**9
IMAGES, ODOMETRY, CAMERA_INFO = "/camera/compressed", "/odom", "/camera/camera_info"
SCENES = 4


def test_records_hold_what_the_messages_say():
    keyframe = Keyframe(keyframe_id=7, session="a", has_odom_pose=True, distance_m=3.5, insert_ms=2.0, total_ms=9.0)
    keyframe.header.stamp.sec, keyframe.header.stamp.nanosec = 12, 34
    keyframe.odom_pose.position.x = 1.5
    record = json.loads(json.dumps(keyframe_record(keyframe)))
    assert (record["keyframe_id"], record["stamp_ns"], record["distance_m"]) == (7, 12 * SECOND + 34, 3.5)
    assert record["odom_pose"] == [1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    keyframe.has_odom_pose = False
    assert keyframe_record(keyframe)["odom_pose"] is None

    closure = LoopClosure(query_id=7, match_id=2, confidence=0.5, decided_by=LoopClosure.SEQUENCE)
    closure.query_stamp.sec, closure.match_stamp.sec = 12, 3
    closure.relative_pose.pose.position.y = 0.25
    closure.relative_pose.covariance = np.arange(36, dtype=np.float64)
    record = json.loads(json.dumps(closure_record(closure)))
    assert (record["query_stamp_ns"], record["match_stamp_ns"]) == (12 * SECOND, 3 * SECOND)
    assert (record["decided_by"], record["bearing_offset_rad"], record["is_metric"]) == ("SEQUENCE", None, False)
    assert record["relative_pose"] == [0.0, 0.25, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert record["covariance"] == [float(n) for n in range(36)]
    closure.has_bearing_rad, closure.bearing_offset_rad = True, 0.5
    assert closure_record(closure)["bearing_offset_rad"] == 0.5


@pytest.fixture
def laps(tmp_path: Path) -> Path:
    """Two laps of four scenes, an image and two metres a second."""
    camera = CameraModel.from_field_of_view((320, 240), np.pi / 2)
    with BagWriter(tmp_path / "laps") as writer:
        for number in range(2 * SCENES):
            stamp_ns = (1000 + number) * SECOND
            pose = Pose.from_yaw(2.0 * number, 0.0, 0.0)
            writer.write_odometry(ODOMETRY, stamp_ns, pose, frame_id="odom", child_frame_id="base_link")
            writer.write_camera_info(CAMERA_INFO, stamp_ns, "camera", camera)
            writer.write_image(IMAGES, stamp_ns, picture(number % SCENES, 320, 240), "camera")
    return tmp_path / "laps"


# So few keyframes are no rivals that a lead over them would say much.
SURE = ("match_confidence=0.15", "min_confidence=0.1")


def test_laps_through_the_node(laps: Path, tmp_path: Path):
    arguments = ["--bag", laps, "--image-topic", IMAGES, "--odom-topic", ODOMETRY, "--camera-info-topic", CAMERA_INFO]
    # An image every two seconds is slower than the node, even on a busy machine.
    arguments += ["--out", tmp_path / "out", "--device", "cpu", "--rate", 0.5]
    # As much time and way as half a lap; the first pass is too short for a sequence. The odometry, which sees one
    # straight line, would contradict every closure.
    for setting in (
        "min_age_s=3.0",
        "min_distance_m=4.0",
        "min_keyframes=2",
        "sequence_length=0",
        "max_drift=0.0",
        "engine=torch",
        *SURE,
    ):
        arguments += ["--param", setting]
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.loop_replay", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    keyframes = read_keyframes(tmp_path / "out" / "keyframes.jsonl")
    assert [keyframe.stamp_ns for keyframe in keyframes] == [(1000 + n) * SECOND for n in range(2 * SCENES)]
    assert [keyframe.odom_pose.position_xyz[0] for keyframe in keyframes] == [2.0 * n for n in range(2 * SCENES)]
    closures = read_closures(tmp_path / "out" / "closures.jsonl")
    assert closures, done.stderr
    assert {closure.query_id - closure.match_id for closure in closures} == {SCENES}
    assert all(np.diag(closure.covariance).min() > 0.0 for closure in closures)
    assert f"{2 * SCENES} answers in" in done.stdout
