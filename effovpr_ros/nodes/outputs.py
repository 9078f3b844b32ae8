"""What `place_recognizer` publishes of a recognition, each only where somebody may need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, NavSatFix
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from effovpr_ros.core.images import RgbImage
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes import conversions
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.recognition.answer_picture import draw_answer
from effovpr_ros.recognition.drawing import WIDTH_PX
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Recognition

SENSOR_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
_MOST_MARKERS = 20_000
RESULT_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
MARKER_QOS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST,
    depth=10,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)


class NodeOutputs:
    """The publishers of one configured node, silent while it is inactive, and the adapters beside them."""

    def __init__(self, node: LifecycleNode, adapters: Sequence[Adapter]) -> None:
        """Prepare.

        Args:
            node: that publishes.
            adapters: that hear of results too; they are destroyed with the outputs.
        """
        self._node = node
        self._adapters = adapters
        self._publishers: list[LifecyclePublisher[Any]] = []

    def _advertise(self, kind: type, topic: str, qos: QoSProfile) -> LifecyclePublisher[Any]:
        publisher: LifecyclePublisher[Any] = self._node.create_lifecycle_publisher(kind, topic, qos)
        self._publishers.append(publisher)
        return publisher

    def destroy(self) -> None:
        """Withdraw the topics."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        for adapter in self._adapters:
            adapter.destroy()

    def on_activate(self) -> None:
        """Tell the adapters that the node was activated."""
        for adapter in self._adapters:
            adapter.on_activate()


class Outputs(NodeOutputs):
    """What `place_recognizer` publishes."""

    def __init__(self, node: LifecycleNode, adapters: Sequence[Adapter], body_frame: str) -> None:
        """Advertise.

        Args:
            node: that publishes.
            adapters: that hear of each match too; they are destroyed with the outputs.
            body_frame: frame of the body whose poses the map holds.
        """
        super().__init__(node, adapters)
        self._body_frame = body_frame
        self._match = self._advertise(PlaceMatch, "~/match", RESULT_QOS)
        self._pose = self._advertise(PoseWithCovarianceStamped, "~/pose", RESULT_QOS)
        self._fix = self._advertise(NavSatFix, "~/fix", RESULT_QOS)
        self._debug = self._advertise(CompressedImage, "~/debug_image/compressed", SENSOR_QOS)
        self._markers = self._advertise(MarkerArray, "~/markers", MARKER_QOS)

    def publish(self, match: PlaceMatch, recognition: Recognition) -> None:
        """Publish a match, and the pose, fix and markers that follow from it; nothing once ROS has been shut down."""
        if not self._node.context.ok():
            return
        self._match.publish(match)
        pose = conversions.pose_with_covariance(recognition, match.header)
        if pose is not None:
            self._pose.publish(pose)
        # A fix is that of the antenna whose frame the header names (sensor_msgs/NavSatFix), not one in the map frame.
        fix = conversions.fix_message(recognition, Header(stamp=match.header.stamp, frame_id=self._body_frame))
        if fix is not None:
            self._fix.publish(fix)
        for adapter in self._adapters:
            adapter.on_match(match, pose)
        if self._markers.get_subscription_count():
            self._markers.publish(conversions.match_markers(recognition, match.header))

    def publish_map(self, place_map: MapReader) -> None:
        """Publish the places, not more than can be drawn, as markers; late subscribers get them too."""
        places = place_map.places(at_most=_MOST_MARKERS)
        self._markers.publish(conversions.map_markers(places, place_map.frame_id))

    def publish_debug_image(
        self,
        image: RgbImage,
        recognition: Recognition,
        recognizer: PlaceRecognizer | None,
        header: Header,
    ) -> None:
        """Draw the query beside the best place, if anybody listens; a server's answer has no picture of the place."""
        listens = self._node.context.ok() and self._debug.get_subscription_count()
        if recognizer is None or not recognition.candidates or not listens:
            return
        picture = draw_answer(recognizer, image, recognition)
        message = CompressedImage(header=header, format="jpeg", data=make_thumbnail(picture, WIDTH_PX))
        self._debug.publish(message)
