"""The loop closure detector in this process, spoken to over DDS; the model is a tiny one."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from harness import TIMEOUT_S, Harness, image_message  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from synthetic import picture, tiny_extractor  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from effovpr_ros.core.errors import MapError  # noqa: E402
from effovpr_ros.core.poses import Pose  # noqa: E402
from effovpr_ros.features.extractor import FeatureExtractor  # noqa: E402
from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.msg import Keyframe, LoopClosure  # noqa: E402
from effovpr_ros.nodes import conversions  # noqa: E402
from effovpr_ros.nodes.loop_closure_detector import LoopClosureDetectorNode  # noqa: E402
from effovpr_ros.nodes.loop_engine import LoopEngine  # noqa: E402
from effovpr_ros.nodes.outputs import MARKER_QOS  # noqa: E402
from effovpr_ros.nodes.parameters import CameraNodeConfig, LoopNodeConfig  # noqa: E402
from effovpr_ros.recognition.confidence import ConfidenceModel, setting_name, store_confidence_model  # noqa: E402
from effovpr_ros.recognition.evidence import FIGURES  # noqa: E402
from effovpr_ros.recognition.recognizer import PlaceRecognizer  # noqa: E402
from effovpr_ros.recognition.recognizer_config import RecognizerConfig  # noqa: E402
from effovpr_ros.srv import SaveMap  # noqa: E402

NAME = "/loop_closure_detector"
LAP = 14
"""Pictures of a lap, a metre and two seconds apart."""


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return tiny_extractor(tmp_path_factory.mktemp("model"))


@pytest.fixture
def session_path(extractor: FeatureExtractor, tmp_path: Path) -> Path:
    """An empty map of the tiny model: MATCH where three quarters of the keypoints agree."""
    weights = tuple(10.0 if name == "consistent_share" else 0.0 for name in FIGURES)
    setting = setting_name(extractor.fingerprint, LOOP_RECOGNIZER)
    with PlaceMap.create(tmp_path / "session", fingerprint=extractor.fingerprint, frame_id="odom") as place_map:
        store_confidence_model(place_map, ConfidenceModel(setting, weights, -5.0, 0.924, 0.99, "by hand", 40, 0.0))
    return tmp_path / "session"


class Drive(Harness):
    """A robot that drives laps of a circle."""

    def __init__(self, kind: type[Node] | None, parameters: dict[str, Any]) -> None:
        super().__init__(kind, parameters, NAME)
        self.odometry = self.client.create_publisher(Odometry, "/odom", qos_profile_sensor_data)
        self.keyframes: list[Keyframe] = self.listen(Keyframe, f"{NAME}/keyframe")
        self.closures: list[LoopClosure] = self.listen(LoopClosure, f"{NAME}/loop_closure")
        self.diagnostics: list[DiagnosticArray] = self.listen(DiagnosticArray, "/diagnostics")

    def send(self, image: Image, pose: Pose | None, until: Callable[[], Any], what: str) -> None:
        """Send odometry and image until an effect shows: best effort may lose either."""
        stamp_ns = conversions.ns_from_time(image.header.stamp)
        if pose is not None and self.node is not None:
            self.tell(stamp_ns * 1e-9, pose)
        deadline = time.monotonic() + TIMEOUT_S
        while not until():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            if pose is not None:
                self.odometry.publish(odometry(stamp_ns * 1e-9, pose))
            self.images.publish(image)
            time.sleep(0.05)

    def tell(self, stamp_s: float, pose: Pose) -> None:
        """Send odometry until the node in this process has it."""
        message = odometry(stamp_s, pose)
        stamp_ns = conversions.ns_from_time(message.header.stamp)
        self.publish_until(message, lambda: self.node.configured.odometry.at(stamp_ns), "odometry", self.odometry)

    def go(self, step: int, number: int | None = None, *, posed: bool = True) -> Keyframe:
        """Drive to a step and see picture `number` there, by default that of the lap's spot; it must be a keyframe."""
        stamp_s = 100 + 2 * step
        found = lambda: [keyframe for keyframe in self.keyframes if keyframe.header.stamp.sec == stamp_s]  # noqa: E731
        image = image_message(picture(step % LAP if number is None else number), stamp_s)
        self.send(image, spot(step) if posed else None, found, f"keyframe of step {step}")
        return found()[0]

    def status(self) -> DiagnosticStatus:
        """The next status."""
        before = len(self.diagnostics)
        self.wait(lambda: len(self.diagnostics) > before, "diagnostics")
        return self.diagnostics[-1].status[0]

    def until_status(self, text: str, level: bytes) -> dict[str, str]:
        """Wait for a status; returns its values."""
        found = lambda: [d.status[0] for d in self.diagnostics if text in d.status[0].message]  # noqa: E731
        self.wait(
            found, f"the status {text!r}; last {self.diagnostics[-1].status[0].message if self.diagnostics else ''}"
        )
        assert found()[-1].level == level
        return {pair.key: pair.value for pair in found()[-1].values}


