"""What a backward camera adds in `effovpr demo`: two cameras against one, and the way back."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.lab.simulation.level import CAMERA
from effovpr_ros.lab.simulation.recording import FRONT, ODOMETRY_TOPIC, REAR, DriveCamera
from effovpr_ros.lab.simulation.rig_score import BodyAnswer, RigScore, is_right, score_rig
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.presets import config_for_map
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.rig_query import fuse
from effovpr_ros.recognition.third_stage import describe_points, point_extractor
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.frame import Frame

FIRST_REAR, SECOND_REAR, WAY_BACK = "first_drive_rear", "second_drive_rear", "way_back"
"""Bags beside those of the two drives."""

_FIGURES = "report_rig.json"


def run_rig(options: argparse.Namespace, extractor: FeatureExtractor, spacing: BuildConfig) -> RigScore:
    """Ask about every ninth frame of the second drive with one camera and with two, and about the way back.

    Args:
        options: `out`, the folder of the demo.
        extractor: of the map's model.
        spacing: of the map's places.

    Raises:
        SimulationError: a part of the demo that this needs was not run.
    """
    folder = _map_of_both(options.out, extractor, spacing)
    # One process would leave much of the processor unused between its many short steps.
    shares = os.cpu_count() or 1
    config = replace(extractor.config, engine=extractor.engine.name)
    with ProcessPoolExecutor(shares, mp_context=get_context("spawn")) as pool:
        parts = list(
            tqdm(
                pool.map(partial(_ask, options.out, folder, config, shares), range(shares)),
                total=shares,
                unit="share",
                desc="two cameras",
                disable=None,
            )
        )
    twice = [item for part in parts for item in part.twice]
    ways = [item for part in parts for item in part.ways]
    truths, alone, together = [item[0] for item in twice], [item[1] for item in twice], [item[2] for item in twice]
    with PlaceMap.open(options.out / "building_map") as of_front:
        places = [place.pose for place in of_front.places() if place.pose is not None]
    mapped, back_mapped = (
        [any(is_right(place, truth) for place in places) for truth in of] for of in (truths, [way[0] for way in ways])
    )
    result = score_rig(truths, mapped, alone, together, ways, back_mapped)
    (options.out / _FIGURES).write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    return result


@dataclass(frozen=True)
class _Part:
    """Answers to some of the frames, each beside its truth.

    Attributes:
        twice: of the second drive: truth, answer of the front camera, and of both.
        ways: of the way back: truth, answer in the map of front pictures, and in that of both.
    """

    twice: list[tuple[Pose, BodyAnswer, BodyAnswer]]
    ways: list[tuple[Pose, BodyAnswer, BodyAnswer]]


def _ask(out: Path, folder: Path, config: ExtractorConfig, shares: int, share: int) -> _Part:
    """Ask about every so many frames."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // shares))
    second = {frame.stamp_ns: frame for frame in _frames(out, "second_drive", FRONT)}
    part = _Part([], [])
    extractor = FeatureExtractor(config)
    asked = _Asked(extractor)
    with PlaceMap.open(out / "building_map") as of_front, PlaceMap.open(folder) as of_both:
        one, two = (_recognizer(extractor, place_map) for place_map in (of_front, of_both))
        for behind in _frames(out, SECOND_REAR, REAR)[share::shares]:
            ahead = second[behind.stamp_ns]
            front = asked.of(ahead.load())
            alone = _body(one, _answer(one, front, FRONT), FRONT)
            answers = [_answer(two, front, FRONT), _answer(two, asked.of(behind.load()), REAR)]
            fused = fuse(two, answers, ["front", "rear"])
            together = _body(two, fused.recognition, (FRONT, REAR)[fused.number])
            part.twice.append((_truth(ahead), alone, together))
        for frame in _frames(out, WAY_BACK, FRONT)[share::shares]:
            seen = asked.of(frame.load())
            in_one, in_two = (_body(recognizer, _answer(recognizer, seen, FRONT), FRONT) for recognizer in (one, two))
            part.ways.append((_truth(frame), in_one, in_two))
    return part


