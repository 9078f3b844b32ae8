"""The query's camera: camera_info, /tf_static and parameters, heard by the node over DDS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped  # noqa: E402
from harness import Harness, image_message  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from synthetic import picture, tiny_extractor, tiny_weights  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from effovpr_ros.core.cameras import CameraModel  # noqa: E402
from effovpr_ros.core.mounted_cameras import MountedCamera, parse_pose  # noqa: E402
from effovpr_ros.core.poses import Pose  # noqa: E402
from effovpr_ros.mapping.build_config import BuildConfig  # noqa: E402
from effovpr_ros.mapping.builder import build_map  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.mapping.session_cameras import set_session_camera  # noqa: E402
from effovpr_ros.msg import PlaceMatch  # noqa: E402
from effovpr_ros.nodes.outputs import RESULT_QOS  # noqa: E402
from effovpr_ros.nodes.place_recognizer import PlaceRecognizerNode  # noqa: E402
from effovpr_ros.recognition.confidence import ConfidenceModel, setting_name, store_confidence_model  # noqa: E402
from effovpr_ros.recognition.evidence import FIGURES  # noqa: E402
from effovpr_ros.recognition.recognizer import PlaceRecognizer  # noqa: E402
from effovpr_ros.recognition.recognizer_config import RecognizerConfig  # noqa: E402
from effovpr_ros.sources.bag_cameras import camera_of_bag  # noqa: E402
from effovpr_ros.sources.bag_writer import BagWriter  # noqa: E402
from effovpr_ros.sources.bags import BagSource  # noqa: E402
from effovpr_ros.sources.frame import Frame  # noqa: E402

NAME = "/place_recognizer"
CAMERA = CameraModel((64, 48), (50.0, 51.0), (31.5, 23.5))
AHEAD = "0.2 0 0.5 -1.5707963267948966 0 -1.5707963267948966"
# Looks back and a little to the left, behind and above the middle of the robot.
BACK = "-0.35 0.12 0.61 -1.5707963267948966 0 1.4"
LATCHED = QoSProfile(depth=10, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Eight pictures 20 m apart by a camera that looks ahead, and the weights of the model."""
    folder = tmp_path_factory.mktemp("maps")
    extractor = tiny_extractor(folder)
    weights = tuple(10.0 if name == "consistent_share" else 0.0 for name in FIGURES)
    setting = setting_name(extractor.fingerprint, RecognizerConfig())
    with PlaceMap.create(folder / "house", fingerprint=extractor.fingerprint) as place_map:
        set_session_camera(place_map, "house", MountedCamera(CAMERA, parse_pose(AHEAD)))
        frames = [
            Frame(f"{n}.jpg", "house", n, Pose.from_yaw(20.0 * n, 0.0, 0.5, 0.25), None, lambda n=n: picture(n))
            for n in range(8)
        ]
        build_map(place_map, extractor, frames, BuildConfig())
        store_confidence_model(place_map, ConfidenceModel(setting, weights, -5.0, 0.924, 0.99, "by hand", 40, 0.0))
    return {"house": folder / "house", "weights": tiny_weights(folder), "folder": folder}


@pytest.fixture
def harness(maps: dict[str, Path]) -> Iterator[Callable[..., Harness]]:
    made: list[Harness] = []

    def make(**parameters: Any) -> Harness:
        # One at a time: two nodes of one name would answer each other's calls.
        while made:
            made.pop().close()
        defaults = {"weights": str(maps["weights"]), "device": "cpu", "map_path": str(maps["house"]), "verify": "off"}
        made.append(Harness(PlaceRecognizerNode, {**defaults, **parameters}))
        return made[-1]

    yield make
    for item in made:
        item.close()


def info(frame_id: str = "optical", camera: CameraModel = CAMERA) -> CameraInfo:
    message = CameraInfo(width=camera.image_size_wh[0], height=camera.image_size_wh[1])
    message.k = camera.matrix.ravel()
    message.distortion_model = camera.distortion_model
    message.d = list(camera.distortion)
    message.header.frame_id = frame_id
    return message


def transform(child: str, pose: Pose, parent: str = "base_link") -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    shift, turn = message.transform.translation, message.transform.rotation
    shift.x, shift.y, shift.z = pose.known_xyz
    turn.x, turn.y, turn.z, turn.w = pose.known_quat_xyzw
    return message


def published(h: Harness, mounting: Pose | None, infos: bool = True) -> PoseWithCovarianceStamped:
    """The pose of picture 5 once the node knows the camera."""
    poses, diagnostics = h.listen(PoseWithCovarianceStamped, f"{NAME}/pose"), h.listen(DiagnosticArray, "/diagnostics")
    if mounting is not None:
        latched = h.client.create_publisher(TFMessage, "/tf_static", LATCHED)
        latched.publish(TFMessage(transforms=[transform("optical", mounting)]))
    h.start()
    if infos:
        publisher = h.client.create_publisher(CameraInfo, "/camera_info", RESULT_QOS)
        known = lambda: "of the map's" not in values(diagnostics).get("camera_mounting", "of the map's")  # noqa: E731
        h.publish_until(info(), known, "the camera in diagnostics", publisher)
    poses.clear()
    h.publish_until(image_message(picture(5)), lambda: poses, "a pose")
    return poses[-1]


