"""What `loop_closure_detector` publishes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from geometry_msgs.msg import Point
from rclpy.lifecycle import LifecycleNode
from visualization_msgs.msg import MarkerArray

from effovpr_ros.msg import Keyframe, LoopClosure
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.loop_conversions import loop_markers
from effovpr_ros.nodes.outputs import MARKER_QOS, RESULT_QOS, NodeOutputs

_MAX_MARKERS = 20000


class LoopOutputs(NodeOutputs):
    """The publishers of one configured detector."""

    def __init__(self, node: LifecycleNode, adapters: Sequence[Adapter]) -> None:
        """Advertise.

        Args:
            node: that publishes.
            adapters: that hear of keyframes and closures too; they are destroyed with the outputs.
        """
        super().__init__(node, adapters)
        self._keyframe = self._advertise(Keyframe, "~/keyframe", RESULT_QOS)
        self._closure = self._advertise(LoopClosure, "~/loop_closure", RESULT_QOS)
        self._markers = self._advertise(MarkerArray, "~/markers", MARKER_QOS)
        self._keyframe_points: deque[Point] = deque(maxlen=_MAX_MARKERS)
        self._closure_points: deque[Point] = deque(maxlen=2 * _MAX_MARKERS)
        self._frame_id = ""

    def on_odometry(self, stamp_ns: int) -> None:
        """Tell the adapters how far the odometry is."""
        for adapter in self._adapters:
            adapter.on_odometry(stamp_ns)

    def publish_keyframe(self, message: Keyframe) -> None:
        """Publish a keyframe; nothing once ROS has been shut down."""
        if not self._node.context.ok():
            return
        self._keyframe.publish(message)
        for adapter in self._adapters:
            adapter.on_keyframe(message)
        if message.has_odom_pose:
            self._frame_id = message.header.frame_id
            self._keyframe_points.append(message.odom_pose.position)

    def publish_closure(self, message: LoopClosure) -> None:
        """Publish a closure; nothing once ROS has been shut down."""
        if not self._node.context.ok():
            return
        self._closure.publish(message)
        for adapter in self._adapters:
            adapter.on_loop_closure(message)
        if message.has_odom_poses:
            self._closure_points.extend((message.query_odom_pose.position, message.match_odom_pose.position))

    def publish_markers(self) -> None:
        """Draw the keyframes and closures so far, if anybody listens."""
        if self._keyframe_points and self._markers.get_subscription_count():
            self._markers.publish(loop_markers(self._keyframe_points, self._closure_points, self._frame_id))