def spot(step: int) -> Pose:
    """Steps of a metre around a circle; ahead is along it."""
    angle = math.tau * step / LAP
    radius = 0.5 / math.sin(math.pi / LAP)
    return Pose.from_yaw(radius * math.sin(angle), radius - radius * math.cos(angle), angle)


def odometry(stamp_s: float, pose: Pose) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.stamp, message.header.frame_id = conversions.time_from_ns(round(stamp_s * 1e9)), "wheels"
    message.pose.pose = conversions.pose_message(pose)
    return message


@pytest.fixture
def drive(session_path: Path, extractor: FeatureExtractor) -> Iterator[Callable[..., Drive]]:
    made: list[Drive] = []

    def make(**parameters: Any) -> Drive:
        defaults = {
            "session_path": str(session_path),
            "session": "monday",
            "weights": extractor.config.weights,
            "device": "cpu",
            "odom_wait_s": 1.0,
        }
        made.append(Drive(LoopClosureDetectorNode, {**defaults, **parameters}))
        return made[-1]

    yield make
    for item in made:
        item.close()


def test_a_lap_closes_and_the_session_goes_on(
    drive: Callable[..., Drive], session_path: Path, extractor: FeatureExtractor, tmp_path: Path
):
    d = drive(sequence_length=0, adapters="lio_sam")
    pairs = d.listen(Float64MultiArray, "/lio_loop/loop_closure_detection")
    markers = d.listen(MarkerArray, f"{NAME}/markers", MARKER_QOS)
    d.start()
    keyframes = [d.go(step) for step in range(LAP + 6)]
    assert [keyframe.keyframe_id for keyframe in keyframes] == list(range(LAP + 6))
    last = keyframes[-1]
    assert (last.session, last.header.frame_id, last.has_odom_pose) == ("monday", "wheels", True)
    assert last.odom_pose == conversions.pose_message(spot(LAP + 5))
    assert last.distance_m == pytest.approx(LAP + 5.0)
    assert last.total_ms > last.insert_ms > 0.0
    d.wait(lambda: len(d.closures) == 6, "closures")
    assert [(c.query_id, c.match_id) for c in d.closures] == [(LAP + n, n) for n in range(6)]
    closure = d.closures[2]
    assert (closure.query_stamp.sec, closure.match_stamp.sec) == (100 + 2 * (LAP + 2), 104)
    assert (closure.header.stamp, closure.header.frame_id) == (closure.query_stamp, "wheels")
    assert (closure.query_session, closure.match_session) == ("monday", "monday")
    assert closure.has_odom_poses
    assert closure.match_odom_pose == conversions.pose_message(spot(2))
    assert closure.is_calibrated
    assert closure.confidence >= 0.924
    assert closure.similarity == pytest.approx(1.0, abs=1e-3)
    assert closure.num_matches >= closure.num_consistent > 8
    assert (closure.bearing_offset, closure.has_bearing_rad, closure.is_metric) == (0.0, False, False)
    assert closure.measured_by == LoopClosure.NOTHING
    covariance = np.array(closure.relative_pose.covariance).reshape(6, 6)
    assert np.linalg.eigvalsh(covariance).min() > 0.0
    d.wait(lambda: markers and len(markers[-1].markers[1].points) == 12, "markers")
    assert len(markers[-1].markers[0].points) == LAP + 6
    d.wait(lambda: len(pairs) == 6, "the closures for LIO-SAM")
    assert list(pairs[2].data) == [100.0 + 2 * (LAP + 2), 104.0]

    saved = d.call(SaveMap, f"{NAME}/save_map", SaveMap.Request(path=str(tmp_path / "saved"), name="house"))
    assert saved.success, saved.message
    with PlaceMap.open(tmp_path / "saved") as place_map:
        assert (place_map.name, len(place_map), place_map.sessions) == ("house", LAP + 6, ["monday"])
        answer = PlaceRecognizer(extractor, place_map, RecognizerConfig(same_place_radius_m=0.5)).recognize(picture(9))
        assert answer.candidates[0].place.place_id == 9
    again = d.call(SaveMap, f"{NAME}/save_map", SaveMap.Request(path=str(tmp_path / "saved")))
    assert not again.success
    assert str(tmp_path / "saved") in again.message
    for path in ("", "~nosuchuser/map", "m" * 300):
        refused = d.call(SaveMap, f"{NAME}/save_map", SaveMap.Request(path=path))
        assert not refused.success
        assert refused.message

    assert d.change(Transition.TRANSITION_DEACTIVATE)
    assert d.change(Transition.TRANSITION_CLEANUP)
    d.closures.clear()
    d.start()
    # The pictures of the first lap close loops at once: they are of another run, whose odometry does not relate.
    assert d.go(LAP + 6).keyframe_id == LAP + 6
    d.wait(lambda: d.closures, "a closure with the run before")
    assert (d.closures[0].match_id, d.closures[0].match_session) == (6, "monday")
    assert not d.closures[0].has_odom_poses
    assert d.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    with PlaceMap.open(session_path) as place_map:
        assert len(place_map) == LAP + 7
        assert place_map.check() == []


