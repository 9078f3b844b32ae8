"""Where the odometry's frame is in the map (`map -> odom` of REP-105), from measured poses and odometry."""

from __future__ import annotations

import enum
import math
from bisect import bisect_left
from collections import deque
from dataclasses import replace

from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import (
    compose,
    interpolate,
    inverse,
    multiply,
    quat_of_vector,
    rotation_vector,
)
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.robot_filter import RobotFilter
from effovpr_ros.recognition.sightings import Sighting, agreeing, has_moved

_KEPT_NS = 10_000_000_000
_THIN_NS = 15_000_000
_MAX_GAP_NS = 1_000_000_000
_SET_BACK_NS = 1_000_000_000
# No robot that this is made for moves so; odometry that does has been set anew or was corrected by its own SLAM.
_COASTING_NS = 2_000_000_000
_MAX_SPEED_MPS, _MAX_TURN_RAD_S = 10.0, 12.0
_JUMP_M, _JUMP_RAD = 0.3, 0.5
_SHAKEN_M, _SHAKEN_RAD = 1.0, 0.5
# Answers that no longer count for an agreement.
_FORGOTTEN_NS = 20_000_000_000
_MOST_APART = 12
# A correction up to this is driven out smoothly; what is farther is another place.
_SAME_PLACE_M, _SAME_HEADING_RAD = 1.0, 0.6
_TURN_OF_SPEED_RAD_M = 1.0


class Track(enum.Enum):
    """How the robot is followed."""

    WAITING = "waiting for a first pose"
    TRACKING = "tracking"
    COASTING = "by odometry alone"
    LOST = "lost: the transform is frozen"


