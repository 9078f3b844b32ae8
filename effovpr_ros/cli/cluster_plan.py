"""What `effovpr map build --cluster` is asked for: a job and the images of each source; needs the `[cluster]` extra."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effovpr_ros.cli.camera_options import camera_of_source
from effovpr_ros.cli.map_cameras import options_by_camera, options_by_source
from effovpr_ros.cli.map_options import require_as_made
from effovpr_ros.cli.map_source import open_map_source
from effovpr_ros.cli.options import device_settings, extractor_config, preset
from effovpr_ros.cluster.begun import read_begun, require_sharded
from effovpr_ros.cluster.fetching import is_remote_bag, listed_folder, local_bag
from effovpr_ros.cluster.planning import PlannedMap
from effovpr_ros.cluster.storage import Storage
from effovpr_ros.cluster.versions import this_version
from effovpr_ros.cluster.work import ShardJob, WorkItem, WorkSource, list_work
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.presets import map_settings
from effovpr_ros.sources.map_source import MapSource


@dataclass
class ClusterPlan:
    """What is to be built.

    Attributes:
        job: what all shards have in common.
        extractor: the model, opened here.
        sources: opened, in the order of the places.
        items: of each the images that become places.
        too_close: images that do not.
        notes: what was assumed of frames, for people.
    """

    job: ShardJob
    extractor: FeatureExtractor
    sources: list[MapSource]
    items: list[list[WorkItem]]
    too_close: int
    notes: list[str]


@dataclass
class _Target:
    """The map that is built or added to."""

    extractor: FeatureExtractor
    name: str
    recognition: dict[str, Any]
    components: int
    datum: Datum | None
    planned: PlannedMap | None = None
    places: int = 0
    work: list[WorkSource] = field(default_factory=list)


def plan_build(options: argparse.Namespace, stack: ExitStack) -> ClusterPlan:
    """List what is to be built, and see that it fits into one map.

    Args:
        options: of `map build`.
        stack: closes what is fetched for the listing.

    Raises:
        ConfigError: an impossible value, or options that contradict the map.
        MapError: nothing can be added to the map, or the poses of a source do not relate to it.
        SourceError: a source cannot be read, or has no image that can be used.
    """
    build = BuildConfig(options.spacing_m, options.spacing_deg, options.batch_size)
    if options.pca < 0:
        raise ConfigError(f"--pca {options.pca} is negative; 0 keeps all dimensions")
    out = Storage(options.map)
    if options.pca and not out.is_local:
        raise ConfigError(f"--pca needs a map on a file system, and {out.url} is in an object store; leave it out")
    target = _target(options, out)
    sources: list[MapSource] = []
    items: list[list[WorkItem]] = []
    too_close = 0
    for source in _sources(options, target, out, stack):
        listed, close = list_work(source, build)
        sources.append(source)
        items.append(listed)
        too_close += close
    count = sum(map(len, items))
    if not target.places and options.pca > min(count, target.extractor.fingerprint.global_dim):
        raise ConfigError(
            f"--pca {options.pca} needs at least that many places and at most "
            f"{target.extractor.fingerprint.global_dim} dimensions; {count} images can become places"
        )
    planned = target.planned
    assert planned is not None
    notes = [] if target.places else _join(planned, target.work, items)
    job = ShardJob(
        version=this_version(),
        out=str(out.path.resolve()) if out.is_local else out.url,
        name=target.name,
        sources=tuple(target.work),
        max_pixels=int(1e6 * options.max_megapixels),
        frame_id=planned.frame_id,
        datum=planned.datum,
        recognition=target.recognition,
        extractor=target.extractor.config,
        fingerprint=target.extractor.fingerprint,
        build=build,
        with_points=options.points == "stored",
        total=target.places + count,
        principal_components=target.components,
    )
    # What is repeated has joined already.
    if target.places and job.plan_sha256(items) not in {begun.plan for begun in read_begun(out)}:
        notes = _join(planned, target.work, items)
    return ClusterPlan(job, target.extractor, sources, items, too_close, notes)


def _join(planned: PlannedMap, work: list[WorkSource], items: list[list[WorkItem]]) -> list[str]:
    return [note for source, listed in zip(work, items, strict=True) for note in planned.join(source, listed)]


def _target(options: argparse.Namespace, out: Storage) -> _Target:
    """The map; one that is there names its model and its settings."""
    datum = Datum(GeoPoint(*options.datum)) if options.datum else None
    if not out.is_local or MANIFEST_NAME not in out.names():
        name = options.name or options.map.rstrip("/").rsplit("/", 1)[-1]
        recognition = map_settings(preset(options)[1])
        return _Target(FeatureExtractor(extractor_config(options)), name, recognition, options.pca, datum)
    require_sharded(out)
    with open_map(out.path) as place_map:
        config = config_for_fingerprint(place_map.fingerprint, **device_settings(options))
        extractor = FeatureExtractor(config)
        require_as_made(options, place_map, extractor)
        components = len(place_map.pca.components) if place_map.pca is not None else 0
        if options.pca and options.pca != components:
            has = f"{components} principal components" if components else "all dimensions"
            raise ConfigError(
                f"map {out.url} is searched by {has}, and --pca {options.pca} would change the shards that it has; "
                "leave it out, or build another map"
            )
        settings = dict(place_map.manifest.recognition)
        planned = PlannedMap.of_map(place_map)
        return _Target(
            extractor, place_map.name, settings, components, place_map.datum or datum, planned, len(place_map)
        )


def _sources(options: argparse.Namespace, target: _Target, out: Storage, stack: ExitStack) -> Iterator[MapSource]:
    """The sources one after the other; what workers need of each is noted with the target."""

    def map_frame() -> str:
        assert target.planned is not None
        return target.planned.frame_id

    for of_source in options_by_source(options):
        stored = Storage(of_source.source)
        of_source.source = _on_this_machine(of_source, stored, stack)
        for _, given in options_by_camera(of_source, map_frame):
            source = open_map_source(given, target.datum)
            camera, notes = camera_of_source(given, source)
            source.notes.extend(notes)
            if target.planned is None:
                frame_id = given.frame_id or ("" if given.session_frame else source.origin.frame_id) or "map"
                path = out.path if out.is_local else Path(out.url)
                target.planned = PlannedMap(path, frame_id, target.datum)
            # Drives by fixes are placed by one datum.
            target.datum = target.datum or source.origin.datum
            target.work.append(
                WorkSource(
                    # Workers have other working folders.
                    url=str(stored.path.resolve()) if stored.is_local else stored.url,
                    image_topic=source.bag.image_topic if source.bag is not None else "",
                    session=source.session,
                    session_frame=given.session_frame,
                    origin=source.origin,
                    camera=camera,
                )
            )
            yield source


def _on_this_machine(options: argparse.Namespace, stored: Storage, stack: ExitStack) -> Path:
    """What this machine needs of a source to list its images."""
    if stored.is_local:
        return stored.path
    if is_remote_bag(stored):
        return local_bag(stored)
    heads = options.table is None and options.kind in ("auto", "exif")
    return stack.enter_context(listed_folder(stored, heads=heads))
