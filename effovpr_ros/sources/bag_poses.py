"""Where the robot was, by a topic of a bag: poses, fixes, or the transforms between frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from effovpr_ros.core.errors import EffoVPRError, SourceError, TrajectoryError
from effovpr_ros.core.poses import FARTHEST_M, Pose
from effovpr_ros.core.transforms import compose
from effovpr_ros.sources.tags import geo_fix
from effovpr_ros.sources.trajectory import GeoTrajectory, Trajectory

Messages = Iterable[tuple[int, Any]]
"""Time of recording in nanoseconds, and message."""

_NO_FIX = -1
_BODY_FRAMES = ("base_link", "base_footprint")


@dataclass
class RefusedPoses:
    """Poses that are of no use, counted by reason, with the first one's words."""

    counts: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def add(self, reason: str, error: object = "") -> None:
        """Count one."""
        self.first = self.first or str(error)
        self.counts[reason] += 1

    def __str__(self) -> str:
        """All of them, for people."""
        return ", ".join(f"{count} x {reason}" for reason, count in self.counts.items())


def read_fixes(messages: Messages, refused: RefusedPoses) -> GeoTrajectory:
    """Fixes of NavSatFix.

    Raises:
        TrajectoryError: there is none that counts; says why.
    """
    stamps_ns, fixes = [], []
    for recorded_ns, message in messages:
        if message.status.status <= _NO_FIX:
            refused.add("fix of status -1 (no satellite solution)")
            continue
        altitude = float(message.altitude)
        try:
            fix = geo_fix(message.latitude, message.longitude, altitude if math.isfinite(altitude) else None)
        except EffoVPRError as error:
            at_zero = message.latitude == message.longitude == 0.0
            refused.add("fix at exactly (0, 0), which stands for none" if at_zero else "invalid fix", error)
            continue
        fixes.append(fix)
        stamps_ns.append(stamp_of(message) or recorded_ns)
    if not fixes and refused.counts:
        raise TrajectoryError(f"no fix can be used: {refused}; wait for the receiver, or name another --pose-topic")
    return GeoTrajectory(stamps_ns, fixes)


def read_poses(messages: Messages, refused: RefusedPoses) -> Trajectory:
    """Poses of Odometry, PoseStamped, PoseWithCovarianceStamped or Path.

    Raises:
        TrajectoryError: there is none that counts; says why.
    """
    stamps_ns: list[int] = []
    poses: list[Pose] = []
    unstamped_path = False
    for recorded_ns, message in messages:
        if hasattr(message, "poses"):
            if not message.poses:
                continue
            # Each Path repeats what the one before held; the last is the most refined.
            stamps_ns, poses = [], []
            refused.counts.clear()
            stamped = [(stamp_of(item), item.pose) for item in message.poses]
            unstamped_path = len(stamped) > 1 and not any(stamp_ns for stamp_ns, _ in stamped)
        else:
            pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
            stamped = [(stamp_of(message) or recorded_ns, pose)]
        for stamp_ns, pose in stamped:
            try:
                poses.append(pose_of(pose.position, pose.orientation))
                stamps_ns.append(stamp_ns)
            except TrajectoryError as error:
                refused.add("invalid pose", error)
    if unstamped_path:
        raise TrajectoryError(
            f"the {len(poses)} poses of the Path carry no stamp, so nothing tells when the robot was there; name a "
            "topic of odometry or of stamped poses with --pose-topic, or give a TUM trajectory with --table"
        )
    if not poses and refused.counts:
        raise TrajectoryError(f"the trajectory is empty: {refused}, the first: {refused.first}")
    return Trajectory(stamps_ns, poses)


class TransformChain:
    """Pose of the robot's frame in the root of its tree of transforms."""

    def __init__(self, frame_id: str, child_frame_id: str, links: list[Trajectory | Pose]) -> None:
        """Keep the transforms from the root to the robot; at least one changes over time."""
        self.frame_id, self.child_frame_id = frame_id, child_frame_id
        self._links = links

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last time at which all of them are known."""
        spans = [link.span_ns for link in self._links if isinstance(link, Trajectory)]
        return max(first for first, _ in spans), min(last for _, last in spans)

    def at(self, stamp_ns: int, max_gap_ns: int) -> Pose:
        """Pose at a time.

        Raises:
            TrajectoryError: see `Trajectory.at`.
        """
        links = (link.at(stamp_ns, max_gap_ns) if isinstance(link, Trajectory) else link for link in self._links)
        return reduce(compose, links)


def read_transforms(dynamic: Messages, static: Messages, refused: RefusedPoses) -> TransformChain:
    """The robot's way through its tree of transforms (REP-105): from the root to base_link, or base_footprint.

    Args:
        dynamic: messages of /tf.
        static: messages of /tf_static.
        refused: where invalid transforms are counted.

    Raises:
        TrajectoryError: no such frame, or nothing that moves it; lists the frames there are.
    """
    moving: dict[tuple[str, str], tuple[list[int], list[Pose]]] = {}
    fixed: dict[tuple[str, str], Pose] = {}
    for is_static, messages in ((True, static), (False, dynamic)):
        for recorded_ns, message in messages:
            for item in message.transforms:
                link = (item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/"))
                try:
                    pose = pose_of(item.transform.translation, item.transform.rotation)
                except TrajectoryError as error:
                    refused.add("invalid transform", error)
                    continue
                if is_static:
                    fixed[link] = pose
                else:
                    stamps_ns, poses = moving.setdefault(link, ([], []))
                    stamps_ns.append(stamp_of(item) or recorded_ns)
                    poses.append(pose)
    parents = {child: parent for parent, child in (*fixed, *moving)}
    listed = ", ".join(f"{parent} -> {child}" for parent, child in (*moving, *fixed)) or "none"
    body = next((frame for frame in _BODY_FRAMES if frame in parents), None)
    if body is None:
        raise TrajectoryError(f"no transform leads to {' or '.join(_BODY_FRAMES)}; there are {listed}")
    links: list[Trajectory | Pose] = []
    frame = body
    while frame in parents and len(links) <= len(parents):
        link = (parents[frame], frame)
        links.insert(0, Trajectory(*moving[link]) if link in moving else fixed[link])
        frame = parents[frame]
    if frame in parents:
        raise TrajectoryError(f"the transforms form a circle; there are {listed}")
    if not any(isinstance(link, Trajectory) for link in links):
        raise TrajectoryError(f"nothing moves {body} against {frame}; there are {listed}")
    return TransformChain(frame, body, links)


def stamp_of(message: Any) -> int:
    """Stamp of a message's header in nanoseconds; 0 if it has none."""
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def require_poses(read: Callable[[], Any], where: str) -> Any:
    """What a reader of poses returns; its errors as those of a source.

    Raises:
        SourceError: no usable pose.
    """
    try:
        return read()
    except TrajectoryError as error:
        raise SourceError(f"{where}: {error}") from error


def pose_of(position: Any, orientation: Any) -> Pose:
    """The pose of a message.

    Args:
        position: geometry_msgs/Point or Vector3 of rclpy or of `rosbags`.
        orientation: geometry_msgs/Quaternion, likewise.

    Raises:
        TrajectoryError: a value is not finite, a coordinate not on Earth, or the quaternion zero.
    """
    if any(abs(value) > FARTHEST_M for value in (position.x, position.y, position.z)):
        raise TrajectoryError(
            f"position ({position.x:g}, {position.y:g}, {position.z:g}) m is farther than any on Earth"
        )
    return Pose((position.x, position.y, position.z), (orientation.x, orientation.y, orientation.z, orientation.w))
