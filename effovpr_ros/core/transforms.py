"""Poses put together, and the tree of frames that `/tf` and `/tf_static` tell, by time (REP-105)."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise

from effovpr_ros.core.errors import TransformError
from effovpr_ros.core.poses import Pose

_KEPT_NS = 10_000_000_000
# Messages may overtake each other by less than this; a stamp further back shows a clock that was set back.
_MAX_REORDER_NS = 1_000_000_000
_DEEPEST = 100

Quat = tuple[float, float, float, float]


def compose(first: Pose, second: Pose) -> Pose:
    """T_a_c from T_a_b and T_b_c.

    Raises:
        TrajectoryError: a height or orientation is unknown.
    """
    quat = first.known_quat_xyzw
    shift = rotate(quat, second.known_xyz)
    x, y, z = (a + b for a, b in zip(first.known_xyz, shift, strict=True))
    return Pose((x, y, z), multiply(quat, second.known_quat_xyzw))


def inverse(pose: Pose) -> Pose:
    """T_b_a from T_a_b.

    Raises:
        TrajectoryError: its height or orientation is unknown.
    """
    x, y, z, w = pose.known_quat_xyzw
    back = (-x, -y, -z, w)
    px, py, pz = rotate(back, pose.known_xyz)
    return Pose((-px, -py, -pz), back)


def multiply(a: Quat, b: Quat) -> Quat:
    """Hamilton product of quaternions x y z w: the rotation by b, then by a."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def rotate(quat: Quat, vector: tuple[float, float, float]) -> tuple[float, float, float]:
    """A vector turned by a unit quaternion."""
    x, y, z, w = quat
    vx, vy, vz = vector
    tx, ty, tz = 2.0 * (y * vz - z * vy), 2.0 * (z * vx - x * vz), 2.0 * (x * vy - y * vx)
    return (
        vx + w * tx + y * tz - z * ty,
        vy + w * ty + z * tx - x * tz,
        vz + w * tz + x * ty - y * tx,
    )


def rotation_vector(quat: Quat) -> tuple[float, float, float]:
    """Axis times angle in [0, pi] of a unit quaternion."""
    x, y, z, w = quat if quat[3] >= 0.0 else (-quat[0], -quat[1], -quat[2], -quat[3])
    norm = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if norm < 1e-12 else 2.0 * math.atan2(norm, w) / norm
    return (scale * x, scale * y, scale * z)


def quat_of_vector(vector: tuple[float, float, float]) -> Quat:
    """Inverse of `rotation_vector`."""
    angle = math.sqrt(sum(value * value for value in vector))
    scale = 0.5 if angle < 1e-12 else math.sin(angle / 2.0) / angle
    x, y, z = (scale * value for value in vector)
    return (x, y, z, math.cos(angle / 2.0))


def slerp(a_xyzw: Quat, b_xyzw: Quat, fraction: float) -> Quat:
    """Spherical linear interpolation of unit quaternions along the shorter arc (Shoemake, 1985)."""
    cosine = sum(x * y for x, y in zip(a_xyzw, b_xyzw, strict=True))
    sign = 1.0 if cosine >= 0.0 else -1.0
    angle = math.acos(min(1.0, abs(cosine)))
    if angle < 1e-6:
        weights = (1.0 - fraction, sign * fraction)
    else:
        weights = (
            math.sin((1.0 - fraction) * angle) / math.sin(angle),
            sign * math.sin(fraction * angle) / math.sin(angle),
        )
    x, y, z, w = (weights[0] * p + weights[1] * q for p, q in zip(a_xyzw, b_xyzw, strict=True))
    return x, y, z, w


def interpolate(a: Pose, b: Pose, fraction: float) -> Pose:
    """A pose between two, 0 the first and 1 the second: positions linearly, orientations along the shorter arc."""
    (ax, ay, az), (bx, by, bz) = a.known_xyz, b.known_xyz
    position = (ax + fraction * (bx - ax), ay + fraction * (by - ay), az + fraction * (bz - az))
    return Pose(position, slerp(a.known_quat_xyzw, b.known_quat_xyzw, fraction))