def test_a_robot_that_stands_makes_no_keyframes(drive: Callable[..., Drive]):
    d = drive()
    d.start()
    d.go(0)
    counted = lambda: int(values(d.status()).get("count_normal", "0"))  # noqa: E731
    image = image_message(picture(0), 102)
    d.send(image, Pose.from_yaw(0.2, 0.0, 0.1), lambda: counted() >= 5, "images")
    assert len(d.keyframes) == 1
    # A turn on the spot shows something else.
    image = image_message(picture(1), 104)
    d.send(image, Pose.from_yaw(0.2, 0.0, 0.5), lambda: len(d.keyframes) == 2, "a keyframe by angle")


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_odometry_that_jumps_begins_a_new_track(drive: Callable[..., Drive]):
    d = drive(sequence_length=0)
    d.start()
    for step in range(LAP):
        d.go(step)
    far = Pose.from_yaw(500.0, 0.0, 0.0)
    image = image_message(picture(0), 100 + 2 * LAP)
    d.send(image, far, lambda: d.closures and len(d.keyframes) > LAP, "keyframe and closure after the jump")
    said = d.until_status("odometry jumped", DiagnosticStatus.WARN)
    assert (said["track"], said["count_odometry_jumped"]) == ("1", "1")
    assert (d.closures[0].match_id, d.closures[0].has_odom_poses) == (0, False)
    # Half a kilometre in two seconds was not driven.
    assert d.keyframes[-1].distance_m == pytest.approx(LAP - 1.0)


def test_stamps_that_go_back_begin_a_new_track(drive: Callable[..., Drive]):
    d = drive()
    d.start()
    for step in range(3):
        d.go(step)
    image = image_message(picture(20), 7)
    d.send(image, spot(0), lambda: d.keyframes[-1].header.stamp.sec == 7, "a keyframe after the clock was set back")
    said = d.until_status("time went backwards", DiagnosticStatus.WARN)
    assert (said["track"], said["count_clock_backwards"]) == ("1", "1")
    assert d.keyframes[-1].has_odom_pose


def test_odometry_that_stops_leaves_keyframes_by_time(drive: Callable[..., Drive]):
    d = drive(odom_wait_s=0.1)
    d.start()
    d.go(0)
    keyframe = d.go(1, posed=False)
    assert (keyframe.has_odom_pose, keyframe.header.frame_id) == (False, "wheels")
    d.until_status("odometry has stopped", DiagnosticStatus.ERROR)
    assert d.go(2).has_odom_pose


def test_odometry_that_never_comes_is_said(drive: Callable[..., Drive]):
    d = drive(odom_wait_s=0.1)
    d.start()
    keyframe = d.go(0, posed=False)
    assert (keyframe.has_odom_pose, keyframe.header.frame_id, keyframe.distance_m) == (False, "odom", 0.0)
    d.go(1, posed=False)
    d.until_status("no odometry is heard", DiagnosticStatus.WARN)


