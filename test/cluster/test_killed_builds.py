"""Workers, the command and machines of a cluster are killed at random times: nothing is lost, nothing is there twice.

Takes minutes, so that it runs only where EFFOVPR_KILLS says how many kills: `EFFOVPR_KILLS=30 pytest -s THIS_FILE`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_material import build_plain, extractor_in, make_folder, open_folder, require_same

from effovpr_ros.mapping.sharded_map import open_map

KILLS = int(os.environ.get("EFFOVPR_KILLS", "0"))
IMAGES = 400
HERE = Path(__file__).parent

pytestmark = [pytest.mark.skipif(not KILLS, reason="set EFFOVPR_KILLS"), pytest.mark.timeout(7200)]
psutil = pytest.importorskip("psutil")
ray = pytest.importorskip("ray")


class Machines:
    """A cluster of three raylets on this machine, the first of which is the head and stays."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        options = {"include_dashboard": False, "temp_dir": self._folder, "object_store_memory": 2**27}
        self._cluster.add_node(num_cpus=0, **options)
        self.address = self._cluster.address
        self._others = [self._add(), self._add()]

    def _add(self) -> object:
        return self._cluster.add_node(num_cpus=1, object_store_memory=2**27)

    def raylets(self) -> list[int]:
        return [node.all_processes["raylet"][0].process.pid for node in self._others]  # type: ignore[attr-defined]

    def workers(self) -> list[int]:
        found = []
        for pid in self.raylets():
            for child in psutil.Process(pid).children(recursive=True):
                try:
                    if "MapWorker" in " ".join(child.cmdline()):
                        found.append(child.pid)
                except psutil.Error:
                    continue
        return found

    def replace(self, pid: int) -> None:
        """A machine whose raylet was killed goes, and another one comes."""
        number = self.raylets().index(pid)
        self._cluster.remove_node(self._others[number], allow_graceful=False)
        self._others[number] = self._add()

    def close(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def shards_in(out: Path) -> int:
    """How many are finished."""
    return len([*out.glob("shards/0*")])


@pytest.fixture
def machines() -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
        made = Machines()
        yield made
        made.close()


def test_nothing_is_lost_and_nothing_is_there_twice(machines: Machines, tmp_path: Path):
    rng = random.Random(1)
    images = make_folder(tmp_path / "drive", IMAGES)
    plain = build_plain(open_folder(images), out=tmp_path / "plain", extractor=extractor_in(tmp_path / "weights"))
    killed = dict.fromkeys(("worker", "command", "machine"), 0)
    builds = 0
    while sum(killed.values()) < KILLS:
        out = tmp_path / f"city{builds}"
        command = [sys.executable, "-P", str(HERE / "building_driver.py"), images, tmp_path / "weights", out]
        driver = subprocess.Popen([*map(str, command), machines.address], stdout=subprocess.DEVNULL)
        while driver.poll() is None:
            # Where nothing is finished between two kills, a busy machine never gets to the end.
            before = shards_in(out)
            while driver.poll() is None and shards_in(out) == before:
                time.sleep(0.1)
            time.sleep(rng.uniform(0.0, 2.0))
            if driver.poll() is not None or sum(killed.values()) >= KILLS:
                break
            kind = rng.choice(sorted(killed))
            pids = [driver.pid]
            if kind != "command":
                pids = machines.workers() if kind == "worker" else machines.raylets()
            if not pids:
                continue
            pid = rng.choice(pids)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed[kind] += 1
            print(
                f"killed a {kind} ({sum(killed.values())} of {KILLS}) with {shards_in(out)} shards finished", flush=True
            )
            if kind == "machine":
                machines.replace(pid)
            elif kind == "command":
                driver.wait()
                driver = subprocess.Popen([*map(str, command), machines.address], stdout=subprocess.DEVNULL)
        assert driver.wait(timeout=600) == 0
        with open_map(out) as made, open_map(plain) as one:
            require_same(made, one)
            assert made.check() == []
        names = sorted(path.name for path in (out / "shards").iterdir())
        assert names == [f"{number:05d}" for number in range(IMAGES // 2 // 4)]
        builds += 1
        print(f"build {builds} is whole after {killed}", flush=True)