@dataclass
class _Edge:
    """Where a frame is in its parent, by time."""

    parent: str
    is_static: bool
    stamps_ns: list[int] = field(default_factory=list)
    poses: list[Pose] = field(default_factory=list)

    def add(self, stamp_ns: int, pose: Pose) -> bool:
        """Keep a pose; whether the clock was set back, which forgets the earlier ones."""
        if self.is_static:
            self.stamps_ns, self.poses = [stamp_ns], [pose]
            return False
        set_back = bool(self.stamps_ns) and stamp_ns < self.stamps_ns[-1] - _MAX_REORDER_NS
        if set_back:
            self.stamps_ns.clear()
            self.poses.clear()
        at = bisect_left(self.stamps_ns, stamp_ns)
        if at < len(self.stamps_ns) and self.stamps_ns[at] == stamp_ns:
            self.poses[at] = pose
            return set_back
        self.stamps_ns.insert(at, stamp_ns)
        self.poses.insert(at, pose)
        old = bisect_left(self.stamps_ns, self.stamps_ns[-1] - _KEPT_NS)
        del self.stamps_ns[:old], self.poses[:old]
        return set_back

    def at(self, stamp_ns: int, child: str) -> Pose:
        """The pose at a time, never beyond what was heard."""
        if self.is_static:
            return self.poses[-1]
        first, last = self.stamps_ns[0], self.stamps_ns[-1]
        if not first <= stamp_ns <= last:
            nearest = first if stamp_ns < first else last
            raise TransformError(
                f"{self.parent} -> {child} is known from {first * 1e-9:.3f} to {last * 1e-9:.3f} s, not at "
                f"{stamp_ns * 1e-9:.3f} s, {abs(stamp_ns - nearest) * 1e-9:.3f} s "
                f"{'before' if stamp_ns < first else 'after'} that"
            )
        at = bisect_left(self.stamps_ns, stamp_ns)
        if self.stamps_ns[at] == stamp_ns:
            return self.poses[at]
        before, after = self.stamps_ns[at - 1], self.stamps_ns[at]
        return interpolate(self.poses[at - 1], self.poses[at], (stamp_ns - before) / (after - before))


class TransformTree:
    """Frames by their parents. Names are without the leading slash that tf had before ROS 2; for one thread.

    Attributes:
        set_back: how often a clock was set back.
        moved: how often a frame got another parent, or a static transform another value.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._edges: dict[str, _Edge] = {}
        self.set_back = 0
        self.moved = 0

    def add(self, parent: str, child: str, stamp_ns: int, pose: Pose, *, is_static: bool = False) -> bool:
        """Keep where a frame is. A frame that gets another parent is forgotten under the first.

        Returns:
            Whether that says anything new.

        Raises:
            TransformError: names that are empty or equal, or a loop: the transform is left out.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child:
            raise TransformError(f"a transform from {parent!r} to {child!r} needs two names of frames")
        if child in [parent, *self._above(parent)]:
            raise TransformError(
                f"{parent} -> {child} would close a loop ({' -> '.join([child, parent, *self._above(parent)])}); two "
                "nodes publish the frames in different order, stop one of them"
            )
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.is_static != is_static:
            self.moved += edge is not None
            edge = self._edges[child] = _Edge(parent, is_static)
        elif is_static:
            if edge.poses[-1] == pose:
                return False
            self.moved += 1
        self.set_back += edge.add(stamp_ns, pose)
        return True

    def latest_ns(self, target: str, source: str) -> int | None:
        """Newest time at which a frame's pose in another is known; None where only static transforms join them.

        Raises:
            TransformError: no chain of transforms joins them.
        """
        up, down = self._chain(target, source)
        moving = [self._edges[name] for name in (*up, *down) if not self._edges[name].is_static]
        return min((edge.stamps_ns[-1] for edge in moving), default=None)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Pose:
        """Pose of a frame in another at a time, T_target_source.

        Raises:
            TransformError: no chain of transforms joins them, or it is not known at that time.
        """
        up, down = self._chain(target, source)
        pose = Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        for name in up:
            pose = compose(pose, inverse(self._edges[name].at(stamp_ns, name)))
        for name in reversed(down):
            pose = compose(pose, self._edges[name].at(stamp_ns, name))
        return pose

    def _chain(self, target: str, source: str) -> tuple[list[str], list[str]]:
        """Frames whose edges lead up from the target, and those that lead up from the source, to where they meet."""
        target, source = target.lstrip("/"), source.lstrip("/")
        over_target, over_source = [target, *self._above(target)], [source, *self._above(source)]
        meet = next((name for name in over_target if name in over_source), None)
        if meet is None:
            known = ", ".join(f"{edge.parent} -> {name}" for name, edge in sorted(self._edges.items())[:8])
            raise TransformError(
                f"no transform joins {target} and {source}; known are {known or 'none'}: start what publishes it, or "
                "name the right frames"
            )
        return over_target[: over_target.index(meet)], over_source[: over_source.index(meet)]

    def _above(self, frame: str) -> list[str]:
        above: list[str] = []
        while (edge := self._edges.get(frame)) is not None and len(above) < _DEEPEST:
            frame = edge.parent
            above.append(frame)
        return above


def way_m_rad(poses: list[Pose]) -> tuple[float, float]:
    """Metres and radians of a way through poses."""
    steps = list(pairwise(poses))
    return sum(a.distance_m(b) for a, b in steps), sum(a.turn_rad(b) or 0.0 for a, b in steps)
