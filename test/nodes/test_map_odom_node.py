"""`map -> odom` and `~/relocalize` of the node, over DDS. Answers are given by hand: a tiny model measures no pose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TransformStamped  # noqa: E402
from harness import Harness, image_message  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.node import Node  # noqa: E402
from synthetic import picture, tiny_extractor, tiny_weights  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from effovpr_ros.action import Relocalize  # noqa: E402
from effovpr_ros.core.poses import Pose  # noqa: E402
from effovpr_ros.mapping.build_config import BuildConfig  # noqa: E402
from effovpr_ros.mapping.builder import build_map  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.mapping.session_origins import SessionOrigin, write_origins  # noqa: E402
from effovpr_ros.msg import PlaceMatch  # noqa: E402
from effovpr_ros.nodes import other_broadcasters  # noqa: E402
from effovpr_ros.nodes.place_recognizer import PlaceRecognizerNode  # noqa: E402
from effovpr_ros.nodes.recognizing import Recognizing  # noqa: E402
from effovpr_ros.nodes.robot_odometry import TF_QOS  # noqa: E402
from effovpr_ros.sources.frame import Frame  # noqa: E402

NAME = "/place_recognizer"
FAST = {"tf_rate_hz": 50.0, "transform_tolerance_s": 0.25}


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Maps in frames map and odom, and one of another body's poses."""
    folder = tmp_path_factory.mktemp("maps")
    extractor, made = tiny_extractor(folder), {"weights": tiny_weights(folder)}
    for name, frame_id, body in (("map", "map", "base_link"), ("odom", "odom", "base_link"), ("lens", "map", "lens")):
        made[name] = folder / name
        with PlaceMap.create(made[name], fingerprint=extractor.fingerprint, frame_id=frame_id) as place_map:
            frames = [
                Frame(f"{n}.jpg", "s", n, Pose.from_yaw(20.0 * n, 0.0, 0.0), None, lambda n=n: picture(n))
                for n in range(4)
            ]
            build_map(place_map, extractor, frames, BuildConfig())
            write_origins(place_map, {"s": SessionOrigin(frame_id, body)})
    return made


@pytest.fixture
def harness(maps: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Harness]]:
    monkeypatch.setattr(other_broadcasters, "_LISTEN_S", 0.3)
    monkeypatch.setattr(other_broadcasters, "_ASK_EVERY_S", 0.1)
    made: list[Harness] = []

    def make(which: str = "map", **parameters: Any) -> Harness:
        defaults = {"weights": str(maps["weights"]), "device": "cpu", "map_path": str(maps[which])}
        made.append(Harness(PlaceRecognizerNode, {**defaults, **parameters}))
        return made[-1]

    yield make
    for item in made:
        item.close()


def transform(parent: str, child: str, stamp_s: float, x: float) -> TFMessage:
    item = TransformStamped(child_frame_id=child)
    item.header.frame_id = parent
    item.header.stamp.sec, item.header.stamp.nanosec = int(stamp_s), round((stamp_s % 1.0) * 1e9)
    item.transform.translation.x = x
    item.transform.rotation.w = 1.0
    return TFMessage(transforms=[item])


def measured(stamp_s: float, x: float, status: int = PlaceMatch.MATCH, is_metric: bool = True) -> PlaceMatch:
    match = PlaceMatch(status=status, confidence=0.95, has_pose=True, is_metric=is_metric)
    match.header.frame_id = "map"
    match.header.stamp.sec, match.header.stamp.nanosec = int(stamp_s), round((stamp_s % 1.0) * 1e9)
    match.pose.pose.position.x = x
    match.pose.pose.orientation.w = 1.0
    match.pose.covariance = np.diag([0.03**2] * 3 + [0.01**2] * 3).ravel()
    return match


