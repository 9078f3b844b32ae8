"""Nav2 and cuVSLAM: an initial pose, sent once, since each one throws away what the other side believes."""

from __future__ import annotations

import math
from copy import deepcopy

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Empty, Trigger

from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.adapters.adapter_config import MatchAdapterConfig
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.outputs import RESULT_QOS

NAV2_TOPIC = "initialpose"
CUVSLAM_TOPIC = "visual_slam/initial_pose"
CUVSLAM_REQUEST_TOPIC = "visual_slam/trigger_hint"

_AMCL_STD_M, _AMCL_YAW_STD_RAD = 0.2, 0.17
"""Least standard deviations of what AMCL starts with; RViz sends 0.5 m and 0.26 rad."""


class InitialPoseAdapter(Adapter):
    """Sends the pose of the first confident MATCH after each arming to whoever listens."""

    def __init__(self, node: LifecycleNode, config: MatchAdapterConfig, topic: str) -> None:
        """Advertise, armed.

        Args:
            node: that feeds this adapter.
            config: least confidence and period.
            topic: to publish on.
        """
        self._node = node
        self._config = config
        self._topic = topic
        self._publisher = node.create_lifecycle_publisher(PoseWithCovarianceStamped, topic, RESULT_QOS)
        self._is_armed = True
        self._sent_ns = 0

    def on_activate(self) -> None:
        """The robot may be elsewhere by now."""
        self.arm()

    def arm(self) -> None:
        """Send the next confident MATCH too."""
        self._is_armed = True

    def on_match(self, match: PlaceMatch, pose: PoseWithCovarianceStamped | None) -> None:
        """Send a pose that is confident and due. While nobody listens the adapter stays armed."""
        if pose is None or match.confidence < self._config.initial_pose_confidence:
            return
        stamp_ns = ns_from_time(match.header.stamp)
        if not self._is_due(stamp_ns) or not self._publisher.get_subscription_count():
            return
        why_not = self._why_not(match, pose)
        if why_not:
            text = f"no initial pose sent on {self._topic}: {why_not}"
            self._node.get_logger().warning(text, throttle_duration_sec=60.0)
            return
        self._is_armed, self._sent_ns = False, stamp_ns
        self._publisher.publish(self._spread(pose))
        self._node.get_logger().info(f"initial pose sent on {self._topic}: {match.reason}")

    def destroy(self) -> None:
        """Withdraw the topic."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _spread(self, pose: PoseWithCovarianceStamped) -> PoseWithCovarianceStamped:
        """The pose as it is sent."""
        return pose

    def _why_not(self, match: PlaceMatch, pose: PoseWithCovarianceStamped) -> str:
        """What speaks against throwing away what the other side believes; empty if nothing does."""
        if not match.is_calibrated and not self._config.initial_pose_uncalibrated:
            return (
                "the confidence was not fitted for the model and settings in use (is_calibrated is false); run "
                "effovpr calibrate, or set initial_pose_uncalibrated"
            )
        if not self._config.initial_pose_without_heading and has_unknown_heading(pose):
            return "the place's heading is unknown; build the map with headings, or set initial_pose_without_heading"
        return ""

    def _is_due(self, stamp_ns: int) -> bool:
        period_ns = round(self._config.initial_pose_period_s * 1e9)
        # Time that ran backwards is a new beginning for the other side too.
        return self._is_armed or (period_ns > 0 and not 0 <= stamp_ns - self._sent_ns < period_ns)


def has_unknown_heading(pose: PoseWithCovarianceStamped) -> bool:
    """Whether the yaw of a pose says nothing: a standard deviation of half a turn."""
    return float(pose.pose.covariance[35]) >= math.pi**2


class Nav2Adapter(InitialPoseAdapter):
    """AMCL starts its filter anew at each initial pose; `~/rearm` asks for another one."""

    def __init__(self, node: LifecycleNode, config: MatchAdapterConfig) -> None:
        """Advertise."""
        super().__init__(node, config, NAV2_TOPIC)
        self._service = node.create_service(Trigger, "~/rearm", self._on_rearm)
        # Behaviour trees of Nav2 have a node that calls a service of this type (ReinitializeGlobalLocalization).
        self._tree_service = node.create_service(Empty, "~/reinitialize", self._on_reinitialize)

    def _spread(self, pose: PoseWithCovarianceStamped) -> PoseWithCovarianceStamped:
        """The pose with variances that leave AMCL's particles room, which a measured pose does not, and nothing else.

        AMCL refuses a covariance that has an entry below 0; off the diagonal, that of a measured pose may have one.
        """
        spread = deepcopy(pose)
        variances = pose.pose.covariance[::7]
        least = (_AMCL_STD_M, _AMCL_STD_M, 0.0, 0.0, 0.0, _AMCL_YAW_STD_RAD)
        spread.pose.covariance = [0.0] * 36
        for axis, std in enumerate(least):
            spread.pose.covariance[7 * axis] = max(float(variances[axis]), std**2)
        return spread

    def _on_reinitialize(self, request: Empty.Request, response: Empty.Response) -> Empty.Response:
        self.arm()
        return response

    def _on_rearm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.arm()
        response.success, response.message = True, f"the next confident MATCH is sent on {self._topic}"
        return response

    def destroy(self) -> None:
        """Withdraw topic and service."""
        self._node.destroy_service(self._service)
        self._node.destroy_service(self._tree_service)
        super().destroy()


class CuvslamAdapter(InitialPoseAdapter):
    """CuVSLAM searches its map around each hint and asks for another one where it found nothing."""

    def __init__(self, node: LifecycleNode, config: MatchAdapterConfig) -> None:
        """Advertise, and hear requests."""
        super().__init__(node, config, CUVSLAM_TOPIC)
        self._requests = node.create_subscription(
            PoseWithCovarianceStamped, CUVSLAM_REQUEST_TOPIC, lambda _: self.arm(), RESULT_QOS
        )

    def destroy(self) -> None:
        """Withdraw the topics."""
        self._node.destroy_subscription(self._requests)
        super().destroy()
