"""Parts of a build on a local Ray cluster: the plain map, for any number of workers; what is wrong is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from cluster_material import build_cut, build_plain, extractor_in, job_for, make_folder, open_folder, require_same

from effovpr_ros.cluster import ray_workers, versions
from effovpr_ros.cluster.parts import PartReport
from effovpr_ros.cluster.ray_workers import PoolConfig, connected, run_on_ray
from effovpr_ros.cluster.work import Part, ShardJob
from effovpr_ros.core.errors import ConfigError, WeightsError
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.sharded_map import open_map

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, apart from any other."""
    # Sockets have short names.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Workers import the modules of the tests to read what they are given.
        here = Path(__file__).parent
        patch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]))
        options = {"include_dashboard": False, "log_to_driver": False, "_temp_dir": folder}
        ray.init(address="local", num_cpus=2, object_store_memory=2**27, **options)
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return extractor_in(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images") / "drive", broken=(3,))


@pytest.mark.benchmark
@pytest.mark.parametrize(("workers", "part_places"), [(2, 4)])
def test_any_number_of_workers_gives_the_plain_map(
    cluster: None, images: Path, extractor: FeatureExtractor, tmp_path: Path, workers: int, part_places: int
):
    source = open_folder(images)
    build_plain(source, out=tmp_path / "plain", extractor=extractor)
    pool = PoolConfig(workers=workers)
    with connected(pool) as room:
        assert room == workers
        run = partial(run_on_ray, config=pool, workers=room)
        report = build_cut(source, job_for(source, str(tmp_path / "city"), extractor), part_places, run)
    assert (report.places, report.shards) == (20, -(-20 // part_places))
    with open_map(tmp_path / "city") as made, open_map(tmp_path / "plain") as one:
        require_same(made, one)
        assert made.check() == []


@pytest.mark.benchmark
def test_what_a_worker_lacks_is_said(cluster: None, images: Path, extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(images)
    job = job_for(source, str(tmp_path / "city"), extractor)
    job = replace(job, extractor=replace(job.extractor, weights=str(tmp_path / "nowhere.safetensors")))
    with pytest.raises(WeightsError, match=r"a worker cannot start: weights file .*nowhere.safetensors does not exist"):
        build_cut(source, job, 8, partial(run_on_ray, config=PoolConfig(), workers=1))


def test_a_cluster_without_room_is_refused(cluster: None):
    refused = pytest.raises(ConfigError, match="has 2 CPUs and 0 GPUs, no room for a worker of 1 and 1; ask for fewer")
    with refused, connected(PoolConfig(gpus=1.0)):
        pass
    with connected(PoolConfig(workers=5)) as room:
        assert room == 2


def test_impossible_workers_are_refused():
    for wrong in ({"workers": -1}, {"cpus": 0.0}, {"gpus": -1.0}):
        with pytest.raises(ConfigError, match="are impossible; workers and GPUs are 0 or more, CPUs more than 0"):
            PoolConfig(**wrong)


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(versions, "find_spec", lambda name: None)
    refused = pytest.raises(ConfigError, match=r"--cluster needs Ray, .* run `pip install effovpr_ros\[cluster\]`")
    with refused, connected(PoolConfig()):
        pass


def test_a_robot_imports_no_ray():
    program = (
        "import sys; import effovpr_ros.cli.main as m; m.main.__name__; import effovpr_ros.api; "
        "print([name for name in sys.modules if name.split('.')[0] in ('ray', 'pyarrow')])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("losses", [1, 3])
def test_parts_of_lost_workers_are_handed_out_again(losses: int, monkeypatch: pytest.MonkeyPatch):
    handed_out: list[list[int]] = []

    def one_round(job: ShardJob, parts: Sequence[Part], config: PoolConfig, workers: int) -> Iterator[PartReport]:
        handed_out.append([part.number for part in parts])
        yield PartReport(parts[0].number, 1, (), 1.0, 1.0, "torch")
        if len(handed_out) <= losses:
            raise ray.exceptions.RayActorError
        yield from (PartReport(part.number, 1, (), 1.0, 1.0, "torch") for part in parts[1:])

    monkeypatch.setattr(ray_workers, "_reports", one_round)
    parts = [Part(number, ()) for number in range(4)]
    reports = run_on_ray(cast(ShardJob, None), parts, PoolConfig(), 1)
    if losses == 1:
        assert [report.number for report in reports] == [0, 1, 2, 3]
        assert handed_out == [[0, 1, 2, 3], [1, 2, 3]]
    else:
        with pytest.raises(ConfigError, match="the cluster gave up"):
            list(reports)
        assert handed_out == [[0, 1, 2, 3], [1, 2, 3], [2, 3]]


def test_reports_that_come_twice_or_before_a_loss_at_the_end_are_no_failure(monkeypatch: pytest.MonkeyPatch):
    def one_round(job: ShardJob, parts: Sequence[Part], config: PoolConfig, workers: int) -> Iterator[PartReport]:
        yield from (PartReport(number, 1, (), 1.0, 1.0, "torch") for number in (0, 0, 1))
        raise ray.exceptions.RayActorError

    monkeypatch.setattr(ray_workers, "_reports", one_round)
    reports = run_on_ray(cast(ShardJob, None), [Part(0, ()), Part(1, ())], PoolConfig(), 1)
    assert [report.number for report in reports] == [0, 0, 1]
