"""Adapters to other stacks: values by hand, the other side's rules, and topics over DDS."""

from __future__ import annotations

import gc
import importlib.util
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rclpy.executors import MultiThreadedExecutor  # noqa: E402
from rclpy.lifecycle import LifecycleNode  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile, QoSReliabilityPolicy  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from effovpr_ros.core.errors import ConfigError  # noqa: E402
from effovpr_ros.msg import Keyframe, LoopClosure, PlaceMatch  # noqa: E402
from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig, MatchAdapterConfig  # noqa: E402
from effovpr_ros.nodes.adapters.base import Adapter  # noqa: E402
from effovpr_ros.nodes.adapters.current_run import CurrentRun  # noqa: E402
from effovpr_ros.nodes.adapters.registry import make_adapters  # noqa: E402

TIMEOUT_S = 60.0
BEST_EFFORT = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)


class Bench:
    """A lifecycle node with adapters, and another stack's node that listens to them over DDS."""

    def __init__(self, config: MatchAdapterConfig | LoopAdapterConfig) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node, self.stack = LifecycleNode("feeder", context=self.context), Node("stack", context=self.context)
        self.node.trigger_configure()
        (self.adapter,) = make_adapters(self.node, config.names, config)
        self.node.trigger_activate()
        self._executor = MultiThreadedExecutor(2, context=self.context)
        self._executor.add_node(self.node), self._executor.add_node(self.stack)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(5.0)
        self.adapter.destroy()
        self.node.destroy_node(), self.stack.destroy_node()
        rclpy.shutdown(context=self.context)
        del self.node, self.stack, self._executor
        gc.collect()

    def listen(self, kind: type, topic: str, qos: QoSProfile = RELIABLE) -> list[Any]:
        received: list[Any] = []
        self.stack.create_subscription(kind, topic, received.append, qos)
        return received

    def until(self, act: Callable[[], Any], condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            act()
            time.sleep(0.05)


@pytest.fixture
def bench() -> Iterator[Callable[[Any], Bench]]:
    made: list[Bench] = []

    def make(config: MatchAdapterConfig | LoopAdapterConfig) -> Bench:
        made.append(Bench(config))
        return made[-1]

    yield make
    for item in made:
        item.close()


def at(seconds: float) -> Time:
    return Time(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))


def keyframe(seconds: float, session: str = "today", keyframe_id: int = 0) -> Keyframe:
    message = Keyframe(session=session, keyframe_id=keyframe_id)
    message.header.stamp = at(seconds)
    return message


def closure(query_s: float = 12.5, match_s: float = 2.25, **fields: Any) -> LoopClosure:
    sessions = {"query_session": "today", "match_session": "today"}
    message = LoopClosure(query_stamp=at(query_s), match_stamp=at(match_s), **{**sessions, **fields})
    message.header.stamp, message.header.frame_id = at(query_s), "odom"
    message.relative_pose.pose.position.x = 0.5
    message.relative_pose.covariance = np.diag([0.25, 0.25, 0.25, 0.04, 0.04, 0.04]).ravel()
    return message


def match(seconds: float, confidence: float = 0.99, is_calibrated: bool = True) -> PlaceMatch:
    fields = {"confidence": confidence, "is_calibrated": is_calibrated}
    message = PlaceMatch(status=PlaceMatch.MATCH, reason="by hand", **fields)
    message.header.stamp, message.header.frame_id = at(seconds), "map"
    return message


def pose(seconds: float, x: float = 3.0) -> PoseWithCovarianceStamped:
    message = PoseWithCovarianceStamped()
    message.header.stamp, message.header.frame_id = at(seconds), "map"
    message.pose.pose.position.x = x
    message.pose.pose.orientation.z = message.pose.pose.orientation.w = math.sqrt(0.5)
    message.pose.covariance = np.diag([0.25, 0.25, 0.25, 0.0289, 0.0289, 0.0289]).ravel()
    return message