class Drive:
    """A robot at 1 m/s whose odometry began at 10 m in the map; it answers for the camera."""

    def __init__(self, h: Harness) -> None:
        self.h = h
        self.transforms = h.listen(TFMessage, "/tf", TF_QOS)
        self.diagnostics = h.listen(DiagnosticArray, "/diagnostics")
        self.tf = h.client.create_publisher(TFMessage, "/tf", TF_QOS)
        self.odometry = h.client.create_publisher(Odometry, "odom", 10)
        self.time_s = 100.0
        self.begun_anew_m = 0.0

    def step(self, *, answer: bool = True, offset: float = 10.0, topic: bool = False, **options: Any) -> None:
        self.time_s += 0.1
        x = self.time_s - 100.0 - self.begun_anew_m
        if topic:
            message = Odometry(child_frame_id="base_link")
            message.header.frame_id = "odom"
            message.header.stamp = transform("", "", self.time_s, 0.0).transforms[0].header.stamp
            message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
            self.odometry.publish(message)
        else:
            self.tf.publish(transform("odom", "base_link", self.time_s, x))
        if answer:
            match = measured(self.time_s - 0.05, x - 0.05 + offset, **options)
            pose = SimpleNamespace() if match.status == PlaceMatch.MATCH else None
            for adapter in self.h.node.configured.robot.adapters:
                adapter.on_match(match, pose)
        time.sleep(0.06)

    def until(self, condition: Callable[[], Any], what: str, **options: Any) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.values()}"
            self.step(**options)

    def broadcast(self) -> list[TransformStamped]:
        return [item for message in self.transforms for item in message.transforms if item.header.frame_id == "map"]

    def values(self) -> dict[str, str]:
        if not self.diagnostics:
            return {}
        status = self.diagnostics[-1].status[0]
        return {"message": status.message, **{pair.key: pair.value for pair in status.values}}


@pytest.mark.parametrize("topic", [False, True])
def test_the_transform_is_published_dated_ahead_from_answers_that_agree(harness: Callable[..., Harness], topic: bool):
    h = harness(publish_tf=True, tf_odometry="topic" if topic else "tf", **FAST)
    drive = Drive(h)
    h.start()
    drive.until(lambda: len(drive.broadcast()) > 5, "transforms", topic=topic)
    sent = drive.broadcast()
    last = sent[-1]
    assert (last.header.frame_id, last.child_frame_id) == ("map", "odom")
    assert last.transform.translation.x == pytest.approx(10.0, abs=0.02)
    assert last.transform.rotation.w == pytest.approx(1.0)
    stamps = [item.header.stamp.sec + item.header.stamp.nanosec * 1e-9 for item in sent]
    assert stamps == sorted(set(stamps))
    # Each is a time of the odometry, which comes every 0.1 s, and the tolerance.
    assert (stamps[-1] - 0.25) * 10.0 == pytest.approx(round((stamps[-1] - 0.25) * 10.0), abs=1e-3)
    assert drive.time_s - 1.0 < stamps[-1] <= drive.time_s + 0.25 + 1e-6
    drive.until(lambda: drive.values().get("tf_state") == "TRACKING", "the state", topic=topic)
    assert float(drive.values()["tf_position_std_m"]) < 0.1
    # Nothing is sent once the node is inactive.
    h.change(Transition.TRANSITION_DEACTIVATE)
    count = len(drive.broadcast())
    for _ in range(5):
        drive.step(topic=topic, answer=False)
    assert len(drive.broadcast()) <= count + 1


def test_priors_and_doubtful_answers_alone_do_not_count(harness: Callable[..., Harness]):
    h = harness(publish_tf=True, **FAST)
    drive = Drive(h)
    h.start()
    for _ in range(8):
        drive.step(is_metric=False)
        drive.step(status=PlaceMatch.AMBIGUOUS)
    assert drive.broadcast() == []
    drive.until(lambda: drive.values().get("tf_state") == "WAITING", "the state", answer=False)


def test_doubtful_answers_count_where_odometry_foretells_them(harness: Callable[..., Harness]):
    h = harness(publish_tf=True, **FAST)
    drive = Drive(h)
    h.start()
    drive.until(lambda: drive.values().get("tf_state") == "TRACKING", "the state")
    used = int(drive.values()["tf_used"])
    drive.until(lambda: int(drive.values()["tf_used"]) > used + 5, "doubtful answers", status=PlaceMatch.AMBIGUOUS)
    assert drive.values()["tf_state"] == "TRACKING"
    assert h.node.configured.robot.weighs_doubtful_answers


def test_it_does_not_start_beside_another_broadcaster_and_names_it(harness: Callable[..., Harness]):
    h = harness(publish_tf=True, **FAST)
    drive = Drive(h)
    other = Node("some_slam", context=h.context)
    publisher = other.create_publisher(TFMessage, "/tf", TF_QOS)
    h.start()

    def step() -> bool:
        publisher.publish(transform("map", "odom", drive.time_s, 3.0))
        drive.step()
        return "tf_state" in drive.values() and "is broadcast already" in drive.values()["message"]

    drive.h.wait(step, "the refusal")
    message = drive.values()["message"]
    assert "map -> odom is broadcast already" in message
    assert "/some_slam" in message
    assert drive.diagnostics[-1].status[0].level == DiagnosticStatus.ERROR
    assert {item.transform.translation.x for item in drive.broadcast()} == {3.0}
    # Once the other one is stopped, another activation begins anew.
    other.destroy_node()
    h.change(Transition.TRANSITION_DEACTIVATE)
    h.change(Transition.TRANSITION_ACTIVATE)
    drive.until(lambda: drive.broadcast()[-1].transform.translation.x > 5.0, "transforms of its own")


