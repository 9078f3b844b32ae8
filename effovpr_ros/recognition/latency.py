"""How long the stages of a recognition take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Milliseconds by stage.

    Attributes:
        extract: preprocessing and the network; 0 where features were given.
        search: first stage.
        rerank: second stage.
        decide: status, confidence and pose of the place.
        total: all of it, from the image to the answer.
        verify: third stage; 0 where it did not look.
        pose: measuring the pose; 0 where none was measured.
    """

    extract: float
    search: float
    rerank: float
    decide: float
    total: float
    verify: float = 0.0
    pose: float = 0.0


class StageClock:
    """Adds up the time that is spent in each stage."""

    def __init__(self) -> None:
        """Start now."""
        self._started = time.perf_counter()
        self._spent_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens within for a stage: extract, search, rerank, verify, pose or decide."""
        started = time.perf_counter()
        yield
        self._spent_s[name] += time.perf_counter() - started

    def latency(self) -> Latency:
        """Time by stage up to now."""
        stages = ("extract", "search", "rerank", "verify", "pose", "decide")
        spent_ms = {name: self._spent_s[name] * 1e3 for name in stages}
        return Latency(**spent_ms, total=(time.perf_counter() - self._started) * 1e3)