def values(diagnostics: list[DiagnosticArray]) -> dict[str, str]:
    return {pair.key: pair.value for pair in diagnostics[-1].status[0].values} if diagnostics else {}


def said(h: Harness, diagnostics: list[DiagnosticArray], text: str) -> Callable[[], bool]:
    return lambda: any(
        text in item.status[0].message or any(text in pair.value for pair in item.status[0].values)
        for item in diagnostics
    )


def apart(a: Pose, b: PoseWithCovarianceStamped) -> tuple[float, float]:
    position, turn = b.pose.pose.position, b.pose.pose.orientation
    other = Pose((position.x, position.y, position.z), (turn.x, turn.y, turn.z, turn.w))
    return a.distance_m(other), math.degrees(a.turn_rad(other) or 0.0)


def test_a_mounting_given_by_bag_transform_and_parameter_gives_one_pose(
    harness: Callable[..., Harness], maps: dict[str, Path], tmp_path: Path
):
    """By hand: the camera's axis is 1.4 + pi/2 left of the robot's front instead of ahead, so that the robot is turned
    by that much to the right; and its middle is where the camera was, less the lever turned with it."""
    mounting = parse_pose(BACK)
    with BagWriter(tmp_path / "bag") as writer:
        writer.write_static_transform(0, "base_link", "optical", mounting)
        writer.write_odometry("/odom", 10**9, mounting, frame_id="odom", child_frame_id="base_link")
        writer.write_camera_info("/camera_info", 10**9, "optical", CAMERA)
        writer.write_image("/image", 10**9, np.zeros((48, 64, 3), np.uint8), "optical")
    of_bag, notes = camera_of_bag(BagSource(tmp_path / "bag"), "base_link")
    assert notes == []
    extractor = tiny_extractor(maps["folder"])
    with PlaceMap.open(maps["house"]) as place_map:
        recognizer = PlaceRecognizer(extractor, place_map, RecognizerConfig(verify="off"))
        by_bag = recognizer.recognize(picture(5), camera=of_bag).pose
    assert by_bag is not None
    yaw = 0.5 - (1.4 + math.pi / 2.0)
    shift = Rotation.from_euler("z", 0.5).apply((0.2, 0.0, 0.0)) - Rotation.from_euler("z", yaw).apply((-0.35, 0.12, 0))
    assert by_bag.known_xyz == pytest.approx((100.0 + shift[0], shift[1], 0.25), abs=1e-9)
    assert math.remainder(by_bag.known_yaw_rad - yaw, math.tau) == pytest.approx(0.0, abs=1e-9)
    for parameters, live in (({}, mounting), ({"camera_pose": BACK}, None)):
        distance_m, turn_deg = apart(by_bag, published(harness(**parameters), live))
        assert distance_m < 0.001
        assert turn_deg < 0.01


def test_without_camera_info_the_maps_camera_counts_and_that_is_said(harness: Callable[..., Harness]):
    h = harness()
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    pose = published(h, None, infos=False)
    assert pose.pose.pose.position.x == 100.0
    h.wait(said(h, diagnostics, "of the map's session: nothing heard on /camera_info"), "the fallback in diagnostics")
    assert diagnostics[-1].status[0].level == b"\x01"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (info("nowhere"), "no static transform from base_link to 'nowhere'"),
        (CameraInfo(width=64, height=48), "not calibrated"),
    ],
    ids=["no transform", "zeros"],
)
def test_what_is_wrong_with_a_camera_is_said_and_images_are_answered(
    harness: Callable[..., Harness], message: CameraInfo, text: str
):
    h = harness()
    diagnostics, matches = h.listen(DiagnosticArray, "/diagnostics"), h.listen(PlaceMatch, f"{NAME}/match")
    h.start()
    publisher = h.client.create_publisher(CameraInfo, "/camera_info", RESULT_QOS)
    h.publish_until(message, said(h, diagnostics, text), "a word in diagnostics", publisher)
    h.publish_until(image_message(picture(5)), lambda: matches, "an answer")
    assert matches[-1].candidates[0].place_id == 5


def test_a_transform_that_comes_late_or_changes_counts_from_then_on(harness: Callable[..., Harness]):
    h = harness()
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    poses = h.listen(PoseWithCovarianceStamped, f"{NAME}/pose")
    h.start()
    publisher = h.client.create_publisher(CameraInfo, "/camera_info", RESULT_QOS)
    h.publish_until(info(), said(h, diagnostics, "no static transform"), "the camera", publisher)
    latched = h.client.create_publisher(TFMessage, "/tf_static", LATCHED)
    # What would make a frame its own ancestor is left out.
    loop = [transform("a", parse_pose(AHEAD), "b"), transform("b", parse_pose(AHEAD), "a")]
    latched.publish(TFMessage(transforms=[*loop, transform("optical", parse_pose(BACK))]))
    h.wait(said(h, diagnostics, "/tf_static from base_link to optical"), "the late transform")
    image = image_message(picture(5))
    h.publish_until(image, lambda: poses and abs(poses[-1].pose.pose.position.x - 100.0) > 0.01, "a turned pose")
    latched.publish(TFMessage(transforms=[transform("optical", parse_pose(AHEAD))]))
    h.publish_until(image, lambda: abs(poses[-1].pose.pose.position.x - 100.0) < 1e-6, "a pose as the map's")
    h.wait(lambda: values(diagnostics)["static_transforms_changed"] == "1", "the change in diagnostics")
    assert values(diagnostics)["static_transforms_left_out"] == "1"
    # Told again, nothing is new.
    latched.publish(TFMessage(transforms=[transform("optical", parse_pose(AHEAD))]))
    h.publish_until(image, lambda: len(poses) > 3, "another pose")
    assert values(diagnostics)["static_transforms_changed"] == "1"