def test_odometry_that_comes_late_is_waited_for_and_interpolated(
    drive: Callable[..., Drive], monkeypatch: pytest.MonkeyPatch
):
    d = drive(odom_wait_s=10.0)
    d.start()
    d.go(0)
    d.tell(102.0, Pose.from_yaw(2.0, 0.0, 0.0))
    asked, interpolated = threading.Event(), d.node.configured.odometry.interpolated

    def noted(stamp_ns: int, wait_s: float) -> Pose | None:
        if stamp_ns == 102_500_000_000:
            asked.set()
        return interpolated(stamp_ns, wait_s)

    monkeypatch.setattr(d.node.configured.odometry, "interpolated", noted)
    image = image_message(picture(1), 102)
    image.header.stamp.nanosec = 500_000_000
    d.publish_until(image, asked.is_set, "the image to be looked at")
    time.sleep(0.3)
    assert len(d.keyframes) == 1
    d.tell(103.0, Pose.from_yaw(4.0, 0.0, 0.0))
    d.wait(lambda: len(d.keyframes) == 2, "the keyframe")
    assert d.keyframes[1].odom_pose.position.x == pytest.approx(3.0)


def test_images_without_odometry_are_left_out_where_it_is_required(drive: Callable[..., Drive]):
    d = drive(odom_wait_s=0.05, odometry_required=True)
    d.start()
    found = lambda: int(values(d.status()).get("count_odometry_missing", "0")) > 1  # noqa: E731
    d.send(image_message(picture(0), 100), None, found, "images that are left out")
    d.until_status("as odometry_required asks", DiagnosticStatus.ERROR)
    assert not d.keyframes
    assert d.go(1).keyframe_id == 0


def test_a_frozen_camera_makes_no_keyframes(drive: Callable[..., Drive]):
    d = drive()
    d.start()
    d.go(0)
    image = image_message(picture(0), 102)
    frozen = lambda: "the camera is frozen" in d.status().message  # noqa: E731
    d.send(image, spot(1), frozen, "a frozen camera")
    d.until_status("the camera is frozen", DiagnosticStatus.ERROR)
    assert len(d.keyframes) == 1
    assert d.go(2).keyframe_id == 1


def test_bad_images_are_reported_and_survived(drive: Callable[..., Drive]):
    d = drive()
    d.start()
    bad = Image(width=2, height=2, encoding="yuv9", step=2, data=b"abcd")
    said = lambda text: any(text in item.status[0].message for item in d.diagnostics)  # noqa: E731
    d.send(bad, None, lambda: said("has no stamp"), "a word on the stamp")
    bad.header.stamp.sec = 99
    d.send(bad, spot(0), lambda: said("yuv9"), "a word on the encoding")
    assert int(d.until_status("yuv9", DiagnosticStatus.ERROR)["count_undecodable"]) >= 2
    assert d.go(0).keyframe_id == 0


def test_a_full_disk_is_reported_and_survived(drive: Callable[..., Drive], monkeypatch: pytest.MonkeyPatch):
    d = drive()
    d.start()
    d.go(0)

    def full(*arguments: Any, **named: Any) -> None:
        raise MapError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(d.node.configured.engine.detector, "process", full)
        said = lambda: any("the disk is full" in item.status[0].message for item in d.diagnostics)  # noqa: E731
        d.send(image_message(picture(1), 102), spot(1), said, "a word on the disk")
        assert len(d.keyframes) == 1
    # The image of step 1 may come once more, now that there is space.
    d.go(2)
    assert [keyframe.keyframe_id for keyframe in d.keyframes] == list(range(len(d.keyframes)))


def test_silence_of_the_camera_is_said(drive: Callable[..., Drive]):
    d = drive(image_timeout_s=0.5)
    d.start()
    d.until_status("no image for", DiagnosticStatus.ERROR)


