"""Measured poses of one robot that tell one pose together, though each may be doubtful.

A wrong place gives a pose too, and the next picture of it, which shows most of the same, errs alike. Pictures that
share little hardly do: where they measure poses that odometry brings together, to decimetres, the pose is right, unless
another room looks the same all around. So what counts are views, not pictures.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from effovpr_ros.recognition.sightings import Sighting, agree

# Views that lie so far apart, or turn so far, show little of the same.
_APART_M, _APART_RAD = 2.0, math.radians(28.0)
_VIEWS = 3
_LEAD = 2.0


@dataclass(eq=False)
class _Measured:
    """A sighting, and those that agree with it, itself included."""

    sighting: Sighting
    agreeing: list[_Measured] = field(default_factory=list)


class MeasuredViews:
    """Collects sightings whose poses were measured.

    Attributes:
        best: the sightings of the pose that most views tell, in their order.
        num_views: of it.
    """

    def __init__(self, most: int) -> None:
        """Begin.

        Args:
            most: sightings that are remembered.
        """
        self._measured: deque[_Measured] = deque()
        self._most = most
        self._rival = 0
        self.best: tuple[Sighting, ...] = ()
        self.num_views = 0

    @property
    def is_told(self) -> bool:
        """Whether three views tell one pose, and no other pose is told by more than half as many."""
        return self.num_views >= _VIEWS and self.num_views >= _LEAD * self._rival

    @property
    def confidence(self) -> float:
        """That one view at least is right."""
        return 1.0 - math.prod(1.0 - item.confidence for item in _views(self.best))

    def add(self, sighting: Sighting) -> None:
        """Take a sighting; one without odometry is taken to be of a robot that turns on the spot."""
        if len(self._measured) == self._most:
            oldest = self._measured.popleft()
            for other in oldest.agreeing:
                if other is not oldest:
                    other.agreeing.remove(oldest)
        newest = _Measured(sighting)
        for other in self._measured:
            if agree(other.sighting, sighting):
                other.agreeing.append(newest)
                newest.agreeing.append(other)
        newest.agreeing.append(newest)
        self._measured.append(newest)
        self._count()

    def _count(self) -> None:
        counted = [(len(_views(_sightings(item.agreeing))), len(item.agreeing)) for item in self._measured]
        first = max(range(len(counted)), key=counted.__getitem__)
        best = self._measured[first].agreeing
        self.num_views, self.best = counted[first][0], tuple(_sightings(best))
        others = [item for item in self._measured if item not in best]
        rivals = ([other for other in item.agreeing if other not in best] for item in others)
        self._rival = max((len(_views(_sightings(rival))) for rival in rivals), default=0)


def _sightings(measured: Iterable[_Measured]) -> list[Sighting]:
    return [item.sighting for item in measured]


def _views(sightings: Iterable[Sighting]) -> list[Sighting]:
    """Those of sightings that lie or look apart from each other, the surest of like ones."""
    chosen: list[Sighting] = []
    for item in sorted(sightings, key=lambda item: -item.confidence):
        if all(_is_apart(item, other) for other in chosen):
            chosen.append(item)
    return chosen


def _is_apart(a: Sighting, b: Sighting) -> bool:
    here, there = (item.odometry or item.pose for item in (a, b))
    far_m = math.dist(here.position_xyz[:2], there.position_xyz[:2])
    return far_m >= _APART_M or (here.turn_rad(there) or 0.0) >= _APART_RAD
