"""`effovpr demo drift` and `effovpr demo kidnap`: what the demo's answers are worth to a robot that moves by them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from effovpr_ros.cli.options import device_settings, print_json
from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.lab.simulation.drive import LEVEL
from effovpr_ros.lab.simulation.kidnapping import draw_found, random_poses, turn_until_sure
from effovpr_ros.lab.simulation.level import Level
from effovpr_ros.lab.simulation.map_odom_score import drive_with_odometry
from effovpr_ros.lab.simulation.odometry import OdometryConfig
from effovpr_ros.lab.simulation.score import OUTSIDE_BEYOND_M
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.presets import config_for_map
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.relocalization import RelocalizationConfig
from effovpr_ros.recognition.sightings import Sighting

_WITHHELD_FROM_S = (15.0, 30.0, 45.0)
_WITHHELD_S = 20.0
_KIDNAPPINGS, _KIDNAPPING_SEED, _NEAR_THE_MAP_M = 50, 7, 1.0


def run_drift(options: argparse.Namespace, truth: Sequence[tuple[int, Pose]]) -> int:
    """Print how well `map -> odom` follows the second drive with drifting odometry.

    Args:
        options: out and json of `effovpr demo`, whose replay is done.
        truth: stamps [ns] and poses of that drive.

    Raises:
        SimulationError: there are no answers yet.
    """
    file = options.out / "matches.jsonl"
    if not file.is_file():
        raise SimulationError(f"{file} is missing; run `effovpr demo replay --out {options.out}`")
    config = MapOdomConfig()
    answers = [_answer(json.loads(line), config) for line in file.read_text("utf-8").splitlines()]
    with PlaceMap.open(options.out / "building_map") as place_map:
        places = np.array([place.pose.position_xyz[:2] for place in place_map.places() if place.pose is not None])
    rows: dict[str, dict[str, float]] = {}
    for name, withheld in (
        ("all answers", None),
        *((f"{_WITHHELD_S:.0f} s without from {s:.0f} s", s) for s in _WITHHELD_FROM_S),
    ):
        span = None if withheld is None else (withheld, withheld + _WITHHELD_S)
        drive = drive_with_odometry(truth, answers, config, OdometryConfig(), withheld_s=span)
        near = [float(np.hypot(*(places - xy).T).min()) <= OUTSIDE_BEYOND_M for xy in drive.truth_xy]
        rows[name] = drive.figures(np.array(near))
    if options.json:
        print_json(rows)
        return 0
    for name, figures in rows.items():
        print(name)
        for key, value in figures.items():
            print(f"  {key:24} {value:.3f}")
    return 0


def run_kidnap(options: argparse.Namespace) -> int:
    """Put a robot at 50 places of the mapped part, let it turn, and draw where it finds itself.

    Args:
        options: out, device, engine and json of `effovpr demo`, whose map is built.
    """
    picture, generator = options.out / "kidnapped.png", np.random.default_rng(_KIDNAPPING_SEED)
    with PlaceMap.open(options.out / "building_map") as place_map, Level(LEVEL) as level:
        settings = device_settings(options)
        extractor = FeatureExtractor(config_for_fingerprint(place_map.fingerprint, **settings))
        recognizer = PlaceRecognizer(extractor, place_map, config_for_map(place_map, {}, RecognizerConfig()))
        recognizer.load()

        def ask(image: RgbImage) -> tuple[Recognition, float]:
            started = time.perf_counter()
            return recognizer.recognize(image), time.perf_counter() - started

        places = [place.pose for place in place_map.places() if place.pose is not None]
        poses = random_poses(level.free_floor(), places, _KIDNAPPINGS, seed=_KIDNAPPING_SEED, within_m=_NEAR_THE_MAP_M)
        found = [
            turn_until_sure(level, pose, ask, RelocalizationConfig(), generator)
            for pose in tqdm(poses, unit="place", desc="kidnap", disable=None)
        ]
        draw_found(level.walls_m(), places, found, picture)
    right = [item for item in found if item.is_right]
    result = {
        "places": len(found),
        "found": len(right),
        "wrong": sum(item.is_wrong for item in found),
        "median_s": float(np.median([item.seconds for item in right])) if right else None,
        "median_error_m": float(np.median([item.error_m for item in right])) if right else None,
    }
    if options.json:
        print_json(result)
    else:
        print("\n".join(f"{name:16} {value}" for name, value in result.items()))
    print(f"picture: {picture.resolve()}", file=sys.stderr)
    return 0


def _answer(record: dict[str, Any], config: MapOdomConfig) -> tuple[int, Sighting | None]:
    """A recorded answer as `map -> odom` takes it: None where it is not measured and confident."""
    stamp_ns, values = int(record["stamp_ns"]), record["measured_pose"]
    if record["status"] != "MATCH" or values is None or record["confidence"] < config.tf_min_confidence:
        return stamp_ns, None
    x, y, z, *quat = values
    pose = Pose((x, y, z), (quat[0], quat[1], quat[2], quat[3]))
    covariance = np.array(record["measured_covariance"], np.float64).reshape(6, 6)
    return stamp_ns, Sighting(stamp_ns, pose, covariance, record["confidence"])
