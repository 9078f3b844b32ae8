"""Hydra and other users of pose_graph_tools: loop closures as edges of a pose graph."""

from __future__ import annotations

import importlib
from collections import deque
from threading import Lock
from types import ModuleType
from typing import Any

from rclpy.lifecycle import LifecycleNode

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.msg import Keyframe, LoopClosure
from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.adapters.current_run import CurrentRun
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.outputs import RESULT_QOS

TOPIC = "external_loop_closures"

_PACKAGE = "pose_graph_tools_msgs"
_MAX_WAITING = 1000
# Odometry may arrive slightly out of order; only a larger step back is a clock that was set back.
_CLOCK_SET_BACK_NS = 1_000_000_000


class PoseGraphAdapter(Adapter):
    """Publishes each closure as a PoseGraph of one edge, once odometry has passed both of its keyframes."""

    def __init__(self, node: LifecycleNode, config: LoopAdapterConfig) -> None:
        """Advertise.

        Raises:
            ConfigError: pose_graph_tools_msgs cannot be imported.
        """
        self._messages = import_messages()
        self._node = node
        self._config = config
        self._publisher = node.create_lifecycle_publisher(self._messages.PoseGraph, TOPIC, RESULT_QOS)
        self._run = CurrentRun()
        self._lock = Lock()
        self._waiting: deque[LoopClosure] = deque(maxlen=_MAX_WAITING)
        self._odometry_ns = -1

    def on_keyframe(self, keyframe: Keyframe) -> None:
        """Follow the run."""
        self._run.add(keyframe)

    def on_loop_closure(self, closure: LoopClosure) -> None:
        """Keep a closure that the other side can use until its time has come."""
        if not self._run.holds(closure):
            self._inform("closures with earlier sessions are left out")
            return
        if not closure.is_metric and not self._config.pose_graph_priors:
            self._inform(
                "closures without a measured relative pose are left out; give the detector depth, or set "
                "pose_graph_priors"
            )
            return
        with self._lock:
            if len(self._waiting) == _MAX_WAITING:
                self._inform(f"{_MAX_WAITING} closures wait for odometry, the oldest is dropped; check the odom topic")
            self._waiting.append(closure)
        self._publish_due()

    def on_odometry(self, stamp_ns: int) -> None:
        """Publish what has waited for this time; a clock that was set back forgets what waits."""
        with self._lock:
            if stamp_ns < self._odometry_ns - _CLOCK_SET_BACK_NS:
                self._waiting.clear()
                self._odometry_ns = stamp_ns
            self._odometry_ns = max(self._odometry_ns, stamp_ns)
        self._publish_due()

    def destroy(self) -> None:
        """Withdraw the topic."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _publish_due(self) -> None:
        with self._lock:
            due = [closure for closure in self._waiting if self._is_passed(closure)]
            for closure in due:
                self._waiting.remove(closure)
        for closure in due:
            self._publisher.publish(pose_graph(closure, self._config.robot_id, self._messages))

    def _is_passed(self, closure: LoopClosure) -> bool:
        return max(ns_from_time(closure.query_stamp), ns_from_time(closure.match_stamp)) < self._odometry_ns

    def _inform(self, text: str) -> None:
        self._node.get_logger().warning(f"pose_graph: {text}", throttle_duration_sec=60.0)


def pose_graph(closure: LoopClosure, robot_id: int, messages: ModuleType) -> Any:
    """A closure as pose_graph_tools_msgs/PoseGraph.

    Hydra looks both agent poses up by the keys, which are stamps in nanoseconds, and takes the pose as that of `from`
    in the frame of `to`.

    Args:
        closure: to convert.
        robot_id: of both keyframes.
        messages: the module pose_graph_tools_msgs.msg.
    """
    edge = messages.PoseGraphEdge(
        header=closure.header,
        key_from=ns_from_time(closure.query_stamp),
        key_to=ns_from_time(closure.match_stamp),
        robot_from=robot_id,
        robot_to=robot_id,
        type=messages.PoseGraphEdge.LOOPCLOSE,
        pose=closure.relative_pose.pose,
        covariance=closure.relative_pose.covariance,
    )
    return messages.PoseGraph(header=closure.header, edges=[edge])


def import_messages() -> ModuleType:
    """The module pose_graph_tools_msgs.msg.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return importlib.import_module(f"{_PACKAGE}.msg")
    except ImportError as error:
        raise ConfigError(
            f"the adapter pose_graph needs the ROS 2 package {_PACKAGE}, which cannot be imported ({error}); build it "
            "from branch feature/ros2 of MIT-SPARK/pose_graph_tools and source its workspace, or leave the adapter out"
        ) from error
