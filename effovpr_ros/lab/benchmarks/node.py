"""What the running node needs, from the raw figures of `nodes.node_benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effovpr_ros.lab.benchmarks.timing import Timing


@dataclass(frozen=True)
class NodeFigures:
    """`place_recognizer` as a process of its own, asked over DDS with one JPEG at a time.

    Attributes:
        engine: its parameter.
        places: of its map.
        start: from the start of the process to active: Python, ROS, map, network.
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
        return cls(
            engine,
            places,
            Timing.of([1e3 * start_s for start_s in raw["start_s"]]),
            Timing.of(raw["latency_ms"]),
            {name.removesuffix("_ms"): Timing.of(times_ms) for name, times_ms in stages_ms.items()},
            Timing.of([latency_ms - extract_ms for latency_ms, extract_ms in pairs]),
            round(raw["resident_mib"], 1),
            round(raw["anonymous_mib"], 1),
        )