def test_it_does_not_start_beside_amcl_that_waits_for_a_pose(harness: Callable[..., Harness]):
    h = harness(publish_tf=True, **FAST)
    drive = Drive(h)
    amcl = Node("amcl", context=h.context)
    amcl.declare_parameter("tf_broadcast", True)
    amcl.declare_parameter("odom_frame_id", "odom")
    amcl.create_publisher(TFMessage, "/tf", TF_QOS)
    executor = rclpy.executors.SingleThreadedExecutor(context=h.context)
    executor.add_node(amcl)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        h.start()
        drive.until(lambda: "tf_broadcast" in drive.values().get("message", ""), "the refusal", answer=False)
        assert "/amcl has tf_broadcast true" in drive.values()["message"]
    finally:
        executor.shutdown()
        thread.join(5.0)
        amcl.destroy_node()


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("odom", "built from odometry; build it with --frame-id map"),
        ("lens", "poses of lens, and body_frame is 'base_link'"),
    ],
)
def test_a_map_whose_frames_do_not_fit_is_refused_with_the_remedy(
    harness: Callable[..., Harness], which: str, said: str
):
    h = harness(which, publish_tf=True, **FAST)
    drive = Drive(h)
    h.start()
    drive.until(lambda: said in drive.values().get("message", ""), "the refusal")
    assert drive.broadcast() == []


def test_one_frame_for_odometry_and_body_is_refused(harness: Callable[..., Harness]):
    h = harness(publish_tf=True, odom_frame="/base_link", **FAST)
    drive = Drive(h)
    assert not h.change(Transition.TRANSITION_CONFIGURE)
    h.wait(lambda: "are both 'base_link'" in drive.values().get("message", ""), "the reason")


def test_frames_may_be_written_with_a_slash(harness: Callable[..., Harness]):
    h = harness(publish_tf=True, odom_frame="/odom", **FAST)
    drive = Drive(h)
    h.start()
    drive.until(lambda: len(drive.broadcast()) > 2, "transforms")
    assert drive.broadcast()[-1].child_frame_id == "odom"


def test_odometry_that_is_missing_or_jumps_is_told(harness: Callable[..., Harness]):
    h = harness(publish_tf=True, tf_odom_timeout_s=0.5, **FAST)
    drive = Drive(h)
    h.start()
    h.wait(lambda: "no transform joins odom and base_link" in drive.values().get("message", ""), "what is missing")
    drive.until(lambda: drive.values().get("tf_state") == "TRACKING", "the state")
    drive.begun_anew_m = 40.0
    drive.until(lambda: "odometry jumped" in drive.values().get("message", ""), "the jump", answer=False)
    assert drive.values()["tf_odometry_jumps"] == "1"
    assert drive.values()["tf_state"] == "LOST"
    h.wait(lambda: "does not move on in time on /tf" in drive.values().get("message", ""), "the silence")
    # What would close a loop is left out and counted.
    drive.tf.publish(transform("base_link", "lens", drive.time_s, 0.0))
    drive.tf.publish(transform("lens", "base_link", drive.time_s, 0.0))
    h.wait(lambda: drive.values()["tf_left_out"] == "1", "the loop")
    # So are values that no robot reaches, which would carry the map's frame off with them.
    drive.tf.publish(transform("odom", "base_link", drive.time_s + 0.1, 1e308))
    h.wait(lambda: drive.values()["tf_left_out"] == "2", "the far transform")
    assert drive.values()["tf_odometry_jumps"] == "1"


# ~/relocalize


