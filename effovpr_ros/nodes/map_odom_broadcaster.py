"""Publishes `map -> odom` on /tf from the answers of `place_recognizer` and odometry."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped, Transform, TransformStamped, Vector3
from tf2_msgs.msg import TFMessage

from effovpr_ros.core.errors import NodeError
from effovpr_ros.core.poses import Pose
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.conversions import ns_from_time, pose_message, time_from_ns
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.map_engine import MapInUse
from effovpr_ros.nodes.other_broadcasters import OtherBroadcasters
from effovpr_ros.nodes.robot_odometry import TF_QOS, RobotOdometry
from effovpr_ros.recognition.map_odom import MapOdom, Track
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.sightings import Sighting
from effovpr_ros.sources.bag_poses import pose_of

_JUMP_IS_RECENT_S = 5.0


@dataclass(frozen=True)
class TfHealth:
    """What `/diagnostics` says of the transform.

    Attributes:
        level: of diagnostic_msgs/DiagnosticStatus.
        text: one line; empty where all is well.
        values: figures by name.
    """

    level: bytes
    text: str
    values: dict[str, str]


class MapOdomBroadcaster(Adapter):
    """Takes answers from the worker's thread; all else runs in the thread that spins."""

    def __init__(
        self,
        node: GuardedNode,
        config: MapOdomConfig,
        body_frame: str,
        map_of: Callable[[], MapInUse | None],
        resources: ExitStack,
    ) -> None:
        """Advertise and subscribe.

        Args:
            node: that is configured.
            config: of what is published.
            body_frame: frame whose poses the map holds.
            map_of: the map in use.
            resources: takes the undoing.

        Raises:
            NodeError: both frames are one.
        """
        # Without the slash that tf had before ROS 2, which /tf is heard without too.
        config = replace(config, odom_frame=config.odom_frame.lstrip("/"))
        body_frame = body_frame.lstrip("/")
        if config.odom_frame == body_frame:
            raise NodeError(
                f"odom_frame and body_frame are both {body_frame!r}; odometry places the body's frame in its own"
            )
        self._node = node
        self._config = config
        self._body = body_frame
        self._map_of = map_of
        self._others = OtherBroadcasters(node, config.odom_frame, resources)
        self._odometry = RobotOdometry(
            node, (config.odom_frame, body_frame), config.tf_odometry == "topic", self._others.heard, resources
        )
        self._answers: deque[tuple[int, Sighting | None]] = deque(maxlen=100)
        self._fused = MapOdom(config)
        self._map: MapInUse | None = None
        self._wrong_map = ""
        self._heard_s = time.monotonic()
        self._jumped_s = -_JUMP_IS_RECENT_S
        self._last = ""
        self._sent_ns = 0
        self._publisher = node.create_lifecycle_publisher(TFMessage, "/tf", TF_QOS)
        timer = node.after(1.0 / config.tf_rate_hz, self._on_timer)
        resources.callback(node.destroy_timer, timer)

    def on_activate(self) -> None:
        """The robot may be elsewhere by now, and what else broadcast may have been stopped."""
        self._fused = MapOdom(self._config)
        self._others.restart()

    def on_match(self, match: PlaceMatch, pose: PoseWithCovarianceStamped | None) -> None:
        """Keep an answer; called by the worker. A doubtful one is held against odometry, whatever its confidence."""
        is_sure = pose is not None and match.confidence >= self._config.tf_min_confidence
        counts = match.is_metric and (is_sure or match.status == PlaceMatch.AMBIGUOUS)
        stamp_ns = ns_from_time(match.header.stamp)
        self._answers.append((stamp_ns, sighting_of(match) if counts else None))

    def destroy(self) -> None:
        """Withdraw the topic."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def odometry_at(self, stamp_ns: int) -> Pose | None:
        """T_odom_body at a time, if it was heard."""
        return self._fused.odometry_at(stamp_ns)

    def health(self) -> TfHealth:
        """How it goes."""
        fused, silent_s = self._fused, time.monotonic() - self._heard_s
        level, text = DiagnosticStatus.OK, ""
        if self._wrong_map or self._others.refusal:
            level, text = DiagnosticStatus.ERROR, self._wrong_map or self._others.refusal
        elif silent_s > self._config.tf_odom_timeout_s:
            level = DiagnosticStatus.ERROR
            text = f"no odometry for {silent_s:.1f} s: {self._odometry.problem or self._why_silent()}"
        elif self._odometry.problem:
            level, text = DiagnosticStatus.WARN, self._odometry.problem
        elif time.monotonic() - self._jumped_s < _JUMP_IS_RECENT_S:
            level, text = DiagnosticStatus.WARN, "odometry jumped or was set anew; the body is taken to stand still"
        elif fused.track is Track.LOST:
            level, text = DiagnosticStatus.WARN, fused.track.value
        std_m = fused.std_m
        values = {
            "tf_state": fused.track.name,
            "tf_position_std_m": f"{std_m:.3f}" if std_m is not None else "",
            "tf_last_answer": self._last,
            "tf_left_out": str(self._odometry.left_out),
            "tf_frames_moved": str(self._odometry.tree.moved),
            **{f"tf_{name}": str(count) for name, count in fused.counts.items()},
        }
        return TfHealth(level, text, values)

    def _why_silent(self) -> str:
        if self._config.tf_odometry == "topic":
            return f"nothing arrives on {self._node.resolve_topic_name('odom')}; remap odom, or set tf_odometry to tf"
        return f"{self._config.odom_frame} -> {self._body} does not move on in time on /tf; start the odometry"

    def _on_timer(self) -> None:
        place_map = self._map_of()
        if place_map is not self._map:
            self._map, self._fused = place_map, MapOdom(self._config)
            self._wrong_map = _why_not(place_map, self._config.odom_frame, self._body) if place_map else ""
            self._answers.clear()
        for stamp_ns, pose in self._odometry.take():
            self._heard_s = time.monotonic()
            if not self._fused.on_odometry(stamp_ns, pose):
                self._jumped_s = time.monotonic()
        newest_ns = self._fused.newest_odometry_ns
        while self._answers and newest_ns is not None and self._answers[0][0] <= newest_ns:
            stamp_ns, sighting = self._answers.popleft()
            if sighting is None:
                self._fused.on_nothing(stamp_ns)
            else:
                self._last = self._fused.on_answer(sighting)
        self._publish(newest_ns)

    def _publish(self, odometry_ns: int | None) -> None:
        """Send the transform, dated ahead; once for each time of the odometry."""
        pose, place_map = self._fused.map_from_odom, self._map
        may = self._others.has_listened and not self._others.refusal and not self._wrong_map
        if pose is None or place_map is None or odometry_ns is None or not may or not self._publisher.is_activated:
            return
        stamp_ns = odometry_ns + round(self._config.transform_tolerance_s * 1e9)
        if stamp_ns == self._sent_ns:
            return
        self._sent_ns = stamp_ns
        message = TransformStamped(child_frame_id=self._config.odom_frame)
        message.header.frame_id, message.header.stamp = place_map.frame_id, time_from_ns(stamp_ns)
        x, y, z = pose.known_xyz
        message.transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=pose_message(pose).orientation)
        self._others.sent(stamp_ns)
        self._publisher.publish(TFMessage(transforms=[message]))


def sighting_of(match: PlaceMatch) -> Sighting:
    """The pose of an answer that has one."""
    pose = pose_of(match.pose.pose.position, match.pose.pose.orientation)
    covariance = np.array(match.pose.covariance, np.float64).reshape(6, 6)
    return Sighting(
        ns_from_time(match.header.stamp),
        pose,
        covariance,
        match.confidence,
        is_match=match.status == PlaceMatch.MATCH,
        is_metric=match.is_metric,
    )


def _why_not(place_map: MapInUse, odom_frame: str, body_frame: str) -> str:
    """What of a map's frames speaks against placing the odometry's frame in it; empty if nothing does."""
    if place_map.frame_id == odom_frame:
        return (
            f"the frame of map {place_map.name} is {odom_frame!r}, as the odometry's: it was built from odometry; "
            "build it with --frame-id map"
        )
    bodies = place_map.bodies - {body_frame}
    if bodies:
        return (
            f"map {place_map.name} holds poses of {', '.join(sorted(bodies))}, and body_frame is {body_frame!r}; set "
            "body_frame, or build the map from poses of that frame"
        )
    return ""