TWO = {
    "cameras": "front, rear",
    "front.image_topic": "/front/image_raw",
    "front.camera_pose": AHEAD,
    "rear.image_topic": "/rear/image_raw",
    "rear.camera_pose": BACK,
    "camera_wait_s": 0.3,
}


def test_two_cameras_are_one_query_and_all_is_counted(harness: Callable[..., Harness]):
    """The rear camera has another size and a distortion, and sees what the map's camera saw ahead from place 2."""
    h = harness(**TWO)
    matches, diagnostics = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(DiagnosticArray, "/diagnostics")
    topics = {name: h.client.create_publisher(Image, f"/{name}/image_raw", RESULT_QOS) for name in ("front", "rear")}
    infos = {name: h.client.create_publisher(CameraInfo, f"/{name}/camera_info", RESULT_QOS) for name in topics}
    h.start()
    odd = CameraModel((80, 48), (60.0, 60.0), (39.5, 23.5), "equidistant", (0.01, 0.0, 0.0, 0.0))
    for name, camera in (("front", CAMERA), ("rear", odd)):
        known = lambda name=name: values(diagnostics).get(f"{name}.camera_calibration") == f"/{name}/camera_info"  # noqa: E731
        h.publish_until(info(name, camera), known, f"{name} in diagnostics", infos[name])
    h.wait(lambda: all(topic.get_subscription_count() for topic in topics.values()), "the node to listen")
    wide = np.asarray(np.pad(picture(2), ((0, 0), (0, 16), (0, 0)))) if picture(2).shape[1] == 64 else picture(2)
    both = lambda: any("front" in match.reason and "rear" in match.reason for match in matches)  # noqa: E731
    for number in range(60):
        topics["front"].publish(image_message(picture(2), 100 + number))
        topics["rear"].publish(image_message(wide, 100 + number))
        try:
            h.wait(both, "an answer of both", 1.0)
            break
        except AssertionError:
            continue
    assert both()
    # The rear camera fails: the front one is answered alone, within the wait.
    alone = lambda: any(match.header.stamp.sec >= 1000 and "rear" not in match.reason for match in matches)  # noqa: E731
    for number in range(60):
        topics["front"].publish(image_message(picture(5), 1000 + number))
        try:
            h.wait(alone, "an answer of the front alone", 1.0)
            break
        except AssertionError:
            continue
    assert alone()
    late = image_message(picture(5), 1000)
    h.publish_until(late, lambda: int(values(diagnostics)["images_late"]) > 0, "a late image", topics["rear"])

    def settled() -> bool:
        found = values(diagnostics)
        counted = sum(int(value) for key, value in found.items() if key.startswith("count_"))
        counted += int(found["dropped_frames"]) + int(found["errors"])
        return int(found["queries"]) == counted and int(found["queries_incomplete"]) > 0

    h.wait(settled, "every query in diagnostics")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"rear.image_topic": "/front/image_raw"}, "cameras front and rear have one topic"),
        ({"rear.image_topic": ""}, "set rear.image_topic"),
        ({"rear.camera_pose": "1 2 3"}, "not six numbers"),
    ],
)
def test_impossible_cameras_are_refused_with_the_remedy(
    harness: Callable[..., Harness], changed: dict[str, str], text: str
):
    h = harness(**{**TWO, **changed})
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    assert not h.change(Transition.TRANSITION_CONFIGURE)
    h.wait(said(h, diagnostics, text), "the reason in diagnostics")


def test_clocks_of_two_cameras_that_are_apart_are_said(harness: Callable[..., Harness]):
    h = harness(**{**TWO, "camera_wait_s": 0.02})
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    topics = {name: h.client.create_publisher(Image, f"/{name}/image_raw", RESULT_QOS) for name in ("front", "rear")}
    h.start()
    h.wait(lambda: all(topic.get_subscription_count() for topic in topics.values()), "the node to listen")
    for number in range(30):
        topics["front"].publish(image_message(picture(5), 100 + number))
        topics["rear"].publish(image_message(picture(2), 5100 + number))
        h.wait(lambda: True, "nothing")
    h.publish_until(
        image_message(picture(5), 200), said(h, diagnostics, "synchronise their clocks"), "a word on the clocks",
        topics["front"],
    )  # fmt: skip
