"""`effovpr map build --cluster`: what it asks for, what it prints. The cluster's own modules are loaded here alone."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tqdm import tqdm

from effovpr_ros.cli.map_source import print_refusals
from effovpr_ros.cli.options import print_json
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.map_null import keep_map_null
from effovpr_ros.recognition.presets import config_for_map

if TYPE_CHECKING:
    from effovpr_ros.cli.cluster_plan import ClusterPlan
    from effovpr_ros.cluster.building import BuiltShards, ClusterReport

_SHOWN_UNREADABLE = 100


def build_on_cluster(options: argparse.Namespace) -> int:
    """Build a map in shards; gives the exit code.

    Raises:
        EffoVPRError: see `map_building.build`; or the cluster cannot be used.
    """
    from effovpr_ros.cluster.versions import require_ray

    require_ray()
    from effovpr_ros.cli.cluster_plan import plan_build
    from effovpr_ros.cluster.building import build_shards
    from effovpr_ros.cluster.ray_workers import PoolConfig, connected, run_on_ray
    from effovpr_ros.cluster.work import places_per_part

    if options.shard_places < 0:
        raise ConfigError(f"--shard-places {options.shard_places} is negative; 0 makes a few shards a worker")
    pool = PoolConfig(options.cluster, options.workers, options.worker_cpus, options.worker_gpus)
    with ExitStack() as stack:
        plan = plan_build(options, stack)
        for note in plan.notes:
            print(f"frames: {note}", file=sys.stderr)
        total = sum(map(len, plan.items))
        workers = stack.enter_context(connected(pool))
        part_places = places_per_part(total, workers, options.shard_places, plan.job.build.batch_size)
        with tqdm(total=total, unit="image", disable=None, desc=plan.job.name) as bar:
            report = build_shards(
                plan.job,
                plan.items,
                part_places,
                lambda job, parts: run_on_ray(job, parts, pool, workers),
                lambda done: bar.update(done),
            )
    _measure_null(plan)
    said = _say(options, plan, report)
    if options.json:
        print_json(said)
    return 0


def _measure_null(plan: ClusterPlan) -> None:
    """Ask the whole map about its own places, as a plain build does; one in an object store cannot be opened."""
    from effovpr_ros.cluster.storage import Storage

    out = Storage(plan.job.out)
    if not out.is_local:
        print("note: a map in an object store is used from a copy; its usual leads are assumed", file=sys.stderr)
        return
    settings = {} if plan.job.with_points else {"verify": "off"}
    with open_map(out.path, writable=True) as place_map:
        keep_map_null(plan.extractor, place_map, config_for_map(place_map, settings))


def _say(options: argparse.Namespace, plan: ClusterPlan, report: ClusterReport) -> BuiltShards:
    """Print what a build did, but for --json, whose values are returned."""
    from effovpr_ros.cluster.building import BuiltShards

    num_refused = sum(source.num_refused() for source in plan.sources)
    notes = list(dict.fromkeys(note for source in plan.sources for note in source.said()))
    if not options.json:
        done = report.images - report.done_before
        rate = done / report.seconds if report.seconds else 0.0
        made = f"{report.shards} shards of this build, {report.seconds:.1f} s"
        print(f"map {options.map}: {report.places} places, {made}")
        engines = ", ".join(report.engines) or "no engine"
        print(f"{done} images at {rate:.1f} a second by {engines}, {report.done_before} before")
        print(
            f"skipped: {plan.too_close} too close, {num_refused} refused by the source, "
            f"{len(report.unreadable)} unreadable"
        )
        reasons = Counter(why.split(": ", 1)[-1] for _, why in report.unreadable)
        for why, count in reasons.most_common():
            print(f"  {count} x {why}")
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    for source in plan.sources:
        print_refusals(source)
    for name, why in report.unreadable[:_SHOWN_UNREADABLE]:
        print(f"unreadable: {name}: {why}", file=sys.stderr)
    return BuiltShards(
        **vars(report),
        skipped_spacing=plan.too_close,
        refused=[line for source in plan.sources for line in source.refusals()],
        num_refused=num_refused,
        notes=notes,
        with_pose=sum(source.with_pose for source in plan.sources),
        with_geo_tag=sum(source.with_geo_tag for source in plan.sources),
    )
