"""RTAB-Map: priors of the robot's pose."""

from __future__ import annotations

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.adapters.adapter_config import MatchAdapterConfig
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.outputs import RESULT_QOS

TOPIC = "global_pose"


class RtabmapAdapter(Adapter):
    """Publishes the pose of each MATCH as RTAB-Map reads it.

    RTAB-Map takes `header.frame_id` for the body that the pose is of, not for the frame that it is given in: it
    appends the transform from that body to its own base frame, and takes its map frame for granted.
    """

    def __init__(self, node: LifecycleNode, config: MatchAdapterConfig) -> None:
        """Advertise."""
        self._node = node
        self._body_frame = config.body_frame
        self._publisher = node.create_lifecycle_publisher(PoseWithCovarianceStamped, TOPIC, RESULT_QOS)

    def on_match(self, match: PlaceMatch, pose: PoseWithCovarianceStamped | None) -> None:
        """Pass a pose on under the name of its body."""
        if pose is not None:
            header = Header(stamp=pose.header.stamp, frame_id=self._body_frame)
            self._publisher.publish(PoseWithCovarianceStamped(header=header, pose=pose.pose))

    def destroy(self) -> None:
        """Withdraw the topic."""
        self._node.destroy_lifecycle_publisher(self._publisher)
