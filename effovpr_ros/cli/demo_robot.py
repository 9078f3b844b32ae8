"""`effovpr demo drift` and `effovpr demo kidnap`: what the demo's answers are worth to a robot that moves by them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

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
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.doubtful_pose import with_doubtful_pose
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.presets import config_for_map
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.relocalization import RelocalizationConfig
from effovpr_ros.recognition.sightings import Sighting
from effovpr_ros.sources.frame import Frame

_WITHHELD_FROM_S = (15.0, 30.0, 45.0)
_WITHHELD_S = 20.0
_KIDNAPPINGS, _KIDNAPPING_SEED, _NEAR_THE_MAP_M = 50, 7, 1.0


def run_drift(options: argparse.Namespace, frames: Sequence[Frame]) -> int:
    """Print how well `map -> odom` follows the second drive with drifting odometry.

    Args:
        options: out, device, engine and json of `effovpr demo`, whose map is built.
        frames: of that drive, with poses.
    """
    config = MapOdomConfig()
    truth = [(frame.known_stamp_ns, frame.pose) for frame in frames if frame.pose]
    with _Asked(options) as asked:
        places = np.array([pose.position_xyz[:2] for pose in asked.places])
        bar = tqdm(frames, unit="frame", desc="drift", disable=None)
        stamped = ((frame.known_stamp_ns, frame) for frame in bar)
        answers = [(stamp_ns, _counted(asked.of(frame.load()), stamp_ns, config)) for stamp_ns, frame in stamped]
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
    with _Asked(options) as asked, Level(LEVEL) as level:

        def ask(image: RgbImage) -> tuple[Recognition, float]:
            started = time.perf_counter()
            return asked.of(image), time.perf_counter() - started

        places = asked.places
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


class _Asked:
    """The demo's map, asked as the node asks for `~/relocalize` and `publish_tf`: doubtful poses are measured too."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Open the map and load its model; a context that closes the map."""
        folder = options.out / "building_map"
        if not folder.is_dir():
            raise SimulationError(f"{folder} is missing; run `effovpr demo map --out {options.out}`")
        self._map = PlaceMap.open(folder)
        extractor = FeatureExtractor(config_for_fingerprint(self._map.fingerprint, **device_settings(options)))
        self._recognizer = PlaceRecognizer(extractor, self._map, config_for_map(self._map, {}, RecognizerConfig()))
        self._recognizer.load()

    def __enter__(self) -> _Asked:
        """Enter the context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the map."""
        self._map.close()

    @property
    def places(self) -> list[Pose]:
        """Poses of the map's places."""
        return [place.pose for place in self._map.places() if place.pose is not None]

    def of(self, image: RgbImage) -> Recognition:
        """The answer to a picture."""
        return with_doubtful_pose(self._recognizer, self._recognizer.recognize(image))


def _counted(answer: Recognition, stamp_ns: int, config: MapOdomConfig) -> Sighting | None:
    """An answer as `map -> odom` takes it: None where it is not measured, or a MATCH of too little confidence."""
    is_match = answer.status is Status.MATCH
    if not answer.is_metric or answer.pose is None or answer.covariance is None:
        return None
    if is_match and answer.confidence < config.tf_min_confidence:
        return None
    return Sighting(stamp_ns, answer.pose, answer.covariance, answer.confidence, is_match=is_match)