def test_names_are_split_and_unknown_ones_are_refused_with_the_known_ones():
    assert MatchAdapterConfig(adapters=" nav2, rtabmap,,nav2 ").names == ("nav2", "rtabmap")
    assert MatchAdapterConfig().names == LoopAdapterConfig().names == ()
    with pytest.raises(ConfigError, match="'amcl' are unknown to this node; use cuvslam, nav2, rtabmap"):
        MatchAdapterConfig(adapters="nav2,amcl")
    with pytest.raises(ConfigError, match="'nav2' are unknown to this node; use lio_sam, pose_graph"):
        make_adapters(None, ["nav2"], LoopAdapterConfig())
    with pytest.raises(ConfigError, match="body_frame is empty"):
        MatchAdapterConfig(body_frame="")


def test_closures_with_what_a_slam_has_not_seen_are_not_of_its_run():
    run = CurrentRun()
    assert not run.holds(closure())
    run.add(keyframe(2.0, keyframe_id=7)), run.add(keyframe(12.5, keyframe_id=8))
    assert run.holds(closure(12.5, 2.0, query_id=8, match_id=7))
    # Keyframe 6 is of the time before this run.
    assert not run.holds(closure(12.5, 2.0, query_id=8, match_id=6))
    assert not run.holds(closure(12.5, 2.25, query_id=8, match_id=7, match_session="yesterday"))
    later = {"query_session": "later", "match_session": "later"}
    run.add(keyframe(20.0, "later", 9))
    assert not run.holds(closure(12.5, 2.25, query_id=8, match_id=7))
    run.add(keyframe(30.0, "later", 10))
    assert run.holds(closure(30.0, 20.0, query_id=10, match_id=9, **later))
    # A clock that was set back begins anew, if to the middle of the run: 25 s now is not what it was.
    run.add(keyframe(25.0, "later", 11))
    assert not run.holds(closure(25.0, 30.0, query_id=11, match_id=10, **later))
    assert not run.holds(closure(25.0, 20.0, query_id=11, match_id=9, **later))
    run.add(keyframe(26.0, "later", 12))
    assert run.holds(closure(26.0, 25.0, query_id=12, match_id=11, **later))


def test_lio_sam_hears_two_times_in_seconds_newer_first(bench: Callable[..., Bench]):
    b = bench(LoopAdapterConfig(adapters="lio_sam"))
    # LIO-SAM subscribes best effort, depth 1, and throws away what has not two numbers.
    received = b.listen(Float64MultiArray, "lio_loop/loop_closure_detection", BEST_EFFORT)
    b.adapter.on_keyframe(keyframe(2.25))
    b.until(lambda: b.adapter.on_loop_closure(closure(1_700_000_012.5, 2.25)), lambda: received, "a closure")
    assert list(received[0].data) == [1_700_000_012.5, 2.25]

    def send() -> None:
        b.adapter.on_loop_closure(closure(12.5, 2.25, match_session="yesterday"))
        b.adapter.on_loop_closure(closure(13.5, 3.5))

    # The one that must not come is sent as often as the one that must.
    b.until(send, lambda: sum(message.data[0] == 13.5 for message in received) >= 3, "the next closures")
    assert {tuple(message.data) for message in received} == {(1_700_000_012.5, 2.25), (13.5, 3.5)}


# The fields and constants of pose_graph_tools_msgs' definitions that matter here.
POSE_GRAPH = {
    "PoseGraph": (("header", "nodes", "edges"), {}),
    "PoseGraphNode": (("header", "robot_id", "key", "pose"), {}),
    "PoseGraphEdge": (
        ("header", "key_from", "key_to", "robot_from", "robot_to", "type", "pose", "covariance"),
        {"ODOM": 0, "LOOPCLOSE": 1, "LANDMARK": 2, "REJECTED_LOOPCLOSE": 3},
    ),
}


def stand_in() -> ModuleType:
    """A module with messages of these fields and no others."""
    module = ModuleType("pose_graph_tools_msgs.msg")
    for name, (slots, constants) in POSE_GRAPH.items():

        def fill(self: Any, **values: Any) -> None:
            for field, value in values.items():
                setattr(self, field, value)

        setattr(module, name, type(name, (), {"__slots__": slots, "__init__": fill, **constants}))
    return module


