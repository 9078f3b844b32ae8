"""Times with their spread, taken in turn so that ratios hold on a machine whose load changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effovpr_ros.engines.selection import times_side_by_side


@dataclass(frozen=True)
class Timing:
    """Milliseconds of several runs.

    Attributes:
        median_ms: of the runs.
        p10_ms: a tenth of the runs took less.
        p90_ms: a tenth of the runs took longer.
        runs: how many.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Timing:
        """Median and spread of at least one run."""
        p10, median, p90 = np.percentile(times_ms, [10, 50, 90])
        return cls(round(float(median), 4), round(float(p10), 4), round(float(p90), 4), len(times_ms))

    def __str__(self) -> str:
        """For people."""
        digits = 1 if self.median_ms >= 10 else 2 if self.median_ms >= 0.1 else 4
        return f"{self.median_ms:.{digits}f} ({self.p10_ms:.{digits}f} to {self.p90_ms:.{digits}f})"


def side_by_side(functions: Sequence[Callable[[], object]], rounds: int) -> list[Timing]:
    """Time functions in turn; each is called once beforehand."""
    return [Timing.of(times_ms) for times_ms in times_side_by_side(functions, rounds)]