class MapOdom:
    """Fuses answers and odometry; for one thread.

    Attributes:
        track: how the robot is followed.
        map_from_odom: T_map_odom to publish; None before the first pose.
        counts: answers that were used, refused, jumped to, that came too late or without odometry; odometry's jumps.
    """

    def __init__(self, config: MapOdomConfig) -> None:
        """Start without a pose."""
        self._config = config
        self._odometry: deque[tuple[int, Pose]] = deque()
        self._corrected: tuple[int, RobotFilter] | None = None
        self._now: tuple[int, Pose, RobotFilter] | None = None
        self._apart: list[Sighting] = []
        self._last_used_ns = 0
        self._published: tuple[int, Pose] | None = None
        self.track = Track.WAITING
        self.map_from_odom: Pose | None = None
        self.counts = dict.fromkeys(("used", "refused", "jumps", "late", "no_odometry", "odometry_jumps"), 0)

    @property
    def std_m(self) -> float | None:
        """Standard deviation of the body's position; None before the first pose."""
        return None if self._now is None else self._now[2].std_m

    @property
    def newest_odometry_ns(self) -> int | None:
        """Stamp of the last odometry."""
        return self._odometry[-1][0] if self._odometry else None

    # Odometry

    def on_odometry(self, stamp_ns: int, odometry: Pose) -> bool:
        """Move on by T_odom_body at a time; whether it is smooth.

        Where odometry jumps or its clock is set back, the body is taken to stand where it was, less surely.
        """
        smooth = True
        if self._odometry:
            last_ns, last = self._odometry[-1]
            if stamp_ns <= last_ns and stamp_ns > last_ns - _SET_BACK_NS:
                return True
            smooth = stamp_ns > last_ns and not _is_jump(last, odometry, (stamp_ns - last_ns) * 1e-9)
            if smooth and stamp_ns - last_ns < _THIN_NS:
                return True
        if not smooth:
            self.counts["odometry_jumps"] += 1
            self._odometry.clear()
            self._apart.clear()
        self._odometry.append((stamp_ns, odometry))
        self._forget(stamp_ns - _KEPT_NS)
        self._follow(stamp_ns, odometry, smooth)
        return smooth

    def odometry_at(self, stamp_ns: int) -> Pose | None:
        """T_odom_body at a time; None where none was heard about it."""
        after = bisect_left(self._odometry, stamp_ns, key=lambda item: item[0])
        if after == len(self._odometry):
            return None
        (end_ns, end) = self._odometry[after]
        if end_ns == stamp_ns:
            return end
        if after == 0:
            return None
        start_ns, start = self._odometry[after - 1]
        if end_ns - start_ns > _MAX_GAP_NS:
            return None
        return interpolate(start, end, (stamp_ns - start_ns) / (end_ns - start_ns))

    def _forget(self, before_ns: int) -> None:
        """Drop odometry from before a time; what was believed then is kept as what it has become by what is left."""
        while self._odometry[0][0] < before_ns:
            next_ns, after = self._odometry[1]
            if self._corrected is not None and self._corrected[0] < next_ns:
                belief = self._believed_at(next_ns, after)
                self._corrected = None if belief is None else (next_ns, belief)
            self._odometry.popleft()

    def _follow(self, stamp_ns: int, odometry: Pose, smooth: bool) -> None:
        if self._now is None:
            return
        _, before, belief = self._now
        if not smooth:
            belief = belief.shaken(_SHAKEN_M, _SHAKEN_RAD)
            self._corrected = (stamp_ns, belief)
            if self.map_from_odom is not None:
                body = compose(self.map_from_odom, before)
                self.map_from_odom = compose(body, inverse(odometry))
            self._published = None
        else:
            belief = belief.moved(before, odometry)
        self._now = (stamp_ns, odometry, belief)
        if belief.std_m > self._config.tf_max_std_m:
            self.track = Track.LOST
        elif self.track is Track.TRACKING and stamp_ns - self._last_used_ns > _COASTING_NS:
            self.track = Track.COASTING
        self._publish(stamp_ns, odometry, belief)

    def _publish(self, stamp_ns: int, odometry: Pose, belief: RobotFilter) -> None:
        """Move what is published towards what is believed, as fast as is allowed; not at all while lost."""
        if self.track is Track.LOST:
            self._published = None
            return
        target, speed = belief.pose, self._config.tf_correction_mps
        if self.map_from_odom is not None and speed and self._published is not None:
            allowed_m = speed * max(0.0, (stamp_ns - self._published[0]) * 1e-9)
            target = _towards(compose(self.map_from_odom, odometry), target, allowed_m)
        elif self.map_from_odom is not None and speed:
            # The first moment after a pause: where it was, so that the way from there is driven out too.
            target = compose(self.map_from_odom, odometry)
        self.map_from_odom = compose(target, inverse(odometry))
        self._published = (stamp_ns, target)

    # Answers

    def on_answer(self, sighting: Sighting) -> str:
        """Use a measured answer; returns what became of it, for people.

        What odometry foretells counts, though it was doubtful by itself: odometry is the other that says the same. So
        a MATCH also ends being lost, while the position is still known well enough for odometry to foretell one. Else
        answers must agree with each other, and one at least be a MATCH or foretold.
        """
        stamp_ns = sighting.stamp_ns
        odometry = self.odometry_at(stamp_ns)
        if odometry is None:
            self.counts["no_odometry"] += 1
            return "no odometry at the image's time"
        sighting = replace(sighting, odometry=odometry)
        if self._corrected is not None and stamp_ns < self._corrected[0]:
            self.counts["late"] += 1
            return "it is older than the answer before"
        belief = self._believed_at(stamp_ns, odometry) if self._corrected is not None else None
        foretold = belief is not None and self._foretells(belief, sighting)
        if belief is not None and foretold and (sighting.is_match or self.track is not Track.LOST):
            self._apart.clear()
            self.counts["used"] += 1
            self._correct(sighting, belief.corrected(sighting))
            return "used"
        became = self._consider(sighting, foretold)
        if not sighting.is_match:
            self.on_nothing(stamp_ns)
        return became

    def _foretells(self, belief: RobotFilter, sighting: Sighting) -> bool:
        """Whether an answer is where odometry has the body, as far as that is known."""
        return belief.std_m <= self._config.tf_max_std_m and belief.distance2(sighting) <= 1.0

    def on_nothing(self, stamp_ns: int) -> None:
        """An image showed no place that counts: outside the map for long, the robot is lost."""
        lost_ns = round(self._config.tf_lost_after_s * 1e9)
        if self.track in (Track.TRACKING, Track.COASTING) and stamp_ns - self._last_used_ns > lost_ns:
            self.track = Track.LOST

    def _consider(self, sighting: Sighting, foretold: bool) -> str:
        """An answer that does not fit what is believed, or comes while nothing is: wait for others that agree."""
        following = self.track in (Track.TRACKING, Track.COASTING)
        self._apart = [item for item in self._apart if sighting.stamp_ns - item.stamp_ns < _FORGOTTEN_NS]
        self._apart = [*self._apart[1 - _MOST_APART :], sighting]
        group = agreeing(self._apart, sighting)
        wanted = self._config.tf_jump_agreeing if following else self._config.tf_first_agreeing
        is_sure = (foretold or any(item.is_match for item in group)) and (has_moved(group) or not following)
        if len(group) < wanted or not is_sure:
            self.counts["refused"] += 1
            return f"{len(group)} of {wanted} agree on another pose"
        known = self._now[2] if self._now is not None else None
        belief = RobotFilter.begun(sighting, self._config.tf_planar, known)
        for item in group[:-1]:
            if item.odometry is None or sighting.odometry is None:
                continue
            moved = Sighting(
                sighting.stamp_ns,
                compose(item.pose, compose(inverse(item.odometry), sighting.odometry)),
                item.covariance * 4.0,
                item.confidence,
            )
            if belief.distance2(moved) <= 1.0:
                belief = belief.corrected(moved)
        self._apart.clear()
        self.counts["used" if known is None else "jumps"] += 1
        self._correct(sighting, belief)
        return f"{len(group)} agree"

    def _correct(self, sighting: Sighting, belief: RobotFilter) -> None:
        self._corrected = (sighting.stamp_ns, belief)
        self._last_used_ns = sighting.stamp_ns
        now_ns, now = self._odometry[-1]
        before = sighting.odometry or now
        for stamp_ns, odometry in self._odometry:
            if stamp_ns > sighting.stamp_ns:
                belief, before = belief.moved(before, odometry), odometry
        self._now = (now_ns, now, belief)
        self.track = Track.TRACKING if belief.std_m <= self._config.tf_max_std_m else Track.LOST
        if self.map_from_odom is None or not _is_near(compose(self.map_from_odom, now), belief.pose):
            self.map_from_odom = compose(belief.pose, inverse(now))
            self._published = (now_ns, belief.pose)

    def _believed_at(self, stamp_ns: int, odometry: Pose) -> RobotFilter | None:
        """What the last correction becomes by odometry until a later time; None where that is forgotten."""
        assert self._corrected is not None
        from_ns, belief = self._corrected
        before = self.odometry_at(from_ns)
        if before is None:
            return None
        for between_ns, between in self._odometry:
            if from_ns < between_ns < stamp_ns:
                belief, before = belief.moved(before, between), between
        return belief.moved(before, odometry)


