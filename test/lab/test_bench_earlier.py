"""A run of `effovpr bench` beside an earlier one: what is compared, and when it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import FINGERPRINT

from effovpr_ros.cli import bench
from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.benchmarks.earlier import EarlierRun, compare, keep, kept_of, machine_class, stored_runs
from effovpr_ros.lab.benchmarks.machine import Machine
from effovpr_ros.lab.benchmarks.node import NodeFigures
from effovpr_ros.lab.benchmarks.query import QueryFigures
from effovpr_ros.lab.benchmarks.report import Report
from effovpr_ros.lab.benchmarks.timing import Timing

MACHINE = Machine("Some CPU", 2, 2, 8.0, "", "Linux", "3.11", 0.5, {}, "AVX2", "avx2", {})
BEFORE = EarlierRun("1.0.0", "2026-01-01", machine_class(MACHINE), "vit, 322 px, torch", 0.1, {"rerank / network": 0.5})


def report(rerank_ms: float, network_ms: float = 40.0) -> Report:
    names = ("decode", "preprocess", "network", "describe", "search", "rerank", "rerank_cached", "verify", "decide")
    times = dict.fromkeys((*names, "around"), Timing.of([8.0]))
    times |= {"rerank": Timing.of([rerank_ms]), "network": Timing.of([network_ms])}
    query = QueryFigures(engine="torch", places=10, candidates=100, **times, limit_ms=15.0)
    return Report(
        "bench", "2026-02-02", 1.0, MACHINE, replace(FINGERPRINT, architecture="vit", image_size=322), query=query
    )


def test_ratios_worked_by_hand():
    stages = {"extract_ms": [10.0], "total_ms": [20.0]}
    raw: dict[str, Any] = {"start_s": [1.0], "latency_ms": [25.0], "stages_ms": stages, "settling": []}
    raw |= {"first_answer_s": [1.5], "first_answer_torch_s": [1.5]}
    node = NodeFigures.of({**raw, "resident_mib": 1.0, "anonymous_mib": 1.0}, "torch", 10)
    run = kept_of(replace(report(rerank_ms=10.0), node=node), "1.1.0")
    assert run is not None
    # 10 of 40 ms; 8 of 40; 25 of 10.
    assert run.ratios == {
        "rerank / network": 0.25,
        "rerank_cached / network": 0.2,
        "verify / network": 0.2,
        "around / network": 0.2,
        "image to answer / extract": 2.5,
    }
    assert run.machine == "Some CPU, 2 cores, 2 threads, no GPU"
    assert kept_of(replace(report(10.0), query=None), "1.1.0") is None
    held_back = replace(MACHINE, held_back={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert machine_class(held_back) == "Some CPU, 2 cores, 2 threads, no GPU, ONEDNN_MAX_CPU_ISA=AVX2"
    said = "kernels: AVX2, of re-ranking: avx2, held back by ONEDNN_MAX_CPU_ISA=AVX2"
    assert said in str(replace(report(10.0), machine=held_back))


@pytest.mark.parametrize(
    ("rerank_ms", "network_ms", "code"),
    # 0.5 before: 22 of 40 ms are a tenth more and pass, 23 do not. A machine that is half as fast changes nothing.
    [(22.0, 40.0, 0), (23.0, 40.0, 1), (44.0, 80.0, 0), (10.0, 40.0, 0)],
)
def test_a_path_that_became_slower_fails(
    rerank_ms: float,
    network_ms: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    run = kept_of(report(rerank_ms, network_ms), "1.1.0")
    assert run is not None
    monkeypatch.setattr(bench, "stored_runs", lambda: [BEFORE])
    assert bench._compare(run) == code
    said = capsys.readouterr().err
    assert ("SLOWER than version 1.0.0: rerank / network 0.50 -> 0.57 (1.15 times)" in said) == bool(code)


def test_only_runs_alike_are_compared():
    run = kept_of(report(40.0), "1.1.0")
    assert run is not None
    others = [replace(BEFORE, machine="Other CPU"), replace(BEFORE, model="vit, 322 px, onnxruntime")]
    assert compare(run, others) is None
    newer = replace(BEFORE, version="1.0.1", ratios={"rerank / network": 1.0, "gone": 3.0})
    found = compare(run, [BEFORE, newer, *others])
    assert found is not None
    assert (found[0], [change.name for change in found[1]]) == (newer, ["rerank / network"])


def test_runs_are_kept(tmp_path: Path):
    path = tmp_path / "runs.json"
    keep(BEFORE, path)
    keep(replace(BEFORE, version="1.1.0"), path)
    again = replace(BEFORE, ratios={"rerank / network": 0.4})
    keep(again, path)
    assert stored_runs(path) == [replace(BEFORE, version="1.1.0"), again]
    path.write_text("[{}]")
    with pytest.raises(EvaluationError, match="holds no runs"):
        stored_runs(path)


def test_the_shipped_runs_can_be_read():
    assert all(run.ratios for run in stored_runs())