class Asker:
    """A client of the action whose images come one after the other; answers are those of `x_of`."""

    def __init__(self, h: Harness, monkeypatch: pytest.MonkeyPatch, x_of: Callable[[int], float | None]) -> None:
        self.h, self.feedback = h, []
        self.client = ActionClient(h.client, Relocalize, f"{NAME}/relocalize")
        assert self.client.wait_for_server(30.0)
        recognize, self.asked = Recognizing._recognize, []

        def answer(node: Recognizing, query: Any) -> Any:
            made = recognize(node, query)
            number = len(self.asked)
            self.asked.append(made.match.header.stamp.sec)
            x = x_of(number)
            given = measured(0.0, x or 0.0, PlaceMatch.MATCH if x is not None else PlaceMatch.NO_MATCH)
            given.header = made.match.header
            made.match.status, made.match.has_pose, made.match.confidence = given.status, x is not None, 0.9
            made.match.pose = given.pose
            return made

        monkeypatch.setattr(Recognizing, "_recognize", answer)

    def send(self, **goal: Any) -> Any:
        future = self.client.send_goal_async(Relocalize.Goal(**goal), lambda item: self.feedback.append(item.feedback))
        self.h.wait(future.done, "the goal's acceptance")
        return future.result()

    def result(self, handle: Any, sec: int = 200) -> Any:
        future = handle.get_result_async()
        deadline = time.monotonic() + 30.0
        while not future.done():
            assert time.monotonic() < deadline, "no result"
            sec += 1
            self.h.images.publish(image_message(picture(1), sec))
            time.sleep(0.1)
        return future.result()


def test_relocalize_asks_until_answers_agree(harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch):
    h = harness(max_rate_hz=0.001)
    h.start()
    weighed = []

    def x_of(number: int) -> float | None:
        weighed.append(h.node.configured.robot.weighs_doubtful_answers)
        return [None, 7.0, 50.0, 7.1, 7.05][min(number, 4)]

    asker = Asker(h, monkeypatch, x_of)
    assert not h.node.configured.robot.weighs_doubtful_answers
    handle = asker.send(timeout_s=30.0, num_agreeing=3)
    assert handle.accepted
    done = asker.result(handle)
    result = done.result
    assert done.status == GoalStatus.STATUS_SUCCEEDED
    assert (result.status, result.num_agreeing, result.has_pose) == (Relocalize.Result.SURE, 3, True)
    assert result.num_images >= 4
    assert result.pose.pose.pose.position.x == pytest.approx(7.05, abs=0.06)
    assert (result.pose.header.frame_id, result.confidence) == ("map", pytest.approx(0.9))
    assert result.pose.pose.covariance[0] == pytest.approx(0.03**2)
    # The first belongs to the stream of images too, at a rate that brings no other.
    assert len(set(asker.asked[1:])) == len(asker.asked[1:]), "no image is asked twice"
    # Doubtful poses are measured while the action runs, and no longer.
    assert weighed[-1]
    h.wait(lambda: not h.node.configured.robot.weighs_doubtful_answers, "the end")
    states = [item.state for item in asker.feedback]
    assert states[-1] == Relocalize.Feedback.CONFIRMING
    assert max(item.num_agreeing for item in asker.feedback) == 3


def test_relocalize_ends_by_time_and_says_so(harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch):
    h = harness()
    h.start()
    asker = Asker(h, monkeypatch, lambda number: 30.0 * number)
    done = asker.result(asker.send(timeout_s=1.5))
    assert done.status == GoalStatus.STATUS_ABORTED
    assert done.result.status == Relocalize.Result.TIMEOUT
    assert done.result.num_agreeing == 1
    assert "images asked" in done.result.message


@pytest.mark.parametrize("how", ["cancel", "deactivate", "cleanup", "shutdown"])
def test_relocalize_is_stopped(harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, how: str):
    h = harness(image_timeout_s=60.0)
    h.start()
    asker = Asker(h, monkeypatch, lambda number: None)
    handle = asker.send(timeout_s=60.0)
    future = handle.get_result_async()
    if how == "cancel":
        handle.cancel_goal_async()
    else:
        h.change(Transition.TRANSITION_DEACTIVATE)
        if how == "cleanup":
            h.change(Transition.TRANSITION_CLEANUP)
        elif how == "shutdown":
            h.change(Transition.TRANSITION_INACTIVE_SHUTDOWN)
    h.wait(future.done, "the end of the goal", 10.0)
    done = future.result()
    assert done.status == (GoalStatus.STATUS_CANCELED if how == "cancel" else GoalStatus.STATUS_ABORTED)
    assert done.result.status == Relocalize.Result.STOPPED
    assert done.result.message.startswith("the goal was cancelled" if how == "cancel" else "the node was stopped")


def test_relocalize_is_refused_where_it_cannot_work(harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch):
    h = harness(image_timeout_s=60.0)
    asker = Asker(h, monkeypatch, lambda number: None)
    assert not asker.send().accepted
    h.start()
    assert not asker.send(timeout_s=-1.0).accepted
    assert not asker.send(min_confidence=2.0).accepted
    assert asker.send(timeout_s=20.0).accepted
    assert not asker.send().accepted
