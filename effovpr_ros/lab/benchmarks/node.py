"""What the running node needs, from the raw figures of `nodes.node_benchmark`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effovpr_ros.lab.benchmarks.timing import Timing

_AS_FAST = 1.5
_AT_THE_END = 10


@dataclass(frozen=True)
class NodeFigures:
    """`place_recognizer` as a process of its own, asked over DDS with one JPEG at a time.

    Attributes:
        engine: its parameter.
        places: of its map.
        start: from the start of the process to active: Python, ROS, map, network.
        first_answer: from the start of the process to the answer to its first image.
        first_answer_torch: the same by engine torch, started in turn with it.
        full_speed_first_s: from the start of the process by engine auto, with an empty cache, to answers by the fastest
            engine; None where it was not measured.
        full_speed_later_s: likewise of the next start.
        latency: from the publication of an image to the arrival of its answer.
        stages: as the answers give them: extract (with preprocessing), search, rerank, decide, and total, from the
            receipt of the image to the finished answer.
        around: `latency` without `extract`: decoding, search, re-ranking, decision, messages and DDS.
        resident_mib: memory after the last image, with the pages of files that others may share.
        anonymous_mib: of it, what no file stands behind.
    """

    engine: str
    places: int
    start: Timing
    first_answer: Timing
    first_answer_torch: Timing
    full_speed_first_s: float | None
    full_speed_later_s: float | None
    latency: Timing
    stages: dict[str, Timing]
    around: Timing
    resident_mib: float
    anonymous_mib: float

    @classmethod
    def of(cls, raw: Mapping[str, Any], engine: str, places: int) -> NodeFigures:
        """Medians and spread of what the program measured."""
        stages_ms = raw["stages_ms"]
        pairs = zip(raw["latency_ms"], stages_ms["extract_ms"], strict=True)
        settling: list[float | None] = [full_speed_s(answers) for answers in raw["settling"]]
        first_speed_s, later_speed_s = settling or [None, None]
        return cls(
            engine,
            places,
            Timing.of([1e3 * time_s for time_s in raw["start_s"]]),
            Timing.of([1e3 * time_s for time_s in raw["first_answer_s"]]),
            Timing.of([1e3 * time_s for time_s in raw["first_answer_torch_s"]]),
            first_speed_s,
            later_speed_s,
            Timing.of(raw["latency_ms"]),
            {name.removesuffix("_ms"): Timing.of(times_ms) for name, times_ms in stages_ms.items()},
            Timing.of([latency_ms - extract_ms for latency_ms, extract_ms in pairs]),
            round(raw["resident_mib"], 1),
            round(raw["anonymous_mib"], 1),
        )

    @property
    def times_torch(self) -> float:
        """Start to first answer, as times that of engine torch."""
        return self.first_answer.median_ms / self.first_answer_torch.median_ms


def full_speed_s(answers: Sequence[tuple[float, float]]) -> float:
    """When answers became as fast as they are at the end.

    Args:
        answers: at least one, in their order: seconds since the start, and milliseconds of their forward pass.

    Returns:
        Seconds of the first answer after which three in turn take no longer, in the median, than the last ten by half.
    """
    times_s, passes_ms = np.array(answers).T
    limit_ms = _AS_FAST * np.median(passes_ms[-_AT_THE_END:])
    slow = [np.median(passes_ms[first : first + 3]) > limit_ms for first in range(max(1, len(passes_ms) - 2))]
    return round(float(times_s[max(np.flatnonzero(slow), default=-1) + 1]), 2)
