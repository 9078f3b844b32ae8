"""`effovpr map build|info|check|export|merge|compact`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.cli.camera_options import add_camera_options, camera_of_source
from effovpr_ros.cli.map_compact import add_compact
from effovpr_ros.cli.map_options import require_as_made
from effovpr_ros.cli.map_source import add_source_options, open_map_source, print_refusals
from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_model_options,
    add_preset_option,
    command,
    device_settings,
    extractor_config,
    preset,
    print_json,
)
from effovpr_ros.core.errors import ConfigError, SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import shown
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.loop_closure.loop_config import POINTS
from effovpr_ros.mapping.builder import BuildConfig, BuildReport
from effovpr_ros.mapping.export import export_map
from effovpr_ros.mapping.index import IndexSummary
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.merge import MergeConfig, merge_maps
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.quantisation_sources import source_quantisation_images
from effovpr_ros.mapping.session_cameras import read_cameras, set_session_camera
from effovpr_ros.mapping.session_origins import join_session, read_origins
from effovpr_ros.mapping.sessions import SessionSummary, summarise
from effovpr_ros.recognition.map_filling import fill_map
from effovpr_ros.recognition.presets import map_settings, settings_of_map
from effovpr_ros.sources.map_source import MapSource

_BUILD = BuildConfig()


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("map", help="build, inspect, check, export, merge and compact maps")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    build = command(
        actions,
        "build",
        "build a map from a bag or a folder of images, or append to one",
        "effovpr map build office drive.mcap --image-topic /camera/image_raw --pose-topic /odom --spacing-m 0.5",
    )
    build.add_argument("map", type=Path, help="map folder; made if missing, appended to otherwise")
    build.add_argument("source", type=Path, help="rosbag2 folder, .mcap file, or folder of images")
    build.add_argument("--name", default="", help="name of a new map; the folder's if empty")
    build.add_argument(
        "--session", default="", help="name of this drive, under which it joins the map; the source's if empty"
    )
    build.add_argument(
        "--session-frame", default="", help="frame of this drive's poses, with --session, where it is not the map's"
    )
    build.add_argument(
        "--frame-id",
        default="",
        help="name of a new map's frame; if empty as the bag names its poses' frame, else map",
    )
    build.add_argument(
        "--spacing-m", type=float, default=_BUILD.spacing_m, help="metres between places; 0: every frame"
    )
    build.add_argument("--spacing-deg", type=float, default=_BUILD.spacing_deg, help="or a turn by so many degrees")
    build.add_argument("--batch-size", type=int, default=_BUILD.batch_size, help="images a forward pass")
    build.add_argument(
        "--datum", nargs=3, type=float, metavar=("LAT", "LON", "ALT"), help="ENU origin; else the first fix"
    )
    build.add_argument("--pca", type=int, default=0, help="index so many principal components, e.g. 256 or 128; 0: all")
    add_source_options(build)
    add_camera_options(build)
    build.add_argument(
        "--points",
        choices=POINTS,
        default=POINTS[0],
        help="points of each place for verifying answers: stored, or none, which are then found in stored pictures",
    )
    build.add_argument("--json", action="store_true", help="print the report as one JSON object")
    add_preset_option(build)
    add_model_options(build)
    add_device_options(build)
    build.set_defaults(run=_build)

    info = command(actions, "info", "say what is in a map", "effovpr map info office")
    info.add_argument("map", type=Path)
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=_info)

    check = command(actions, "check", "compare all of a map with its checksums", "effovpr map check office")
    check.add_argument("map", type=Path)
    check.set_defaults(run=_check)

    export = command(
        actions, "export", "write places, pictures and descriptors for other tools", "effovpr map export office out/"
    )
    export.add_argument("map", type=Path)
    export.add_argument("folder", type=Path)
    export.set_defaults(run=_export)

    merge = command(
        actions,
        "merge",
        "join maps of one model in a new one",
        "effovpr map merge site monday tuesday --rename-sessions",
    )
    merge.add_argument("out", type=Path, help="new map folder")
    merge.add_argument(
        "maps", type=Path, nargs="+", metavar="MAP", help="maps to join; frame and datum are the first's"
    )
    merge.add_argument("--name", default="", help="name of the new map; the folder's if empty")
    merge.add_argument(
        "--rename-sessions", action="store_true", help="put the map's name before a session's that is there already"
    )
    merge.add_argument(
        "--keep-frames",
        action="store_true",
        help="poses of all maps but the first stay in frames of their own, never compared with others",
    )
    merge.set_defaults(run=_merge)
    add_compact(actions)


def _build(options: argparse.Namespace) -> int:
    if options.session_frame and not options.session:
        raise ConfigError("--session-frame needs --session, the name of the drive whose frame it is")
    source = _open_source(options)
    # Before anything is written: a source without a usable image makes no map.
    try:
        frames = source.frames()
    except SourceError:
        print_refusals(source)
        raise
    camera, camera_notes = camera_of_source(options, source)
    source.notes.extend(camera_notes)
    place_map, extractor = _open_or_create(options, source)
    with place_map:
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
        _report(options, place_map, source, report)
        if report.interrupted:
            return 1
        if not report.added and not report.already_present:
            raise SourceError(
                f"0 places built: none of the {len(report.unreadable)} images of {shown(source.path)} can be read; the "
                f"first: {report.unreadable[0][1]}"
            )
        return 0


def _report(options: argparse.Namespace, place_map: PlaceMap, source: MapSource, report: BuildReport) -> None:
    notes = source.said()
    if options.json:
        print_json(
            {
                **asdict(report),
                "refused": source.refusals(),
                "num_refused": source.num_refused(),
                "notes": notes,
                "with_pose": source.with_pose,
                "with_geo_tag": source.with_geo_tag,
                "places": len(place_map),
                "index": asdict(place_map.manifest.index),
            }
        )
    else:
        print(f"map {place_map.name}: {len(place_map)} places, {report.added} new in {report.seconds:.1f} s")
        print(f"index: {_index_in_words(place_map.manifest.index)}")
        print(
            f"skipped: {report.skipped_spacing} too close, {report.already_present} present already, "
            f"{source.num_refused()} refused by the source, {len(report.unreadable)} unreadable"
        )
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    print_refusals(source)
    for name, why in report.unreadable:
        print(f"unreadable: {name}: {why}", file=sys.stderr)


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


def _info(options: argparse.Namespace) -> int:
    with PlaceMap.open(options.map) as place_map:
        places = place_map.places()
        sessions = summarise(places, place_map.frame_id, read_origins(place_map))
        datum = place_map.datum.origin if place_map.datum else None
        index = place_map.manifest.index
        cameras = read_cameras(place_map)
        values = {
            "name": place_map.name,
            "path": str(place_map.path),
            "places": len(place_map),
            "sessions": [asdict(session) for session in sessions],
            "with_pose": sum(place.pose is not None for place in places),
            "with_geo_tag": sum(place.geo is not None for place in places),
            "frame_id": place_map.frame_id,
            "datum": asdict(datum) if datum else None,
            "cameras": {name: mounted.to_dict() for name, mounted in cameras.items()},
            "created": place_map.manifest.created,
            "updated": place_map.manifest.updated,
            "global_dim": place_map.global_dim,
            "index": asdict(index),
            "recognition": settings_of_map(place_map),
            "bytes": place_map.bytes_by_part(),
            "model": place_map.fingerprint.to_dict(),
        }
    if options.json:
        print_json(values)
        return 0
    values["sessions"] = len(sessions)
    values["cameras"] = ", ".join(cameras) or "none: poses are not measured"
    values["index"] = _index_in_words(index)
    for key, value in values.items():
        print(f"{key + ':':14}{value}")
    for session in sessions:
        print(f"session {_in_words(session)}")
    return 0


def _index_in_words(index: IndexSummary) -> str:
    if index.kind == "flat":
        return "flat, exact"
    recall = "not measured" if index.recall_at_10 is None else f"{index.recall_at_10:.3f} against exact search"
    return f"codes, {index.rescored} descriptors compared, recall@10 {recall}"


def _in_words(session: SessionSummary) -> str:
    stamps = (session.first_stamp_ns, session.last_stamp_ns)
    times = [datetime.fromtimestamp(stamp * 1e-9, timezone.utc).isoformat(timespec="seconds") for stamp in stamps]
    span = f"{times[0]} to {times[1]}" if session.first_stamp_ns else "of unknown time"
    body = f" of {session.child_frame_id}" if session.child_frame_id else ""
    return (
        f"{session.name}: {session.num_places} places {span}; {session.with_pose} with pose in frame "
        f"{session.frame_id}{body}, {session.with_geo_tag} with geo-tag"
    )


def _merge(options: argparse.Namespace) -> int:
    config = MergeConfig(options.name, options.rename_sessions, options.keep_frames)
    with tqdm(unit="place", disable=None, desc=options.out.name) as bar:
        count = merge_maps(options.out, options.maps, config, lambda done: bar.update(done))
    print(f"map {options.out}: {count} places of {len(options.maps)} maps")
    return 0


def _check(options: argparse.Namespace) -> int:
    with PlaceMap.open(options.map) as place_map:
        problems = place_map.check()
        print("\n".join(problems) if problems else f"map {place_map.name}: {len(place_map)} places, all sound")
    return 1 if problems else 0


def _export(options: argparse.Namespace) -> int:
    with PlaceMap.open(options.map) as place_map:
        for path in export_map(place_map, options.folder):
            print(path)
    return 0