class DeafNode:
    """As much of a node as an adapter of a stand-in needs; keeps what is published."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.warnings: list[str] = []

    def create_lifecycle_publisher(self, kind: type, topic: str, qos: QoSProfile) -> Any:
        assert topic == "external_loop_closures"
        return SimpleNamespace(publish=self.published.append)

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=lambda text, **_: self.warnings.append(text))


def pose_graph_adapter(monkeypatch: pytest.MonkeyPatch, **config: Any) -> tuple[DeafNode, Adapter]:
    monkeypatch.setitem(sys.modules, "pose_graph_tools_msgs", ModuleType("pose_graph_tools_msgs"))
    monkeypatch.setitem(sys.modules, "pose_graph_tools_msgs.msg", stand_in())
    node = DeafNode()
    (adapter,) = make_adapters(node, ["pose_graph"], LoopAdapterConfig(**config))
    adapter.on_keyframe(keyframe(1.0))
    return node, adapter


def assert_is_edge(graph: Any, robot_id: int) -> None:
    (edge,) = graph.edges
    assert (edge.key_from, edge.key_to) == (12_500_000_000, 2_250_000_000)
    assert (edge.robot_from, edge.robot_to, edge.type) == (robot_id, robot_id, 1)
    # Hydra reads the pose of `from`, the query, in the frame of `to`, the match: T_match_query.
    assert (edge.pose.position.x, edge.pose.orientation.w) == (0.5, 1.0)
    assert np.array_equal(np.reshape(edge.covariance, (6, 6)).diagonal(), [0.25, 0.25, 0.25, 0.04, 0.04, 0.04])
    assert (graph.header.stamp, graph.header.frame_id, edge.header.frame_id) == (at(12.5), "odom", "odom")


def test_an_edge_waits_until_odometry_has_passed_both_keyframes(monkeypatch: pytest.MonkeyPatch):
    node, adapter = pose_graph_adapter(monkeypatch, robot_id=3)
    adapter.on_loop_closure(closure(is_metric=True))
    for stamp_ns in (12_400_000_000, 12_500_000_000):
        adapter.on_odometry(stamp_ns)
        assert not node.published
    adapter.on_odometry(12_500_000_001)
    assert_is_edge(node.published[0], 3)
    adapter.on_odometry(12_600_000_000)
    assert len(node.published) == 1
    # A closure that comes late is due at once; odometry slightly out of order changes nothing.
    adapter.on_odometry(12_000_000_000)
    adapter.on_loop_closure(closure(is_metric=True))
    assert len(node.published) == 2
    assert not node.warnings


def test_edges_of_a_clock_that_was_set_back_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    node, adapter = pose_graph_adapter(monkeypatch)
    adapter.on_odometry(12_000_000_000)
    adapter.on_loop_closure(closure(is_metric=True))
    adapter.on_odometry(1_000_000_000)
    adapter.on_odometry(20_000_000_000)
    assert not node.published


def test_priors_and_other_sessions_make_no_edge_unless_priors_are_wanted(monkeypatch: pytest.MonkeyPatch):
    node, adapter = pose_graph_adapter(monkeypatch)
    adapter.on_odometry(20_000_000_000)
    adapter.on_loop_closure(closure(is_metric=False))
    adapter.on_loop_closure(closure(is_metric=True, match_session="yesterday"))
    assert not node.published
    assert "pose_graph_priors" in node.warnings[0]
    assert "earlier sessions" in node.warnings[1]
    node, adapter = pose_graph_adapter(monkeypatch, pose_graph_priors=True)
    adapter.on_odometry(20_000_000_000)
    adapter.on_loop_closure(closure(is_metric=False))
    assert_is_edge(node.published[0], 0)


def test_without_its_messages_the_pose_graph_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pose_graph_tools_msgs", None)
    with pytest.raises(ConfigError, match=r"needs the ROS 2 package pose_graph_tools_msgs.*MIT-SPARK/pose_graph_tools"):
        make_adapters(DeafNode(), ["pose_graph"], LoopAdapterConfig())


@pytest.mark.skipif(importlib.util.find_spec("pose_graph_tools_msgs") is None, reason="needs pose_graph_tools_msgs")
def test_the_real_pose_graph_messages_arrive(bench: Callable[..., Bench]):
    from pose_graph_tools_msgs.msg import PoseGraph, PoseGraphEdge

    for name, (slots, constants) in POSE_GRAPH.items():
        real = getattr(sys.modules["pose_graph_tools_msgs.msg"], name)
        assert set(real.get_fields_and_field_types()) == set(slots)
        assert {constant: getattr(real, constant) for constant in constants} == constants
    assert PoseGraphEdge.LOOPCLOSE == 1
    b = bench(LoopAdapterConfig(adapters="pose_graph"))
    received = b.listen(PoseGraph, "external_loop_closures")
    b.adapter.on_keyframe(keyframe(1.0))
    b.adapter.on_odometry(20_000_000_000)
    b.until(lambda: b.adapter.on_loop_closure(closure(is_metric=True)), lambda: received, "an edge")
    assert_is_edge(received[0], 0)


def test_rtabmap_reads_the_body_of_a_pose_in_its_frame_id(bench: Callable[..., Bench]):
    b = bench(MatchAdapterConfig(adapters="rtabmap", body_frame="base_footprint"))
    received = b.listen(PoseWithCovarianceStamped, "global_pose")
    b.until(lambda: b.adapter.on_match(match(7.5), pose(7.5)), lambda: received, "a global pose")
    b.adapter.on_match(match(8.0), None)
    message = received[0]
    assert (message.header.frame_id, message.header.stamp) == ("base_footprint", at(7.5))
    assert message.pose == pose(7.5).pose
    # RTAB-Map inverts the covariance.
    assert np.linalg.cond(np.reshape(message.pose.covariance, (6, 6))) < 1e3


def test_nav2_gets_one_initial_pose_until_it_is_rearmed(bench: Callable[..., Bench]):
    b = bench(MatchAdapterConfig(adapters="nav2"))
    # Nobody listens yet: the pose is kept for later, not wasted.
    b.adapter.on_match(match(1.0), pose(1.0))
    received = b.listen(PoseWithCovarianceStamped, "initialpose")
    b.adapter.on_match(match(2.0, confidence=0.97), pose(2.0))
    b.adapter.on_match(match(2.0), None)
    b.until(lambda: b.adapter.on_match(match(3.0), pose(3.0)), lambda: received, "an initial pose")
    for second in range(4, 8):
        b.adapter.on_match(match(float(second)), pose(float(second)))
    client = b.stack.create_client(Trigger, "/feeder/rearm")
    assert client.wait_for_service(TIMEOUT_S)
    future = client.call_async(Trigger.Request())
    b.until(lambda: None, future.done, "the service")
    assert future.result().success
    b.adapter.on_match(match(9.0), pose(9.0, x=-4.0))
    b.until(lambda: None, lambda: len(received) > 1, "the second initial pose")
    assert [message.header.stamp for message in received] == [at(3.0), at(9.0)]
    assert received[1].header.frame_id == "map"
    assert received[1].pose.pose == pose(9.0, x=-4.0).pose.pose
    assert np.diag(received[1].pose.covariance.reshape(6, 6)) == pytest.approx([0.25] * 3 + [0.0289] * 3)
    b.adapter.on_activate()
    # A measured pose leaves AMCL's particles 0.2 m and 0.17 rad, and has entries below 0, which AMCL refuses.
    measured = pose(10.0)
    covariance = np.diag([1e-4, 1e-4, 1e-4, 1e-6, 1e-6, 1e-6])
    covariance[0, 1] = covariance[1, 0] = -5e-5
    measured.pose.covariance = covariance.ravel()
    b.adapter.on_match(match(10.0), measured)
    b.until(lambda: None, lambda: len(received) > 2, "the initial pose of another activation")
    spread = received[2].pose.covariance.reshape(6, 6)
    np.testing.assert_allclose(spread, np.diag([0.04, 0.04, 1e-4, 1e-6, 1e-6, 0.0289]))
    # What was measured is published as it is.
    assert measured.pose.covariance[1] == -5e-5


def test_a_pose_without_a_heading_resets_nobody_unless_told_to(bench: Callable[..., Bench]):
    unturned = pose(1.0)
    unturned.pose.covariance[35] = math.pi**2
    b = bench(MatchAdapterConfig(adapters="nav2"))
    received = b.listen(PoseWithCovarianceStamped, "initialpose")
    b.until(lambda: None, lambda: b.adapter._publisher.get_subscription_count(), "the listener")
    b.adapter.on_match(match(1.0), unturned)
    # The adapter stays armed for a pose that knows its heading.
    b.until(lambda: b.adapter.on_match(match(2.0), pose(2.0)), lambda: received, "an initial pose")
    assert [message.header.stamp for message in received] == [at(2.0)]
    told = bench(MatchAdapterConfig(adapters="nav2", initial_pose_without_heading=True))
    heard = told.listen(PoseWithCovarianceStamped, "initialpose")
    told.until(lambda: told.adapter.on_match(match(1.0), unturned), lambda: heard, "an initial pose")


@pytest.mark.parametrize(("adapter", "topic"), [("nav2", "initialpose"), ("cuvslam", "visual_slam/initial_pose")])
def test_a_confidence_that_was_not_fitted_resets_nobody_unless_told_to(
    bench: Callable[..., Bench], adapter: str, topic: str
):
    b = bench(MatchAdapterConfig(adapters=adapter))
    received = b.listen(PoseWithCovarianceStamped, topic)
    b.until(lambda: None, lambda: b.adapter._publisher.get_subscription_count(), "the listener")
    b.adapter.on_match(match(1.0, confidence=1.0, is_calibrated=False), pose(1.0))
    # The adapter stays armed for a confidence that means something.
    b.until(lambda: b.adapter.on_match(match(2.0), pose(2.0)), lambda: received, "an initial pose")
    assert [message.header.stamp for message in received] == [at(2.0)]
    told = bench(MatchAdapterConfig(adapters=adapter, initial_pose_uncalibrated=True))
    heard = told.listen(PoseWithCovarianceStamped, topic)
    told.until(lambda: told.adapter.on_match(match(1.0, is_calibrated=False), pose(1.0)), lambda: heard, "a pose")


def test_a_period_sends_initial_poses_again(bench: Callable[..., Bench]):
    b = bench(MatchAdapterConfig(adapters="nav2", initial_pose_period_s=10.0))
    received = b.listen(PoseWithCovarianceStamped, "initialpose")
    b.until(lambda: b.adapter.on_match(match(100.0), pose(100.0)), lambda: received, "an initial pose")
    # 9.9 s later is too early, 10 s is due, and a clock set back begins anew.
    for second in (109.9, 110.0, 115.0, 50.0, 59.0):
        b.adapter.on_match(match(second), pose(second))
    b.until(lambda: None, lambda: len(received) > 2, "two more")
    time.sleep(0.2)
    assert [message.header.stamp for message in received] == [at(100.0), at(110.0), at(50.0)]


def test_cuvslam_gets_a_hint_and_another_one_when_it_asks(bench: Callable[..., Bench]):
    b = bench(MatchAdapterConfig(adapters="cuvslam"))
    received = b.listen(PoseWithCovarianceStamped, "visual_slam/initial_pose")
    b.until(lambda: b.adapter.on_match(match(3.0), pose(3.0)), lambda: received, "a hint")
    b.adapter.on_match(match(4.0), pose(4.0))
    time.sleep(0.2)
    assert len(received) == 1
    assert (received[0].header.frame_id, received[0].pose) == ("map", pose(3.0).pose)
    # What cuVSLAM sends where it found nothing: an empty message.
    request = b.stack.create_publisher(PoseWithCovarianceStamped, "visual_slam/trigger_hint", RELIABLE)
    b.until(lambda: None, request.get_subscription_count, "the adapter to hear requests")
    request.publish(PoseWithCovarianceStamped())
    b.until(lambda: b.adapter.on_match(match(5.0), pose(5.0)), lambda: len(received) > 1, "a second hint")
    assert received[1].header.stamp == at(5.0)
