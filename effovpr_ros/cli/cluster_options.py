"""Options of `effovpr map build --cluster`."""

from __future__ import annotations

import argparse

LOCAL = "local"


def add_cluster_options(build: argparse.ArgumentParser) -> None:
    """Options of a build on a Ray cluster."""
    build.add_argument(
        "--cluster",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="build in shards by Ray, on the cluster at this address or on this machine; MAP and SOURCE may be URLs as "
        "s3://bucket/folder",
    )
    build.add_argument("--workers", type=int, default=0, help="of the cluster; 0: as many as there is room for")
    build.add_argument("--worker-cpus", type=float, default=1.0, help="CPUs, and threads, of each worker")
    build.add_argument("--worker-gpus", type=float, default=0.0, help="GPUs of each worker; fractions share one")
    build.add_argument("--shard-places", type=int, default=0, help="images a shard; 0: a few shards a worker")
