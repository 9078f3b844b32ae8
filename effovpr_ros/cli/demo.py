"""`effovpr demo`: a simulated robot drives twice through one building and recognises where it is."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from effovpr_ros.cli.demo_photos import run_photos
from effovpr_ros.cli.demo_rig import FIRST_REAR, SECOND_REAR, WAY_BACK, read_rig, run_rig
from effovpr_ros.cli.demo_robot import run_drift, run_kidnap
from effovpr_ros.cli.demo_slam import run_slam
from effovpr_ros.cli.options import Subparsers, add_device_options, command, device_settings, print_json
from effovpr_ros.cli.replaying import ROS_REMEDY, run_replay
from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.lab.simulation import recording
from effovpr_ros.lab.simulation.drive import (
    LEVEL,
    MAPPING_DRIVE,
    MAPPING_WAYPOINTS_M,
    QUERY_DRIVE,
    QUERY_WAYPOINTS_M,
    DriveConfig,
    plan_drive,
)
from effovpr_ros.lab.simulation.level import Level
from effovpr_ros.lab.simulation.picture import draw_paths
from effovpr_ros.lab.simulation.score import judge, score
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.quantisation_sources import source_quantisation_images
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.recognition.third_stage import describe_points
from effovpr_ros.sources.bag_cameras import camera_of_bag
from effovpr_ros.sources.bags import BagSource

PARTS = ("record", "map", "replay", "rig", "report")
_DAY_NS = 86_400 * 10**9
_SPACING = BuildConfig(spacing_m=0.5, spacing_deg=15.0)


@dataclass(frozen=True)
class _Drive:
    """A bag that is recorded: every so many frames of a drive, by one camera."""

    name: str
    waypoints_m: Sequence[tuple[float, float]]
    config: DriveConfig
    disturbed: bool
    camera: recording.DriveCamera = recording.FRONT
    every: int = 1


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(
        commands,
        "demo",
        summary,
        "effovpr demo --out demo_output",
    )
    parser.add_argument(
        "part",
        nargs="?",
        choices=("all", *PARTS, "drift", "kidnap", "photos", "slam"),
        default="all",
        help="only this part. drift and kidnap need the map: how well `map -> odom` follows the "
        "second drive with drifting odometry, and whether a robot that was carried away finds"
        " itself. Two are other demos: photos takes a minute, with pictures that come along, "
        "without simulator and ROS; slam closes the loops of a drive with drifting odometry",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo_output"), help="folder for everything that the demo makes"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        help="speed of the replay; 0: each image once the last is answered (slam: as recorded)",
    )
    parser.add_argument("--json", action="store_true", help="print the table as one JSON object")
    add_device_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.part == "photos":
        return run_photos(options)
    if options.part == "slam":
        return run_slam(options)
    if options.part == "kidnap":
        return run_kidnap(options)
    if options.part == "drift":
        return run_drift(options, list(_drive(options, "second_drive").frames()))
    steps: dict[str, Callable[[argparse.Namespace], None]] = {
        "record": _record,
        "map": _build_map,
        "replay": _replay,
        "rig": _rig,
        "report": _report,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "all":
        with _timed("record and map"), _recording(options) as await_drive:
            # The map needs the first drive alone; the others are recorded beside it.
            await_drive("first_drive")
            _build_map(options)
    for name in ("replay", "rig", "report") if options.part == "all" else (options.part,):
        with _timed(name):
            steps[name](options)
    return 0


@contextmanager
def _timed(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)


def _record(options: argparse.Namespace) -> None:
    """Drive twice; a drive that is recorded already is kept."""
    with _recording(options):
        pass


@contextmanager
def _recording(options: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    """Record in other processes the drives that are missing; gives what waits for one, and waits for all at the end."""
    way_back = replace(QUERY_DRIVE, start_ns=QUERY_DRIVE.start_ns + _DAY_NS, seed=3)
    drives = (
        _Drive("first_drive", MAPPING_WAYPOINTS_M, MAPPING_DRIVE, disturbed=False),
        _Drive("second_drive", QUERY_WAYPOINTS_M, QUERY_DRIVE, disturbed=True),
        _Drive(FIRST_REAR, MAPPING_WAYPOINTS_M, MAPPING_DRIVE, disturbed=False, camera=recording.REAR, every=2),
        _Drive(SECOND_REAR, QUERY_WAYPOINTS_M, QUERY_DRIVE, disturbed=True, camera=recording.REAR, every=9),
        _Drive(WAY_BACK, MAPPING_WAYPOINTS_M[::-1], way_back, disturbed=True, every=9),
    )
    wanted = [drive for drive in drives if not (options.out / drive.name / "metadata.yaml").is_file()]
    workers = max(1, min(len(wanted), os.cpu_count() or 1))
    with (
        tqdm(total=len(wanted), unit="drive", desc="record", disable=None) as bar,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        # Each drive has a simulator of its own, so that its pictures do not depend on what was recorded before.
        futures = {drive.name: pool.submit(_record_drive, options.out, drive) for drive in wanted}

        def await_drive(name: str) -> None:
            future: Future[None] | None = futures.get(name)
            if future is not None:
                future.result()

        for future in futures.values():
            future.add_done_callback(lambda _: bar.update())
        yield await_drive
        for future in futures.values():
            future.result()


def _record_drive(out: Path, drive: _Drive) -> None:
    with Level(LEVEL) as level:
        recording.record_drive(
            level,
            plan_drive(level.free_floor(), drive.waypoints_m, drive.config)[:: drive.every],
            out / drive.name,
            disturbed=drive.disturbed,
            seed=drive.config.seed,
            camera=drive.camera,
        )


def _build_map(options: argparse.Namespace) -> None:
    """Build the map from the first drive; a map that is complete costs only the look at its bag."""
    source = _drive(options, "first_drive")
    folder = options.out / "building_map"
    quantisation_images = source_quantisation_images(folder, source.frames, len(source))
    extractor = FeatureExtractor(ExtractorConfig(**device_settings(options)), quantisation_images)
    if (folder / MANIFEST_NAME).is_file():
        place_map = PlaceMap.open(folder, writable=True)
    else:
        place_map = PlaceMap.create(folder, fingerprint=extractor.fingerprint, name="building", datum=recording.DATUM)
    with place_map:
        place_map.require_model(extractor.fingerprint)
        camera, _ = camera_of_bag(source, recording.BODY_FRAME)
        if camera is not None:
            set_session_camera(place_map, source.session, camera)
        extractor.seek_faster_engine(len(source))
        with tqdm(total=len(source), unit="image", desc="building_map", disable=None) as bar:
            report = build_map(
                place_map,
                extractor,
                source.frames(),
                _SPACING,
                lambda done: bar.update(done),
                points_of=describe_points(str(extractor.device)),
            )
        if report.interrupted:
            raise KeyboardInterrupt
        print(f"map {folder}: {len(place_map)} places, {report.added} new", file=sys.stderr)


def _replay(options: argparse.Namespace) -> None:
    """Replay the second drive through the node."""
    arguments = {
        "--map": options.out / "building_map",
        "--bag": options.out / "second_drive",
        "--image-topic": recording.IMAGE_TOPIC,
        "--out": options.out / "matches.jsonl",
        "--rate": options.rate,
        "--device": options.device,
        "--engine": options.engine,
    }
    code = run_replay("replay", arguments)
    if code:
        raise SimulationError(f"the replay ended with exit code {code}; {ROS_REMEDY}")


def _report(options: argparse.Namespace) -> None:
    """Hold the answers against the truth; print the table, draw the picture."""
    answers_file = options.out / "matches.jsonl"
    if not answers_file.is_file():
        raise SimulationError(f"{answers_file} is missing; run `effovpr demo replay --out {options.out}`")
    records: list[dict[str, Any]] = [json.loads(line) for line in answers_file.read_text("utf-8").splitlines()]
    truth = _truth(options)
    with PlaceMap.open(options.out / "building_map") as place_map:
        places: Sequence[Pose] = [place.pose for place in place_map.places() if place.pose is not None]
    answers = judge(records, truth, places)
    result = score(answers, records, len(truth))
    picture, figures = options.out / "paths.png", options.out / "report.json"
    with Level(LEVEL) as level:
        draw_paths(level.walls_m(), places, answers, picture)
    rig = read_rig(options.out)
    values = {**result.to_dict(), "rig": rig.to_dict() if rig is not None else None}
    figures.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print_json(values)
    else:
        print(result.table())
        if rig is not None:
            print(rig.table())
    print(f"picture of both drives: {picture.resolve()}\nfigures: {figures.resolve()}", file=sys.stderr)


def _rig(options: argparse.Namespace) -> None:
    """Ask with a second camera that looks backward, and on the way back."""
    run_rig(options, FeatureExtractor(ExtractorConfig(**device_settings(options))), _SPACING)


def _truth(options: argparse.Namespace) -> list[tuple[int, Pose]]:
    """Stamps [ns] and poses of the second drive."""
    frames = _drive(options, "second_drive").frames()
    return [(frame.known_stamp_ns, frame.pose) for frame in frames if frame.pose]


def _drive(options: argparse.Namespace, name: str) -> BagSource:
    folder = options.out / name
    if not (folder / "metadata.yaml").is_file():
        raise SimulationError(f"{folder} is missing; run `effovpr demo record --out {options.out}`")
    return BagSource(folder, image_topic=recording.IMAGE_TOPIC, pose_topic=recording.ODOMETRY_TOPIC)
