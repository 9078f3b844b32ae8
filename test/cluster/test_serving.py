"""A served map on a Ray cluster of this machine: it answers as one process does, also where replicas are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="needs the extra [cluster]")
pytest.importorskip("fastapi", reason="needs the extra [serve]")

from ray import serve  # noqa: E402

from effovpr_ros.api import build_map, open_map  # noqa: E402
from effovpr_ros.cluster.replicas import Replicas  # noqa: E402
from effovpr_ros.cluster.serving import ClusterServer  # noqa: E402
from effovpr_ros.core.errors import ConfigError, ServerError  # noqa: E402
from effovpr_ros.core.images import read_image  # noqa: E402
from effovpr_ros.lab import demo_photos  # noqa: E402
from effovpr_ros.mapping.sharding import shard_map  # noqa: E402
from effovpr_ros.remote.answers import AnswerRecord, answer_record  # noqa: E402
from effovpr_ros.remote.client import MapServer  # noqa: E402
from effovpr_ros.serving.limits import Limits  # noqa: E402
from effovpr_ros.serving.revisions import ServedMap  # noqa: E402
from effovpr_ros.serving.running import Address  # noqa: E402

# Each part of a cluster is a process that loads torch: minutes on two cores.
pytestmark = pytest.mark.benchmark

PICTURES = Path(demo_photos.__file__).parent
TOKEN = "0123456789abcdef0123456789abcdef"
MODEL = {"device": "cpu", "engine": "torch"}


@dataclass(frozen=True)
class OnCluster:
    url: str
    path: Path
    server: ClusterServer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    build_map(folder / "whole", PICTURES / "map", **MODEL)
    shard_map(folder / "whole", folder / "cut", num_shards=2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as work:
        ray.init(address="local", _temp_dir=work, include_dashboard=False, log_to_driver=False, num_cpus=4)
        try:
            served = ServedMap(folder / "cut", {"verify": "on", "verify_budget_ms": 0.0}, MODEL)
            limits = Limits(rate_hz=0.0)
            server = ClusterServer(served, Address(port=port), limits, [TOKEN], Replicas(extractor_cpus=0.5))
            yield OnCluster(f"http://127.0.0.1:{port}", folder, server)
        finally:
            serve.shutdown()
            ray.shutdown()


def without_times(answer: AnswerRecord) -> AnswerRecord:
    return replace(answer, latency_ms=replace(answer.latency_ms, **dict.fromkeys(vars(answer.latency_ms), 0.0)))


def processes(name: str) -> list[int]:
    """Replicas of this user whose command line holds a name and that of the test's applications."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name in (folder / "cmdline").read_text(errors="replace"):
                found.append(int(folder.name))
    return found


def test_a_cluster_answers_as_one_process_also_where_replicas_are_killed(cluster: OnCluster):
    pictures = sorted((PICTURES / "queries").glob("*.jpg"))[:3]
    settings = {"verify": "on", "verify_budget_ms": 0.0}
    with open_map(cluster.path / "whole", settings=settings, **MODEL) as whole:
        expected = [answer_record(whole.recognize(read_image(path)), 5) for path in pictures]
    with MapServer(cluster.url, token=TOKEN, timeout_s=60.0) as client:
        assert client.info().shards == 2

        def ask_all() -> None:
            for path, wanted in zip(pictures, expected, strict=True):
                (found,) = client.localize_image(path.read_bytes()).results
                assert found.status == wanted.status
                assert found.confidence == pytest.approx(wanted.confidence, abs=1e-4)
                assert [item.place_id for item in found.candidates[:5]] == [c.place_id for c in wanted.candidates]
                assert [item.points for item in found.candidates[:5]] == [c.points for c in wanted.candidates]

        ask_all()
        assert client.get("/v1/places/3/picture", timeout_s=30.0).startswith(b"\xff\xd8")
        prefix = cluster.server._prefix
        for part in ("shard", "model", "gateway"):
            killed = processes(f"{prefix}-{part}")[0]
            os.kill(killed, signal.SIGKILL)
            ask_all()
    with (
        MapServer(cluster.url, token="wrong-token-0123456789", timeout_s=60.0) as stranger,
        pytest.raises(ServerError, match=r"refuses \(401\)"),
    ):
        stranger.info()


def test_a_newer_revision_comes_up_beside_the_old_one(cluster: OnCluster):
    shard_map(cluster.path / "whole", cluster.path / "next", num_shards=4)
    with MapServer(cluster.url, token=TOKEN, timeout_s=60.0) as client:
        before = client.info()
        (cluster.path / "cut").rename(cluster.path / "former")
        (cluster.path / "next").rename(cluster.path / "cut")
        deadline = time.monotonic() + 60.0
        while not cluster.server.refresh():
            assert time.monotonic() < deadline, "no newer revision"
        while client.info().revision == before.revision:
            assert time.monotonic() < deadline, "the newer revision does not answer"
            time.sleep(0.1)
        assert client.info().shards == 4
        picture = sorted((PICTURES / "queries").glob("*.jpg"))[0]
        assert client.localize_image(picture.read_bytes()).results[0].candidates


def test_what_a_cluster_cannot_serve_is_refused(cluster: OnCluster):
    served = ServedMap(cluster.path / "cut", {}, MODEL)
    with pytest.raises(ConfigError, match="give --port"):
        ClusterServer(served, Address(port=0), Limits(), [], Replicas())
    with pytest.raises(ConfigError, match="gateways 0"):
        Replicas(gateways=0)
