"""Where frames of the robot are for good, as /tf_static tells it."""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from tf2_msgs.msg import TFMessage

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.core.images import shown
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import TransformTree
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.sources.bag_cameras import add_static, pose_in

# Each publisher sends its last message to those that come late.
TF_STATIC_QOS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)


class StaticTransforms:
    """The newest static transform of each frame; one that comes late or changes counts from then on.

    Attributes:
        version: changes with what is known.
        left_out: transforms that could not be used.
    """

    def __init__(self, node: GuardedNode) -> None:
        """Subscribe."""
        self._node = node
        self._tree = TransformTree()
        self.version = 0
        self.left_out = 0
        self._subscription = node.subscribe(TFMessage, "/tf_static", self._on_transforms, TF_STATIC_QOS)

    @property
    def num_changed(self) -> int:
        """Transforms that took another value, or another parent, after they were known."""
        return self._tree.moved

    def destroy(self) -> None:
        """Hear nothing any more."""
        self._node.destroy_subscription(self._subscription)

    def pose(self, parent: str, child: str) -> Pose | None:
        """Pose of a frame in another; None where no chain of transforms leads there."""
        return pose_in(self._tree, parent, child)

    def _on_transforms(self, message: TFMessage) -> None:
        for item in message.transforms:
            parent, child, moved = item.header.frame_id, item.child_frame_id, self._tree.moved
            try:
                self.version += add_static(self._tree, item)
            except EffoVPRError as error:
                self.left_out += 1
                self._node.get_logger().warning(
                    f"/tf_static: {shown(parent)} -> {shown(child)} is left out: {error}", throttle_duration_sec=5.0
                )
                continue
            if self._tree.moved > moved:
                self._node.get_logger().warning(
                    f"/tf_static: {child} in {parent} has changed; the new transform is used"
                )
