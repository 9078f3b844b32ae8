"""Stages are timed where they run, and add up where they run twice."""

from __future__ import annotations

import pytest

from effovpr_ros.recognition import latency
from effovpr_ros.recognition.latency import Latency, StageClock


def test_time_by_stage(monkeypatch: pytest.MonkeyPatch):
    # Each look at the clock: start; search 1 to 3; decide 3 to 4; verify 5 to 9; decide 9 to 11; end.
    looks = iter([0.0, 1.0, 3.0, 3.0, 4.0, 5.0, 9.0, 9.0, 11.0, 12.0])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(looks))
    clock = StageClock()
    for name in ("search", "decide", "verify", "decide"):
        with clock.stage(name):
            pass
    found = clock.latency()
    assert found == Latency(extract=0.0, search=2e3, rerank=0.0, decide=3e3, verify=4e3, total=12e3)
