"""Where odometry has the robot: `odom -> base_link` as `/tf` tells it, or as the topic `odom` does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from tf2_msgs.msg import TFMessage

from effovpr_ros.core.errors import EffoVPRError, TransformError
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import TransformTree
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.static_transforms import TF_STATIC_QOS
from effovpr_ros.sources.bag_poses import pose_of

TF_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=100, reliability=QoSReliabilityPolicy.RELIABLE)
_ODOMETRY_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=50, reliability=QoSReliabilityPolicy.BEST_EFFORT)


class RobotOdometry:
    """Hears `/tf` always, since another broadcaster of the odometry's frame speaks there, and the topic where asked.

    Attributes:
        problem: what is wrong with the newest odometry, for people; empty where nothing is.
        left_out: transforms and messages that could not be used.
        tree: of the frames on /tf and /tf_static.
    """

    def __init__(
        self,
        node: GuardedNode,
        frames: tuple[str, str],
        from_topic: bool,
        on_other: Callable[[str, str, int], None],
        resources: ExitStack,
    ) -> None:
        """Subscribe.

        Args:
            node: that listens.
            frames: of the odometry and of the body.
            from_topic: hear odometry on the topic `odom`, else on /tf.
            on_other: called with parent, child and stamp [ns] of what places the odometry's frame on /tf.
            resources: takes the undoing.
        """
        self._node = node
        self._odom, self._body = frames
        self._from_topic = from_topic
        self._on_other = on_other
        self._heard: list[tuple[int, Pose]] = []
        self._given_ns: int | None = None
        self.tree = TransformTree()
        self.problem = ""
        self.left_out = 0
        self._subscribe(resources, TFMessage, "/tf", self._on_tf, TF_QOS)
        self._subscribe(resources, TFMessage, "/tf_static", self._on_tf_static, TF_STATIC_QOS)
        if from_topic:
            self._subscribe(resources, Odometry, "odom", self._on_odometry, _ODOMETRY_QOS)

    def take(self) -> list[tuple[int, Pose]]:
        """Stamps [ns] and T_odom_body since the last call, in the order that they came."""
        if self._from_topic:
            heard, self._heard = self._heard, []
            return heard
        try:
            newest_ns = self.tree.latest_ns(self._odom, self._body)
            if newest_ns is None:
                raise TransformError(
                    f"{self._odom} -> {self._body} is static: what publishes odometry publishes it on /tf_static"
                )
            if newest_ns == self._given_ns:
                return []
            pose = self.tree.lookup(self._odom, self._body, newest_ns)
        except TransformError as error:
            self.problem = str(error)
            return []
        self.problem, self._given_ns = "", newest_ns
        return [(newest_ns, pose)]

    def _subscribe(
        self, resources: ExitStack, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> None:
        subscription = self._node.subscribe(kind, topic, callback, qos)
        resources.callback(self._node.destroy_subscription, subscription)

    def _on_tf(self, message: TFMessage) -> None:
        self._add(message, is_static=False)

    def _on_tf_static(self, message: TFMessage) -> None:
        self._add(message, is_static=True)

    def _add(self, message: TFMessage, is_static: bool) -> None:
        for item in message.transforms:
            parent, child = item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/")
            stamp_ns = ns_from_time(item.header.stamp)
            if child == self._odom:
                # Where the odometry's frame is takes no part in where odometry has the body.
                self._on_other(parent, child, stamp_ns)
                continue
            try:
                pose = pose_of(item.transform.translation, item.transform.rotation)
                self.tree.add(parent, child, stamp_ns, pose, is_static=is_static)
            except EffoVPRError as error:
                self.left_out += 1
                self._node.get_logger().warning(
                    f"/tf: {parent} -> {child} is left out: {error}", throttle_duration_sec=5.0
                )

    def _on_odometry(self, message: Odometry) -> None:
        frames = (message.header.frame_id.lstrip("/"), message.child_frame_id.lstrip("/"))
        if frames != (self._odom, self._body):
            self.left_out += 1
            self.problem = (
                f"odometry is {frames[0]!r} -> {frames[1]!r}, and {self._odom!r} -> {self._body!r} is asked for; set "
                "odom_frame and body_frame to its frames"
            )
            return
        try:
            pose = pose_of(message.pose.pose.position, message.pose.pose.orientation)
        except EffoVPRError as error:
            self.left_out += 1
            self.problem = f"odometry is left out: {error}"
            return
        self.problem = ""
        self._heard.append((ns_from_time(message.header.stamp), pose))
