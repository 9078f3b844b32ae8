"""Where frames of the robot are for good, as /tf_static tells it."""

from __future__ import annotations

from typing import Any

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from tf2_msgs.msg import TFMessage

from effovpr_ros.core.poses import Pose
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.sources.bag_cameras import static_transform

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
        num_changed: transforms that took another value after they were known.
    """

    def __init__(self, node: GuardedNode) -> None:
        """Subscribe."""
        self._node = node
        self._by_child: dict[str, Any] = {}
        self.version = 0
        self.num_changed = 0
        self._subscription = node.subscribe(TFMessage, "/tf_static", self._on_transforms, TF_STATIC_QOS)

    def destroy(self) -> None:
        """Hear nothing any more."""
        self._node.destroy_subscription(self._subscription)

    def pose(self, parent: str, child: str) -> Pose | None:
        """Pose of a frame in another; None where no chain of transforms leads there."""
        return static_transform(list(self._by_child.values()), parent, child)

    def _on_transforms(self, message: TFMessage) -> None:
        for item in message.transforms:
            known = self._by_child.get(item.child_frame_id)
            if known is not None and known.header.frame_id == item.header.frame_id:
                if known.transform == item.transform:
                    continue
                self.num_changed += 1
                self._node.get_logger().warning(
                    f"/tf_static: {item.child_frame_id} in {item.header.frame_id} has changed; the new one counts"
                )
            self._by_child[item.child_frame_id] = item
            self.version += 1
