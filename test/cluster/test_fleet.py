"""What docs/fleet.md says is what its script computes, and the script computes what is worked out by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fleet_costs", ROOT / "scripts/fleet_costs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_has_what_the_script_prints(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["fleet_costs.py"])
    script.main()
    assert capsys.readouterr().out.strip() in (ROOT / "docs/fleet.md").read_text(encoding="utf-8")


def test_figures_by_hand(script: ModuleType):
    costs = script.Costs(
        build_s=0.36,
        overhead=0.0,
        local_bytes=1000.0,
        points_bytes=0.0,
        thumbnail_bytes=0.0,
        global_bytes=0.0,
        index_bytes=0.0,
        resident_bytes=100.0,
        search_s=1e-8,
        rest_s=0.1,
        shard_places=100_000,
        machine_cores=10,
        core_cents_per_hour=5,
        gigabyte_cents_per_month=2,
    )
    figures = script.figures(1_000_000, costs)
    # 1e6 x 0.36 s = 360,000 s = 100 h; on two machines of 10 cores 5 h; 100 h x 5 cents.
    assert figures["build, core hours"] == "100"
    assert figures["machines of 10 cores for 8 hours"] == "2"
    assert figures["build, hours on them"] == "5.0"
    assert figures["build, cents"] == "500"
    # 1e6 x 1000 bytes; 1e6 x 10 ns = 10 ms on ten cores and 100 ms.
    assert (figures["shards"], figures["map, GB"], figures["map kept, cents a month"]) == ("10", "1", "2")
    assert figures["search, core milliseconds"] == "10.0"
    assert figures["query beyond the transport, milliseconds"] == "101"
    # 1000 x 0.11 s = 110 s at 5 cents an hour.
    assert figures["a thousand queries, cents"] == "0.15"
