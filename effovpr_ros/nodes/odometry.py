"""The robot's poses of the last seconds, for images that arrive a little later than they were taken."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from threading import Condition
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

from effovpr_ros.core.errors import TrajectoryError
from effovpr_ros.core.poses import Pose
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.sources.bag_poses import pose_of
from effovpr_ros.sources.trajectory import Trajectory

# Odometry comes at up to some hundred messages a second; images wait at most a few seconds.
_KEPT = 500
_MAX_APART_NS = 100_000_000
_MAX_GAP_NS = 1_000_000_000
# Messages may overtake each other, by less than this.
_MAX_REORDER_NS = 1_000_000_000
_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=50, reliability=QoSReliabilityPolicy.BEST_EFFORT)


class OdometryBuffer:
    """Poses by their stamps; one thread adds, another asks."""

    def __init__(self) -> None:
        """Start empty."""
        self._changed = Condition()
        self._poses: list[tuple[int, Pose]] = []
        self._heard = 0
        self._heard_in_vain = -1

    def add(self, message: Odometry) -> None:
        """Keep a message. One that is much older than the newest shows a clock set back, which starts anew.

        Raises:
            TrajectoryError: a pose that is not finite, or without orientation.
        """
        pose = pose_of(message.pose.pose.position, message.pose.pose.orientation)
        stamp_ns = ns_from_time(message.header.stamp)
        with self._changed:
            if self._poses and stamp_ns < self._poses[-1][0] - _MAX_REORDER_NS:
                self._poses.clear()
            insort(self._poses, (stamp_ns, pose), key=lambda item: item[0])
            del self._poses[:-_KEPT]
            self._heard += 1
            self._changed.notify_all()

    def at(self, stamp_ns: int) -> Pose | None:
        """The pose nearest in time, if it is within 0.1 s."""
        near = self._around(stamp_ns)
        best = min(near, key=lambda item: abs(item[0] - stamp_ns), default=None)
        return best[1] if best is not None and abs(best[0] - stamp_ns) <= _MAX_APART_NS else None

    def interpolated(self, stamp_ns: int, wait_s: float) -> Pose | None:
        """The pose at a time, between its neighbours if they are at most 1 s apart, else as by `at`.

        Args:
            stamp_ns: of an image.
            wait_s: odometry of that time or later is awaited so long. Where a wait was in vain, none begins until
                odometry is heard again: a robot without odometry must not lose time with each image.
        """
        with self._changed:
            if self._heard != self._heard_in_vain and not self._changed.wait_for(
                lambda: self._poses and self._poses[-1][0] >= stamp_ns, wait_s
            ):
                self._heard_in_vain = self._heard
        near = self._around(stamp_ns)
        if len(near) == 2 and near[0][0] <= stamp_ns and near[1][0] - near[0][0] <= _MAX_GAP_NS:
            stamps_ns, poses = zip(*near, strict=True)
            return Trajectory(stamps_ns, poses).at(stamp_ns, _MAX_GAP_NS)
        return self.at(stamp_ns)

    def _around(self, stamp_ns: int) -> list[tuple[int, Pose]]:
        """The last pose before a time and the first at it or after, where there are such."""
        with self._changed:
            after = bisect_left(self._poses, stamp_ns, key=lambda item: item[0])
            return self._poses[max(after - 1, 0) : after + 1]


class OdometryListener:
    """Subscribes to `odom` while somebody needs it."""

    def __init__(self, node: GuardedNode, on_odometry: Callable[[int], None] = lambda stamp_ns: None) -> None:
        """Start without a subscription; `frame_id` is that of the last message, empty before.

        Args:
            node: that listens.
            on_odometry: called with the stamp of each message in nanoseconds, once its pose is known.
        """
        self._heard = on_odometry
        self._node = node
        self._buffer = OdometryBuffer()
        self._subscription: Any = None
        self.frame_id = ""

    def listen(self, wanted: bool) -> None:
        """Subscribe or stop; what was heard is forgotten when it stops."""
        if wanted and self._subscription is None:
            self._subscription = self._node.subscribe(Odometry, "odom", self._on_odometry, _QOS)
        elif not wanted and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription, self._buffer = None, OdometryBuffer()

    def at(self, stamp_ns: int) -> Pose | None:
        """The robot's pose at that time, if one within 0.1 s was heard."""
        return self._buffer.at(stamp_ns)

    def interpolated(self, stamp_ns: int, wait_s: float) -> Pose | None:
        """The robot's pose at that time; see `OdometryBuffer.interpolated`."""
        return self._buffer.interpolated(stamp_ns, wait_s)

    def _on_odometry(self, message: Odometry) -> None:
        try:
            self._buffer.add(message)
            self.frame_id = message.header.frame_id
            self._heard(ns_from_time(message.header.stamp))
        except TrajectoryError as error:
            self._node.get_logger().error(f"odometry is left out: {error}", throttle_duration_sec=5.0)