def test_an_unusable_folder_leaves_a_living_node_that_can_be_mended(
    drive: Callable[..., Drive], session_path: Path, tmp_path: Path
):
    (tmp_path / "file").write_text("no folder")
    d = drive(session_path=str(tmp_path / "file"))
    assert not d.change(Transition.TRANSITION_CONFIGURE)
    assert d.state() == State.PRIMARY_STATE_UNCONFIGURED
    request = SetParameters.Request(parameters=[Parameter("session_path", value=str(session_path)).to_parameter_msg()])
    assert d.call(SetParameters, f"{NAME}/set_parameters", request).results[0].successful
    d.start()
    assert d.go(0).keyframe_id == 0


def test_a_map_that_another_process_adds_to_is_refused(drive: Callable[..., Drive], session_path: Path):
    config = LoopNodeConfig(session_path=str(session_path))
    d = drive()
    assert d.change(Transition.TRANSITION_CONFIGURE)
    camera = CameraNodeConfig(weights=str(d.node.get_parameter("weights").value), device="cpu")
    with pytest.raises(MapError, match=r"is being written by .*process \d+ on"):
        LoopEngine(camera, config, LOOP_RECOGNIZER, LoopConfig())
    assert d.change(Transition.TRANSITION_CLEANUP)
    LoopEngine(camera, config, LOOP_RECOGNIZER, LoopConfig()).close()


