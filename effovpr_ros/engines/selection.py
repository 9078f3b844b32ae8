"""The fastest of several engines, timed side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effovpr_ros.engines.cache import cache_root, machine_name, read_record

_ROUNDS = 7

SURE = 2.0
"""So many times as fast as PyTorch, the likeliest engine is taken: no other was ever faster then (docs/engines.md), and
trying them takes longer than all else."""
FIRST_ROUNDS = 3
"""Calls of PyTorch and the likeliest, enough to tell that."""


@dataclass(frozen=True)
class Trial:
    """How an engine fared.

    Attributes:
        name: of the engine.
        least_ms: of one image; None where it was not timed.
        refused: why not; empty if it was.
    """

    name: str
    least_ms: float | None
    refused: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.name} {self.least_ms:.1f} ms" if self.least_ms is not None else f"{self.name} refused"


@dataclass(frozen=True)
class Choice:
    """What `auto` chose on this machine.

    Attributes:
        engine: the fastest.
        measured: all that were tried, for people.
        seconds: that choosing took.
    """

    engine: str
    measured: str
    seconds: float

    def __str__(self) -> str:
        """For people."""
        return f"{self.engine} is the fastest of {self.measured}; found in {self.seconds:.0f} s"

    @classmethod
    def of(cls, trials: Sequence[Trial], present: Sequence[str], seconds: float) -> Choice:
        """The fastest of what was tried, and the names of what was not."""
        tried = {trial.name for trial in trials}
        measured = "; ".join(str(trial) for trial in trials)
        if untried := [name for name in present if name not in tried]:
            measured += f"; not tried, since it is {SURE:g} times as fast as PyTorch at least: {', '.join(untried)}"
        return cls(fastest(trials).name, measured, round(seconds, 1))

    @classmethod
    def from_record(cls, values: object) -> Choice | None:
        """From what was kept; None where that is anything else, so that it is measured again."""
        if not isinstance(values, dict):
            return None
        engine, measured, seconds = (values.get(name) for name in ("engine", "measured", "seconds"))
        if not isinstance(engine, str) or not isinstance(measured, str) or not isinstance(seconds, (int, float)):
            return None
        return cls(engine, measured, float(seconds))


def kept_choices() -> list[tuple[str, Choice]]:
    """What `auto` has chosen on this machine with threads as now, by network and input size; newest first.

    Raises:
        EngineError: the cache is not usable.
    """
    files = sorted(cache_root().glob("*/auto-*.json"), key=lambda path: -path.stat().st_mtime)
    found = []
    for path in files:
        record = read_record(path)
        choice = Choice.from_record(record)
        if record is not None and choice is not None and record.get("machine") == machine_name():
            found.append((path.parent.name.rpartition("-")[0], choice))
    return found


def fastest(trials: Sequence[Trial]) -> Trial:
    """The trial with the least time; the earlier one of two equal ones.

    Args:
        trials: at least one of them was timed.
    """
    return min((trial for trial in trials if trial.least_ms is not None), key=lambda trial: trial.least_ms or 0.0)


def times_side_by_side(
    functions: Sequence[Callable[[], object]],
    rounds: int = _ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each function, called in turn, so that a change of the machine's load meets them all.

    Args:
        functions: run once beforehand, for what the first call alone does.
        rounds: calls of each.
        clock: seconds.

    Returns:
        One list a function, `rounds` long.
    """
    times_ms: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(rounds):
        for function, found in zip(functions, times_ms, strict=True):
            started = clock()
            function()
            found.append((clock() - started) * 1e3)
    return times_ms


def least_side_by_side(functions: Sequence[Callable[[], object]], rounds: int = _ROUNDS) -> list[float]:
    """Least milliseconds of each function, which other work of the machine changes least; see `times_side_by_side`."""
    return [min(times_ms) for times_ms in times_side_by_side(functions, rounds)]
