"""Asking until the place is sure: answers of one robot that stands, turns or drives, until they tell one pose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose, inverse
from effovpr_ros.recognition.sightings import Sighting, agree

DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S = 30.0, 600.0
DEFAULT_AGREEING, MAX_AGREEING = 2, 20
# The place that an image shows best lies about where the robot is and looks about where it looks.
_BESIDE_M, _BESIDE_RAD = 3.5, math.radians(50.0)
# Rooms repeat, some within themselves: one pose must have so many times the support of any other, more where its
# MATCHes look one way, since like views err alike.
_LEAD_ALL_AROUND, _LEAD = 1.5, 2.5
_ANOTHER_VIEW_RAD = math.radians(60.0)
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


@dataclass(frozen=True)
class _Answer:
    """One image's answer, and whether it was a MATCH; else it supports a pose but proposes none."""

    sighting: Sighting
    is_match: bool


class Relocalization:
    """Collects answers. Each MATCH proposes a pose; every answer supports those that it lies beside, by its confidence.

    Attributes:
        num_images: that were asked.
        best: the MATCHes of the pose that has most support, in their order.
        num_supporting: answers that support it.
    """

    def __init__(self, config: RelocalizationConfig) -> None:
        """Begin."""
        self._config = config
        self._answers: list[_Answer] = []
        self._looked: list[Pose] = []
        self._lead = math.inf
        self.num_images = 0
        self.best: tuple[Sighting, ...] = ()
        self.num_supporting = 0

    @property
    def is_sure(self) -> bool:
        """Whether enough answers support one pose, none other nearly as much, and the robot has looked about."""
        lead = _LEAD_ALL_AROUND if self._views_differ else _LEAD
        return self.num_supporting >= self._config.num_agreeing and self._lead >= lead and self._has_looked_about

    def add(self, odometry: Pose | None, sighting: Sighting | None, *, is_match: bool = True) -> None:
        """Take the answer to one image.

        Args:
            odometry: T_odom_body when it was taken; None if unknown.
            sighting: its pose, with heading; None where it has none.
            is_match: whether it is a MATCH; one that is not supports a pose and proposes none.
        """
        self.num_images += 1
        if odometry is not None:
            self._looked.append(odometry)
        if sighting is None or (is_match and sighting.confidence < self._config.min_confidence):
            return
        self._answers.append(_Answer(sighting, is_match))
        self._weigh()

    @property
    def answer(self) -> Sighting | None:
        """The surest of the MATCHes of the best pose, by covariance."""
        return min(self.best, key=lambda item: float(np.trace(item.covariance[:2, :2])), default=None)

    @property
    def confidence(self) -> float:
        """That the best place is right: the highest of its MATCHes, since like pictures err alike."""
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

    def _weigh(self) -> None:
        """Find the pose with most support, and how far it leads."""
        proposals = [item.sighting for item in self._answers if item.is_match]
        if not proposals:
            return
        support = [_support(item, self._answers) for item in proposals]
        first = int(np.argmax([value for value, _ in support]))
        self.best = tuple(item for item in proposals if item is proposals[first] or agree(item, proposals[first]))
        best, self.num_supporting = support[first]
        # What no MATCH proposes may still be a rival: the place that most of the other answers name.
        others = [item for item in self._answers if not _is_beside(item.sighting, proposals[first])]
        rival = max((_support(item.sighting, others)[0] for item in others), default=0.0)
        self._lead = best / rival if rival else math.inf


def _support(proposal: Sighting, answers: Sequence[_Answer]) -> tuple[float, int]:
    """Confidence of all answers that lie beside a pose, and their number."""
    beside = [item.sighting.confidence for item in answers if _is_beside(item.sighting, proposal)]
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
