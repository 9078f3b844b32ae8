"""A program that builds the map of some images on a cluster, for a test that kills it: IMAGES WEIGHTS OUT ADDRESS."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from cluster_material import build_cut, extractor_in, job_for, open_folder

from effovpr_ros.cluster.ray_workers import PoolConfig, connected, run_on_ray


def main() -> None:
    images, weights, out, address = sys.argv[1:]
    source = open_folder(Path(images))
    pool = PoolConfig(address=address)
    with connected(pool) as workers:
        job = job_for(source, out, extractor_in(Path(weights)))
        report = build_cut(source, job, 4, partial(run_on_ray, config=pool, workers=workers), progress=_say)
    print(f"{report.places} places, {report.done_before} images done before", flush=True)


def _say(done: int) -> None:
    print(f"{done} images", flush=True)


if __name__ == "__main__":
    main()