def read_rig(out: Path) -> RigScore | None:
    """The figures of the last `run_rig`; None before.

    Raises:
        SimulationError: the file is damaged.
    """
    path = out / _FIGURES
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return RigScore(**{entry.name: values[entry.name] for entry in fields(RigScore)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SimulationError(f"{path} is damaged ({error!r}); run `effovpr demo rig --out {out}`") from error


class _Asked:
    """Features and points of pictures, found once for all maps."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._points = point_extractor(str(extractor.device))

    def of(self, image: RgbImage) -> tuple[Features, Callable[[], Points]]:
        """Of a picture."""
        points: list[Points] = []

        def find() -> Points:
            if not points:
                points.append(self._points.extract(image))
            return points[0]

        return self._extractor.extract([image])[0], find


def _map_of_both(out: Path, extractor: FeatureExtractor, spacing: BuildConfig) -> Path:
    """The map of the demo, with what the rear camera saw as a session of its own."""
    folder, work = out / "rig_map", out / ".rig_map"
    if folder.is_dir():
        return folder
    shutil.rmtree(work, ignore_errors=True)
    if not (out / "building_map").is_dir():
        raise SimulationError(f"{out / 'building_map'} is missing; run `effovpr demo map --out {out}`")
    shutil.copytree(out / "building_map", work)
    session = "first_drive:rear"
    with PlaceMap.open(work, writable=True) as place_map:
        set_session_camera(place_map, session, MountedCamera(CAMERA, REAR.mounting))
        frames = (replace(frame, session=session) for frame in _frames(out, FIRST_REAR, REAR))
        with tqdm(unit="image", desc="rig_map", disable=None) as bar:
            points_of = describe_points(str(extractor.device))
            report = build_map(
                place_map, extractor, frames, spacing, lambda done: bar.update(done), points_of=points_of
            )
    if report.interrupted:
        raise KeyboardInterrupt
    work.rename(folder)
    return folder


def _frames(out: Path, name: str, camera: DriveCamera) -> list[Frame]:
    if not (out / name / "metadata.yaml").is_file():
        raise SimulationError(f"{out / name} is missing; run `effovpr demo record --out {out}`")
    source = BagSource(out / name, image_topic=camera.image_topic, pose_topic=ODOMETRY_TOPIC)
    return list(source.frames())


def _recognizer(extractor: FeatureExtractor, place_map: MapReader) -> PlaceRecognizer:
    # The answers are to depend on the pictures alone, and not on how busy the machine is.
    recognizer = PlaceRecognizer(extractor, place_map, config_for_map(place_map, {"verify_budget_ms": 0.0}))
    recognizer.load()
    return recognizer


def _answer(
    recognizer: PlaceRecognizer, seen: tuple[Features, Callable[[], Points]], camera: DriveCamera
) -> Recognition:
    features, points = seen
    mounted = MountedCamera(CAMERA, camera.mounting)
    return recognizer.recognize_features(features, points=points, camera=mounted, measures=False)


def _body(recognizer: PlaceRecognizer, answer: Recognition, camera: DriveCamera) -> BodyAnswer:
    """Where the first candidate puts the body, whatever the status; the measured pose where there is one."""
    if not answer.candidates:
        return BodyAnswer(answer.status, None)
    if answer.is_metric:
        return BodyAnswer(answer.status, answer.pose)
    mounted = MountedCamera(CAMERA, camera.mounting)
    return BodyAnswer(answer.status, recognizer.poses.prior(answer.candidates[0].place, mounted))


def _truth(frame: Frame) -> Pose:
    if frame.pose is None:
        raise SimulationError(f"the frame of {frame.stamp_ns} ns has no pose; record the drive again")
    return frame.pose
