"""What `effovpr map build` does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.cli.camera_options import camera_of_source
from effovpr_ros.cli.map_cameras import options_by_camera, options_by_source
from effovpr_ros.cli.map_cluster import build_on_cluster
from effovpr_ros.cli.map_options import require_as_made
from effovpr_ros.cli.map_source import open_map_source, print_refusals
from effovpr_ros.cli.options import (
    device_settings,
    extractor_config,
    preset,
    print_json,
)
from effovpr_ros.core.errors import ConfigError, MapError, SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import shown
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import BuildReport
from effovpr_ros.mapping.index import IndexSummary
from effovpr_ros.mapping.making import removed_if_empty
from effovpr_ros.mapping.manifest import MANIFEST_NAME, read_manifest
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.quantisation_sources import source_quantisation_images
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.mapping.session_origins import join_session
from effovpr_ros.matching.compiled import kernel_name
from effovpr_ros.recognition.map_filling import fill_map
from effovpr_ros.recognition.presets import map_settings
from effovpr_ros.sources.map_source import MapSource


@dataclass(frozen=True)
class BuiltMap(BuildReport):
    """What `effovpr map build` did.

    Attributes:
        refused: one line for each image, or kind of image, that was refused for its pose, time or tags.
        num_refused: images that were.
        notes: what was assumed.
        with_pose: images that had a pose.
        with_geo_tag: images that had a geo-tag.
        places: that the map has now.
        index: how they are searched.
    """

    refused: Sequence[str]
    num_refused: int
    notes: Sequence[str]
    with_pose: int
    with_geo_tag: int
    places: int
    index: IndexSummary


@dataclass(frozen=True)
class BuiltCameras:
    """What it did with several image topics.

    Attributes:
        cameras: by name.
    """

    cameras: Mapping[str, BuiltMap]


@dataclass(frozen=True)
class BuiltSources:
    """What it did with several sources.

    Attributes:
        sources: by path.
    """

    sources: Mapping[str, BuiltMap | BuiltCameras]


def build(options: argparse.Namespace) -> int:
    """Build or append; gives the exit code.

    Raises:
        EffoVPRError: an impossible value, also of `EFFOVPR_KERNEL`; a source or map that cannot be used, or nothing
            that was built.
    """
    kernel_name()  # hours before it is needed
    if options.cluster is not None:
        return build_on_cluster(options)
    # Only a cluster takes URLs.
    options.map = Path(options.map)
    if (options.map / MANIFEST_NAME).is_file() and read_manifest(options.map).shards:
        raise MapError(
            f"map {options.map} lies in shards; add to it with --cluster, or make a map of one folder of it with "
            f"`effovpr map merge NEW_MAP {options.map}`"
        )
    reports: dict[str, BuiltMap | BuiltCameras] = {}
    code = 0
    taken: set[str] = set()
    for given in options_by_source(options):
        given.source, given.taken = Path(given.source), taken
        code, reports[str(given.source)] = _build_source(given)
        if code:
            break
    if options.json:
        print_json(BuiltSources(reports) if len(options.source) > 1 else next(iter(reports.values())))
    return code


def _build_source(options: argparse.Namespace) -> tuple[int, BuiltMap | BuiltCameras]:
    """Exit code and report of all images of a source."""

    def map_frame() -> str:
        with PlaceMap.open(options.map) as place_map:
            return place_map.frame_id

    reports: dict[str, BuiltMap] = {}
    code = 0
    for camera, given in options_by_camera(options, map_frame):
        code, reports[camera] = _build_one(given)
        if code:
            break
    return code, reports.get("") or BuiltCameras(reports)


def _build_one(options: argparse.Namespace) -> tuple[int, BuiltMap]:
    """Exit code and report of the images of one camera, or of a folder."""
    source = _open_source(options)
    if source.session in options.taken:
        raise ConfigError(
            f"{shown(options.source)} would join session {source.session!r}, which another source of this command has; "
            "build it by a command of its own, with another name at --session"
        )
    options.taken.add(source.session)
    # Before anything is written: a source without a usable image makes no map.
    try:
        frames = source.frames()
    except SourceError:
        print_refusals(source)
        raise
    camera, camera_notes = camera_of_source(options, source)
    source.notes.extend(camera_notes)
    made = not (options.map / MANIFEST_NAME).is_file()
    place_map, extractor = _open_or_create(options, source)
    with removed_if_empty(options.map, made), place_map:
        for note in join_session(place_map, source.session, source.origin, options.session_frame):
            print(f"frames: {note}", file=sys.stderr)
        if camera is not None:
            set_session_camera(place_map, source.session, camera)
        config_build = BuildConfig(options.spacing_m, options.spacing_deg, options.batch_size)
        with tqdm(total=source.total, unit="image", disable=None, desc=place_map.name) as bar:
            report = fill_map(
                place_map,
                extractor,
                frames,
                config_build,
                lambda done: bar.update(done),
                with_points=options.points == "stored",
                principal_components=options.pca,
            )
        if not report.added and not report.already_present and not report.interrupted:
            said = _say(options, place_map, source, report)
            if options.json:
                print_json(said)
            raise SourceError(
                f"0 places built: none of the {len(report.unreadable)} images of {shown(source.path)} can be read; the "
                f"first: {report.unreadable[0][1]}"
            )
        return int(report.interrupted), _say(options, place_map, source, report)


def _say(options: argparse.Namespace, place_map: PlaceMap, source: MapSource, report: BuildReport) -> BuiltMap:
    """Print what a build did, but for --json, whose values are returned."""
    notes = source.said()
    if not options.json:
        print(f"map {place_map.name}: {len(place_map)} places, {report.added} new in {report.seconds:.1f} s")
        print(f"index: {index_in_words(place_map.manifest.index)}")
        print(
            f"skipped: {report.skipped_spacing} too close, {report.already_present} present already, "
            f"{source.num_refused()} refused for their pose, time or tags, {len(report.unreadable)} unreadable"
        )
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    print_refusals(source)
    for name, why in report.unreadable:
        print(f"unreadable: {name}: {why}", file=sys.stderr)
    return BuiltMap(
        **vars(report),
        refused=source.refusals(),
        num_refused=source.num_refused(),
        notes=notes,
        with_pose=source.with_pose,
        with_geo_tag=source.with_geo_tag,
        places=len(place_map),
        index=place_map.manifest.index,
    )


def _open_source(options: argparse.Namespace) -> MapSource:
    datum = Datum(GeoPoint(*options.datum)) if options.datum else None
    if datum is None and (options.map / MANIFEST_NAME).is_file():
        # A second session joins the frame of the first.
        with PlaceMap.open(options.map) as existing:
            datum = existing.datum
    return open_map_source(options, datum)


def _open_or_create(options: argparse.Namespace, source: MapSource) -> tuple[PlaceMap, FeatureExtractor]:
    """The map, and the extractor that it needs: an existing map names its model."""
    quantisation_images = source_quantisation_images(options.map, source.reopen, source.total)
    if (options.map / MANIFEST_NAME).is_file():
        place_map = PlaceMap.open(options.map, writable=True)
        try:
            config = config_for_fingerprint(place_map.fingerprint, **device_settings(options))
            extractor = FeatureExtractor(config, quantisation_images)
            require_as_made(options, place_map, extractor)
        except BaseException:
            place_map.close()
            raise
        extractor.seek_faster_engine(source.total)
        return place_map, extractor
    if options.pca < 0:
        raise ConfigError(f"--pca {options.pca} is negative; 0 keeps all dimensions")
    extractor = FeatureExtractor(extractor_config(options), quantisation_images)
    place_map = PlaceMap.create(
        options.map,
        fingerprint=extractor.fingerprint,
        name=options.name,
        frame_id=options.frame_id or ("" if options.session_frame else source.origin.frame_id) or "map",
        datum=Datum(GeoPoint(*options.datum)) if options.datum else None,
        recognition=map_settings(preset(options)[1]),
    )
    extractor.seek_faster_engine(source.total)
    return place_map, extractor


def index_in_words(index: IndexSummary) -> str:
    """What kind of index a map has, and what it may miss."""
    if index.kind == "flat":
        return "flat, exact"
    recall = "not measured" if index.recall_at_10 is None else f"{index.recall_at_10:.3f} against exact search"
    return f"codes, {index.rescored} descriptors compared, recall@10 {recall}"