def _is_jump(before: Pose, after: Pose, seconds: float) -> bool:
    way, turn = before.distance_m(after), before.turn_rad(after) or 0.0
    return way > max(_JUMP_M, _MAX_SPEED_MPS * seconds) or turn > max(_JUMP_RAD, _MAX_TURN_RAD_S * seconds)


def _is_near(a: Pose, b: Pose) -> bool:
    return a.distance_m(b) <= _SAME_PLACE_M and (a.turn_rad(b) or 0.0) <= _SAME_HEADING_RAD


def _towards(start: Pose, goal: Pose, allowed_m: float) -> Pose:
    """A pose on the way, at most so far, and so many radians, from the start."""
    way = start.distance_m(goal)
    sx, sy, sz, sw = start.known_quat_xyzw
    vector = rotation_vector(multiply(goal.known_quat_xyzw, (-sx, -sy, -sz, sw)))
    turn = math.hypot(*vector)
    along = 1.0 if way <= allowed_m else allowed_m / way
    about = 1.0 if turn <= allowed_m * _TURN_OF_SPEED_RAD_M else allowed_m * _TURN_OF_SPEED_RAD_M / turn
    x, y, z = (a + along * (b - a) for a, b in zip(start.known_xyz, goal.known_xyz, strict=True))
    rx, ry, rz = (about * value for value in vector)
    return Pose((x, y, z), multiply(quat_of_vector((rx, ry, rz)), start.known_quat_xyzw))
