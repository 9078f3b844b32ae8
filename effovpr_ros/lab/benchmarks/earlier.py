"""A run beside one of an earlier release on a machine of the same class, so that what became slower is told.

What is compared are ratios of medians of one run, each to the forward pass of that run: a machine that is busy, or
clocked down, slows both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.benchmarks.machine import Machine
from effovpr_ros.lab.benchmarks.report import Report

STORED = Path(__file__).with_name("earlier.json")
"""Runs that are shipped with the package, the newest last; `effovpr bench --keep` adds one."""
MOST_TIMES_AS_SLOW = 1.1


@dataclass(frozen=True)
class EarlierRun:
    """What is kept of a run.

    Attributes:
        version: of the package.
        started: ISO 8601, UTC.
        machine: class of the machine, see `machine_class`.
        model: architecture, input size and engine.
        load: runnable processes before it.
        ratios: times of the default path to the forward pass, by name.
    """

    version: str
    started: str
    machine: str
    model: str
    load: float
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """A ratio then and now."""

    name: str
    before: float
    now: float

    @property
    def times_as_slow(self) -> float:
        """Above 1 where it got worse."""
        return self.now / self.before

    @property
    def is_worse(self) -> bool:
        """By more than a tenth."""
        return self.times_as_slow > MOST_TIMES_AS_SLOW

    def __str__(self) -> str:
        """For people."""
        return f"{self.name} {self.before:.2f} -> {self.now:.2f} ({self.times_as_slow:.2f} times)"


def machine_class(machine: Machine) -> str:
    """What ratios depend on: processor, cores, threads and GPU."""
    limits = "".join(f", {name}={value}" for name, value in machine.held_back.items())
    return f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.gpu or 'no GPU'}{limits}"


def kept_of(report: Report, version: str) -> EarlierRun | None:
    """What is kept of a run; None where neither a query nor the node was measured."""
    ratios: dict[str, float] = {}
    engine = ""
    if report.query is not None:
        engine, network_ms = report.query.engine, report.query.network.median_ms
        for name in ("rerank", "rerank_cached", "verify", "around"):
            ratios[f"{name} / network"] = round(getattr(report.query, name).median_ms / network_ms, 4)
    if report.node is not None:
        engine = report.node.engine
        extract_ms = report.node.stages["extract"].median_ms
        ratios["image to answer / extract"] = round(report.node.latency.median_ms / extract_ms, 4)
    if not ratios:
        return None
    model = f"{report.model.architecture}, {report.model.image_size} px, {engine}"
    return EarlierRun(version, report.started, machine_class(report.machine), model, report.machine.load, ratios)


def stored_runs(path: Path = STORED) -> list[EarlierRun]:
    """Runs in a file, oldest first; none where there is no file.

    Raises:
        EvaluationError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [EarlierRun(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise EvaluationError(f"{path} holds no runs of `effovpr bench --keep`: {error}") from error


def keep(run: EarlierRun, path: Path) -> None:
    """Add a run to a file; one of the same version, machine and model is replaced.

    Raises:
        EvaluationError: the file is damaged or cannot be written.
    """
    same = (run.version, run.machine, run.model)
    runs = [item for item in stored_runs(path) if (item.version, item.machine, item.model) != same]
    try:
        path.write_text(json.dumps([asdict(item) for item in [*runs, run]], indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written: {error.strerror}") from error


def compare(run: EarlierRun, stored: Sequence[EarlierRun]) -> tuple[EarlierRun, list[Change]] | None:
    """The newest stored run of the same machine class and model, and how the ratios changed since.

    Args:
        run: of now.
        stored: oldest first.

    Returns:
        None where there is no such run.
    """
    alike = [item for item in stored if (item.machine, item.model) == (run.machine, run.model)]
    if not alike:
        return None
    before = alike[-1]
    shared = [name for name in run.ratios if before.ratios.get(name, 0.0) > 0.0]
    return before, [Change(name, before.ratios[name], run.ratios[name]) for name in shared]
