"""`effovpr map build --cluster`: what it asks for, what it prints. The cluster's own modules are loaded here alone."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from effovpr_ros.cli.camera_options import camera_of_source
from effovpr_ros.cli.map_source import open_map_source, print_refusals
from effovpr_ros.cli.options import extractor_config, preset, print_json
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.builder import BuildConfig
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.map_null import keep_map_null
from effovpr_ros.recognition.presets import config_for_map, map_settings
from effovpr_ros.sources.map_source import MapSource

if TYPE_CHECKING:
    from effovpr_ros.cluster.building import ClusterReport
    from effovpr_ros.cluster.work import ShardJob, WorkItem

LOCAL = "local"
_SHOWN_UNREADABLE = 100


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


def build_on_cluster(options: argparse.Namespace) -> int:
    """Build a map in shards; gives the exit code.

    Raises:
        EffoVPRError: see `map_building.build`; or the cluster cannot be used.
    """
    from effovpr_ros.cluster.versions import require_ray

    require_ray()
    from effovpr_ros.cluster.building import build_shards
    from effovpr_ros.cluster.ray_workers import PoolConfig, connected, run_on_ray
    from effovpr_ros.cluster.work import list_work, places_per_part

    if options.pca or len(options.image_topic) > 1:
        what = "--pca" if options.pca else "several image topics"
        raise ConfigError(f"{what} cannot be had with --cluster; build without, or leave --cluster out")
    if options.shard_places < 0:
        raise ConfigError(f"--shard-places {options.shard_places} is negative; 0 makes a few shards a worker")
    pool = PoolConfig(options.cluster, options.workers, options.worker_cpus, options.worker_gpus)
    build = BuildConfig(options.spacing_m, options.spacing_deg, options.batch_size)
    with ExitStack() as stack:
        source = _open_source(options, stack)
        items, too_close = list_work(source, build)
        job = _job(options, source, items, build)
        workers = stack.enter_context(connected(pool))
        part_places = places_per_part(len(items), workers, options.shard_places, build.batch_size)
        with tqdm(total=len(items), unit="image", disable=None, desc=job.name) as bar:
            report = build_shards(
                job,
                items,
                part_places,
                lambda job, parts: run_on_ray(job, parts, pool, workers),
                lambda done: bar.update(done),
            )
    _measure_null(options, job)
    said = _say(options, source, report, too_close)
    if options.json:
        print_json(said)
    return 0


def _open_source(options: argparse.Namespace, stack: ExitStack) -> MapSource:
    """The source, of which this machine gets what it needs to list its images."""
    from effovpr_ros.cluster.fetching import is_remote_bag, listed_folder, local_bag
    from effovpr_ros.cluster.storage import Storage

    datum = Datum(GeoPoint(*options.datum)) if options.datum else None
    stored = Storage(options.source)
    given = argparse.Namespace(**{**vars(options), "source": stored.path, "image_topic": options.image_topic[0]})
    if not stored.is_local:
        if is_remote_bag(stored):
            given.source = local_bag(stored)
        else:
            heads = options.table is None and options.kind in ("auto", "exif")
            given.source = stack.enter_context(listed_folder(stored, heads=heads))
    source = open_map_source(given, datum)
    options.found_camera, notes = camera_of_source(given, source)
    source.notes.extend(notes)
    return source


def _job(options: argparse.Namespace, source: MapSource, items: list[WorkItem], build: BuildConfig) -> ShardJob:
    from effovpr_ros.cluster.storage import Storage
    from effovpr_ros.cluster.versions import this_version
    from effovpr_ros.cluster.work import ShardJob

    if options.session_frame and not options.session:
        raise ConfigError("--session-frame needs --session, the name of the drive whose frame it is")
    out, given = Storage(options.map), Storage(options.source)
    model = extractor_config(options)
    return ShardJob(
        version=this_version(),
        out=str(out.path.resolve()) if out.is_local else out.url,
        name=options.name or options.map.rstrip("/").rsplit("/", 1)[-1],
        # Workers have other working folders.
        source=str(given.path.resolve()) if given.is_local else given.url,
        image_topic=source.bag.image_topic if source.bag is not None else "",
        max_pixels=int(1e6 * options.max_megapixels),
        session=source.session,
        session_frame=options.session_frame,
        origin=source.origin,
        camera=options.found_camera,
        frame_id=options.frame_id or ("" if options.session_frame else source.origin.frame_id) or "map",
        datum=GeoPoint(*options.datum) if options.datum else None,
        recognition=map_settings(preset(options)[1]),
        extractor=model,
        build=build,
        with_points=options.points == "stored",
        total=len(items),
    )


def _measure_null(options: argparse.Namespace, job: ShardJob) -> None:
    """Ask the whole map about its own places, as a plain build does; one in an object store cannot be opened."""
    from effovpr_ros.cluster.storage import Storage

    if not Storage(job.out).is_local:
        print("note: a map in an object store is used from a copy; its usual leads are assumed", file=sys.stderr)
        return
    settings = {} if job.with_points else {"verify": "off"}
    with open_map(Path(job.out), writable=True) as place_map:
        keep_map_null(FeatureExtractor(job.extractor), place_map, config_for_map(place_map, settings))


def _say(options: argparse.Namespace, source: MapSource, report: ClusterReport, too_close: int) -> dict[str, Any]:
    """Print what a build did, but for --json, whose values are returned."""
    if not options.json:
        done = report.images - report.done_before
        rate = done / report.seconds if report.seconds else 0.0
        print(f"map {options.map}: {report.places} places in {report.shards} shards, {report.seconds:.1f} s")
        engines = ", ".join(report.engines) or "no engine"
        print(f"{done} images at {rate:.1f} a second by {engines}, {report.done_before} before")
        print(
            f"skipped: {too_close} too close, {source.num_refused()} refused by the source, "
            f"{len(report.unreadable)} unreadable"
        )
        reasons = Counter(why.split(": ", 1)[-1] for _, why in report.unreadable)
        for why, count in reasons.most_common():
            print(f"  {count} x {why}")
    for line in source.said():
        print(f"note: {line}", file=sys.stderr)
    print_refusals(source)
    for name, why in report.unreadable[:_SHOWN_UNREADABLE]:
        print(f"unreadable: {name}: {why}", file=sys.stderr)
    return {
        **asdict(report),
        "skipped_spacing": too_close,
        "refused": source.refusals(),
        "num_refused": source.num_refused(),
        "notes": source.said(),
        "with_pose": source.with_pose,
        "with_geo_tag": source.with_geo_tag,
    }
