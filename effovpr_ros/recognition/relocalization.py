"""Asking until the place is sure: answers of one robot that stands, turns or drives, until they tell one pose."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose, inverse
from effovpr_ros.recognition.measured_views import MeasuredViews
from effovpr_ros.recognition.sightings import Sighting, agree

DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S = 30.0, 600.0
DEFAULT_AGREEING, MAX_AGREEING = 2, 20
# The place that an image shows best lies about where the robot is and looks about where it looks.
_BESIDE_M, _BESIDE_RAD = 3.5, math.radians(50.0)
# Rooms repeat, some within themselves: one pose must have so many times the support of any other, more where its
# MATCHes look one way, since like views err alike.
_LEAD_ALL_AROUND, _LEAD = 1.5, 2.5
_ANOTHER_VIEW_RAD = math.radians(60.0)
# Few cameras see more than that at once.
_ACROSS_RAD = math.radians(88.0)
# Of the last images, so that a robot that asks for long neither slows down nor remembers what odometry has forgotten.
_MOST_ANSWERS = 100
# A robot that moves has seen enough once it has looked all around, with no gap wider than this, or gone so far.
_WIDEST_GAP_RAD, _FAR_M = math.radians(50.0), 3.0


@dataclass(frozen=True)
class RelocalizationConfig:
    """What is asked for.

    Attributes:
        timeout_s: longest time.
        min_confidence: of an answer that counts.
        num_agreeing: answers that must support the pose.

    Raises:
        ConfigError: out of range.
    """

    timeout_s: float = DEFAULT_TIMEOUT_S
    min_confidence: float = 0.0
    num_agreeing: int = DEFAULT_AGREEING

    def __post_init__(self) -> None:
        """Refuse what cannot be; written so that NaN is refused too."""
        if not 0.0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise ConfigError(f"timeout_s {self.timeout_s} is outside (0, {MAX_TIMEOUT_S:.0f}]; 0 is the default")
        if not 0.0 <= self.min_confidence <= 1.0:
            raise ConfigError(f"min_confidence {self.min_confidence} is outside [0, 1]")
        if not 1 <= self.num_agreeing <= MAX_AGREEING:
            raise ConfigError(f"num_agreeing {self.num_agreeing} is outside [1, {MAX_AGREEING}]; 0 is the default")


class Relocalization:
    """Collects answers until they tell one pose, in one of two ways.

    By measured poses: those of views that share little agree, doubtful ones too, and those of any other pose are far
    fewer. By places, where nothing was measured: each MATCH proposes a pose; every answer supports those that it lies
    beside, by its confidence.

    Attributes:
        num_images: that were asked.
        best: the answers of the pose that is told, or that has most support so far, in their order.
        num_supporting: answers that support it.
    """

    def __init__(self, config: RelocalizationConfig) -> None:
        """Begin."""
        self._config = config
        self._answers: deque[Sighting] = deque(maxlen=_MOST_ANSWERS)
        self._looked: deque[Pose] = deque(maxlen=_MOST_ANSWERS)
        self._shown: deque[bool] = deque(maxlen=_MOST_ANSWERS)
        self._measured = MeasuredViews(_MOST_ANSWERS)
        self._lead = math.inf
        self.num_images = 0
        self.best: tuple[Sighting, ...] = ()
        self.num_supporting = 0

    @property
    def is_sure(self) -> bool:
        """Whether the answers tell one pose, and the robot has looked about."""
        if self.num_supporting < self._config.num_agreeing or not self._has_looked_about:
            return False
        # Off the map a wall like one of the map's tells a pose too, and all other directions show no place.
        if 2 * sum(self._shown) < len(self._shown) and not self._looks_across:
            return False
        return self._measured.is_told or self._lead >= (_LEAD_ALL_AROUND if self._views_differ else _LEAD)

    def add(self, odometry: Pose | None, sighting: Sighting | None) -> None:
        """Take the answer to one image.

        Args:
            odometry: T_odom_body when it was taken; None if unknown.
            sighting: its pose, with heading; None where it shows no place that has one.
        """
        self.num_images += 1
        self._shown.append(sighting is not None)
        if odometry is not None:
            self._looked.append(odometry)
        if sighting is None or (sighting.is_match and sighting.confidence < self._config.min_confidence):
            return
        self._answers.append(sighting)
        if sighting.is_metric:
            self._measured.add(sighting)
        self._weigh()

    @property
    def answer(self) -> Sighting | None:
        """The surest of the answers of the best pose, by covariance."""
        return min(self.best, key=lambda item: float(np.trace(item.covariance[:2, :2])), default=None)

    @property
    def confidence(self) -> float:
        """That the best place is right: the highest of its answers, since like pictures err alike; views do not."""
        if self._measured.is_told:
            return self._measured.confidence
        return max((item.confidence for item in self.best), default=0.0)

    @property
    def _has_looked_about(self) -> bool:
        if len(self._looked) < 2:
            return True
        standing = all(
            math.dist(pose.known_xyz[:2], self._looked[0].known_xyz[:2]) < 0.2
            and (pose.turn_rad(self._looked[0]) or 0.0) < math.radians(10.0)
            for pose in self._looked
        )
        x, y = np.array([pose.known_xyz[:2] for pose in self._looked]).T
        if standing or math.hypot(np.ptp(x), np.ptp(y)) >= _FAR_M:
            return True
        yaw = np.sort([pose.known_yaw_rad for pose in self._looked])
        return float(np.diff(yaw, append=yaw[0] + math.tau).max()) <= _WIDEST_GAP_RAD

    @property
    def _views_differ(self) -> bool:
        """Whether MATCHes of the best pose look so differently that they share nothing."""
        return any(
            (item.pose.turn_rad(other.pose) or 0.0) >= _ANOTHER_VIEW_RAD
            or math.dist(item.pose.position_xyz[:2], other.pose.position_xyz[:2]) >= _FAR_M
            for item in self.best
            for other in self.best
        )

    @property
    def _looks_across(self) -> bool:
        """Whether answers of the best pose look so differently that their pictures share nothing."""
        return any((a.pose.turn_rad(b.pose) or 0.0) >= _ACROSS_RAD for a in self.best for b in self.best)

    def _weigh(self) -> None:
        """Find the pose with most support, and how far it leads."""
        if self._measured.is_told:
            self.best, self.num_supporting = self._measured.best, len(self._measured.best)
            return
        proposals = [item for item in self._answers if item.is_match]
        if not proposals:
            self.best, self.num_supporting = (), 0
            return
        support = [_support(item, self._answers) for item in proposals]
        first = int(np.argmax([value for value, _ in support]))
        self.best = tuple(item for item in proposals if item is proposals[first] or agree(item, proposals[first]))
        best, self.num_supporting = support[first]
        # What no MATCH proposes may still be a rival: the place that most of the other answers name.
        others = [item for item in self._answers if not _is_beside(item, proposals[first])]
        rival = max((_support(item, others)[0] for item in others), default=0.0)
        self._lead = best / rival if rival else math.inf


def _support(proposal: Sighting, answers: Iterable[Sighting]) -> tuple[float, int]:
    """Confidence of all answers that lie beside a pose, and their number."""
    beside = [item.confidence for item in answers if _is_beside(item, proposal)]
    return sum(beside), len(beside)


def _is_beside(seen: Sighting, proposal: Sighting) -> bool:
    """Whether what an image showed lies about where a pose says that the robot was then."""
    if seen is proposal:
        return True
    there = proposal.pose
    if seen.odometry is not None and proposal.odometry is not None:
        there = brought_to(proposal, seen.odometry)
        if abs(math.remainder(seen.pose.known_yaw_rad - there.known_yaw_rad, math.tau)) > _BESIDE_RAD:
            return False
    return math.dist(seen.pose.position_xyz[:2], there.position_xyz[:2]) <= _BESIDE_M


def brought_to(sighting: Sighting, odometry: Pose) -> Pose:
    """Where the body of a sighting is once odometry has moved on to a T_odom_body; height is not kept track of."""
    if sighting.odometry is None:
        return sighting.pose
    x, y, z = sighting.pose.position_xyz
    flat = Pose.from_yaw(x, y, sighting.pose.known_yaw_rad, z or 0.0)
    return compose(flat, compose(inverse(sighting.odometry), odometry))