def test_rules_change_while_it_runs_and_impossible_ones_are_refused(drive: Callable[..., Drive]):
    d = drive()
    d.start()
    d.go(0)

    def set_parameter(name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return d.call(SetParameters, f"{NAME}/set_parameters", request).results[0]

    assert set_parameter("keyframe_distance_m", 5.0).successful
    counted = lambda: int(values(d.status()).get("count_normal", "0")) > 2  # noqa: E731
    d.send(image_message(picture(1), 102), Pose.from_yaw(2.0, 0.0, 0.0), counted, "images")
    assert len(d.keyframes) == 1
    assert not set_parameter("keyframe_distance_m", -1.0).successful
    assert not set_parameter("score", "sum").successful
    assert not set_parameter("image_transport", "silly").successful
    assert not set_parameter("adapters", "nav2").successful
    assert not set_parameter("closures", "measured").successful


def test_a_temporary_session_vanishes(drive: Callable[..., Drive], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    d = drive(session_path="", model="vit_tiny_test_patch14", image_size=56)
    d.start()
    d.go(0)
    folder = next(tmp_path.glob("effovpr_session_*"))
    assert values(d.status())["map"] == str(folder)
    assert d.change(Transition.TRANSITION_DEACTIVATE)
    assert d.change(Transition.TRANSITION_CLEANUP)
    assert not folder.exists()


AHEAD = "0.2 0 0.5 -1.5707963 0 -1.5707963"
# The picture of one spot is seen again at another.
ANYWHERE = {
    "min_keyframes": 3,
    "min_age_s": 0.0,
    "min_distance_m": 0.0,
    "sequence_length": 0,
    "max_heading_deg": 180.0,
}


def test_camera_info_and_depth_give_bearings_and_metric_closures(drive: Callable[..., Drive]):
    d = drive(camera_pose=AHEAD, use_depth=True, **ANYWHERE)
    infos = d.client.create_publisher(CameraInfo, "/camera_info", qos_profile_sensor_data)
    depths = d.client.create_publisher(Image, "/depth", 5)
    d.start()

    def go(step: int, number: int) -> None:
        stamp_s = 100 + 2 * step
        noise = np.random.default_rng(number).integers(0, 256, (240, 320, 3)).astype(np.uint8)
        image = image_message(cv2.GaussianBlur(noise, (0, 0), 2.0), stamp_s)
        seen = lambda: d.keyframes and d.keyframes[-1].header.stamp.sec == stamp_s  # noqa: E731
        wall = np.full((240, 320), 3.0, np.float32)
        depths.publish(
            Image(header=image.header, height=240, width=320, encoding="32FC1", step=1280, data=wall.tobytes())
        )
        d.send(image, spot(step), seen, f"keyframe of step {step}")

    for step, number in enumerate((0, 1, 2, 3, 0)):
        go(step, number)
    d.wait(lambda: d.closures, "a closure")
    assert (d.closures[0].measured_by, d.closures[0].is_metric) == (LoopClosure.NOTHING, False)
    assert not d.closures[0].has_bearing_rad
    d.until_status("no usable camera_info", DiagnosticStatus.WARN)
    info = CameraInfo(width=320, height=240, k=[277.0, 0.0, 159.5, 0.0, 277.0, 119.5, 0.0, 0.0, 1.0])

    def heard() -> bool:
        infos.publish(info)
        return d.node.configured.geometry.camera() is not None

    d.wait(heard, "camera_info")
    go(5, 1)
    d.wait(lambda: len(d.closures) == 2, "a measured closure")
    closure = d.closures[1]
    assert (closure.measured_by, closure.is_metric) == (LoopClosure.DEPTH, True)
    assert closure.num_inliers >= 30
    assert (closure.has_bearing_rad, closure.bearing_offset_rad) == (True, 0.0)
    # The same picture of a wall 3 m ahead: the robot is where it was, and knows it to centimetres.
    position = closure.relative_pose.pose.position
    assert (position.x, position.y, position.z) == pytest.approx((0.0, 0.0, 0.0), abs=0.02)
    assert 0.0 < closure.relative_pose.covariance[0] < 0.01
    assert values(d.status())["count_poses_by_depth"] == "1"


def test_a_closure_that_is_not_measured_is_refused_where_only_measured_ones_are_wanted(drive: Callable[..., Drive]):
    d = drive(camera_pose=AHEAD, closures="measured", **ANYWHERE)
    infos = d.client.create_publisher(CameraInfo, "/camera_info", qos_profile_sensor_data)
    d.start()
    info = CameraInfo(width=96, height=72, k=[80.0, 0.0, 47.5, 0.0, 80.0, 35.5, 0.0, 0.0, 1.0])

    def heard() -> bool:
        infos.publish(info)
        return d.node.configured.geometry.camera() is not None

    d.wait(heard, "camera_info")
    for step, number in enumerate((0, 1, 2, 3, 0)):
        d.go(step, number)
    d.wait(lambda: values(d.status()).get("count_refused_closures") == "1", "a refusal")
    assert values(d.status())["last_refusal"].startswith("no relative pose of keyframes 4 and 0: ")
    assert not d.closures


def test_a_closure_that_the_odometry_contradicts_is_counted_and_explained(drive: Callable[..., Drive]):
    d = drive(min_keyframes=3, min_age_s=0.0, min_distance_m=0.0, sequence_length=0)
    d.start()
    for step in range(LAP // 2):
        d.go(step)
    d.go(LAP // 2, 0)
    d.wait(lambda: values(d.status()).get("count_refused_closures") == "1", "a contradiction")
    said = values(d.status())
    assert said["last_refusal"] == (
        "keyframes 7 and 0 are turned by 180 degrees by odometry, above max_heading_deg 100"
    )
    assert not d.closures
    # Half a circle more, and the same picture is where it was.
    for step in range(LAP // 2 + 1, LAP):
        d.go(step)
    d.go(LAP)
    d.wait(lambda: d.closures, "a closure")
    assert d.closures[0].match_id == 0


PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import synthetic
from effovpr_ros.nodes.loop_closure_detector import main
main()
"""


@contextmanager
def process(**parameters: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The node as a process of its own."""
    command = [sys.executable, "-P", "-c", PROGRAM, str(Path(__file__).parents[1]), "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    running = subprocess.Popen(command, start_new_session=True)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextmanager
def client() -> Iterator[Drive]:
    d = Drive(None, {})
    try:
        yield d
    finally:
        d.close()


def test_a_kill_loses_nothing_that_was_published_and_a_restart_goes_on(session_path: Path, extractor: FeatureExtractor):
    parameters = {
        "session_path": session_path,
        "session": "monday",
        "weights": extractor.config.weights,
        "device": "cpu",
        "odom_wait_s": 1.0,
        "sequence_length": 0,
    }
    with process(**parameters), client() as d:
        d.await_node()
        d.start()
        for step in range(5):
            d.go(step)
    with PlaceMap.open(session_path) as place_map:
        assert [place.stamp_ns for place in place_map.places()] == [(100 + 2 * n) * 10**9 for n in range(5)]
    # A client that had met the process that was killed would go on waiting for its answers.
    with process(**parameters), client() as d:
        d.await_node()
        d.start()
        assert d.go(5).keyframe_id == 5
        assert d.go(6, number=2).keyframe_id == 6
        d.wait(lambda: d.closures, "a closure with what was there before the kill")
        assert (d.closures[0].match_id, d.closures[0].has_odom_poses) == (2, False)
