"""Images of several cameras that were taken at one time, joined as they arrive."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

# As many moments are open at a time, and as many that were closed are remembered.
_MOST_OPEN = 8
_REMEMBERED = 32
# So many moments in a row that all lack a camera, while all cameras send, show that their clocks are apart.
_APART_AFTER = 20


@dataclass
class Moment(Generic[Item]):
    """Images of one time.

    Attributes:
        stamp_ns: of the first that came.
        opened_s: when that was.
        items: by number of the camera.
    """

    stamp_ns: int
    opened_s: float
    items: dict[int, Item] = field(default_factory=dict)


class Moments(Generic[Item]):
    """Joins images by their stamps; holds no more than eight moments, whatever comes.

    Attributes:
        late: images whose moment was closed before they came.
        incomplete: moments that were closed without all cameras.
        complete: moments that were closed with all.
    """

    def __init__(self, num_cameras: int, tolerance_ns: int, wait_s: float) -> None:
        """Start without images.

        Args:
            num_cameras: that a moment waits for.
            tolerance_ns: stamps of one moment are at most so far from its first image's.
            wait_s: a moment is closed so long after its first image.
        """
        self._num_cameras = num_cameras
        self._tolerance_ns = tolerance_ns
        self._wait_s = wait_s
        self._open: list[Moment[Item]] = []
        self._closed: deque[tuple[int, frozenset[int]]] = deque(maxlen=_REMEMBERED)
        self._newest_ns: dict[int, int] = {}
        self._heard_since_complete: set[int] = set()
        self._incomplete_in_a_row = 0
        self.late = 0
        self.incomplete = 0
        self.complete = 0

    def add(self, camera: int, stamp_ns: int, item: Item, now_s: float) -> list[Moment[Item]]:
        """Put an image where it belongs.

        Args:
            camera: its number.
            stamp_ns: of the image.
            item: to be kept for it.
            now_s: time of a clock that always runs.

        Returns:
            Moments that are closed by it, oldest first: its own where it was the last that was missing, and older ones,
            whose cameras have gone on.
        """
        self._newest_ns[camera] = stamp_ns
        self._heard_since_complete.add(camera)
        near = [moment for moment in self._open if camera not in moment.items and self._is_near(moment, stamp_ns)]
        moment = min(near, key=lambda item: abs(item.stamp_ns - stamp_ns), default=None)
        if moment is None:
            if any(camera not in had and abs(stamp - stamp_ns) <= self._tolerance_ns for stamp, had in self._closed):
                self.late += 1
                return []
            moment = Moment(stamp_ns, now_s)
            self._open.append(moment)
            self._open.sort(key=lambda item: item.stamp_ns)
        moment.items[camera] = item
        if len(moment.items) == self._num_cameras:
            return self._close([other for other in self._open if other.stamp_ns <= moment.stamp_ns])
        return self._close(self._open[: max(0, len(self._open) - _MOST_OPEN)])

    def due(self, now_s: float) -> list[Moment[Item]]:
        """Close the moments that have waited long enough; oldest first."""
        return self._close([moment for moment in self._open if now_s - moment.opened_s >= self._wait_s])

    def clear(self) -> int:
        """Forget open moments, and say how many there were."""
        forgotten = len(self._open)
        self._open.clear()
        return forgotten

    def apart_s(self) -> float | None:
        """How far the newest stamps are apart, where no moment is complete although all cameras send; else None."""
        if self._incomplete_in_a_row < _APART_AFTER or len(self._heard_since_complete) < self._num_cameras:
            return None
        return (max(self._newest_ns.values()) - min(self._newest_ns.values())) * 1e-9

    def _is_near(self, moment: Moment[Item], stamp_ns: int) -> bool:
        return abs(moment.stamp_ns - stamp_ns) <= self._tolerance_ns

    def _close(self, moments: list[Moment[Item]]) -> list[Moment[Item]]:
        for moment in moments:
            self._open.remove(moment)
            self._closed.append((moment.stamp_ns, frozenset(moment.items)))
            if len(moment.items) == self._num_cameras:
                self.complete += 1
                self._incomplete_in_a_row = 0
                self._heard_since_complete.clear()
            else:
                self.incomplete += 1
                self._incomplete_in_a_row += 1
        return moments
