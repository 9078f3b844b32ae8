"""Arrivals of a stream of images: silence, and what was lost on the way."""

from __future__ import annotations

from collections import deque

# What a quantile and a share mean something of.
_WINDOW = 60
_FEWEST = 5
# Between one period and two.
_GAP = 1.5
# Stamps jitter by less than this share of the period.
_JITTER = 0.25
_REGULAR_SHARE = 0.8
# Where more than that were lost, it is the period that is wrong.
_MOST_LOST = 0.9
_PAUSE_S = 5.0


class ImageStream:
    """Counts images, and the gaps between their stamps that are longer than the usual period.

    It sees what no callback sees: images that the network, a queue or the driver lost.
    """

    def __init__(self, now_s: float) -> None:
        """Begin with silence.

        Args:
            now_s: time of a clock that always runs.
        """
        self._heard_s = now_s
        self._last_ns: int | None = None
        self._intervals_s: deque[float] = deque(maxlen=_WINDOW)
        self.received = 0
        self.lost = 0

    def restart(self, now_s: float) -> None:
        """Forget the silence so far."""
        self._heard_s = now_s

    def arrived(self, stamp_ns: int, now_s: float) -> None:
        """An image came."""
        pause_s, self._heard_s = now_s - self._heard_s, now_s
        last_ns, self._last_ns = self._last_ns, stamp_ns
        self.received += 1
        if last_ns is None or stamp_ns <= last_ns:
            return
        interval_s = (stamp_ns - last_ns) * 1e-9
        # A camera that was switched off lost nothing; its silence was told.
        if pause_s > _PAUSE_S:
            return
        self._intervals_s.append(interval_s)
        if not self._has_period():
            return
        self.lost += (
            self._lost_of_window() if len(self._intervals_s) == _FEWEST else _missing(interval_s, self.period_s())
        )

    def silent_s(self, now_s: float) -> float:
        """Time since the last image."""
        return now_s - self._heard_s

    def period_s(self) -> float:
        """The usual time between two images that follow each other; 0 while it is not known."""
        if len(self._intervals_s) < _FEWEST:
            return 0.0
        ordered = sorted(self._intervals_s)
        # Where most images are lost, most intervals are several periods; the short ones are one.
        shortest = ordered[len(ordered) // 10]
        single = [interval_s for interval_s in ordered if interval_s <= _GAP * shortest]
        return single[len(single) // 2]

    def recently_lost(self) -> tuple[int, int]:
        """Of the newest images, how many were lost and how many were sent; (0, 0) for a stream without a period."""
        if not self._has_period():
            return 0, 0
        lost = self._lost_of_window()
        return lost, lost + len(self._intervals_s)

    def _has_period(self) -> bool:
        """Whether most intervals are whole periods: only then is a longer one a loss.

        A camera that is stamped where it is read, by a program that stalls and catches up, has none.
        """
        period_s = self.period_s()
        if not period_s:
            return False
        ratios = [interval_s / period_s for interval_s in self._intervals_s]
        regular = sum(abs(ratio - max(round(ratio), 1)) <= _JITTER for ratio in ratios)
        return regular >= _REGULAR_SHARE * len(ratios) and sum(ratios) * (1.0 - _MOST_LOST) <= len(ratios)

    def _lost_of_window(self) -> int:
        period_s = self.period_s()
        return sum(_missing(interval_s, period_s) for interval_s in self._intervals_s)


def _missing(interval_s: float, period_s: float) -> int:
    """Images that are missing in an interval."""
    return round(interval_s / period_s) - 1 if interval_s > _GAP * period_s else 0
