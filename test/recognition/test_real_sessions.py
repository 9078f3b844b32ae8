"""Several sessions of one corridor on real photographs: more sessions take nothing away, and no MATCH is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from conftest import KnownFeatures

from effovpr_ros.core.images import read_image
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer import PlaceRecognizer, RecognizerConfig, Status

QUERY_STEP = 4
CONFIG = RecognizerConfig(top_k=25)


@dataclass(frozen=True)
class Outcome:
    """How many queries got which status, found their place, and were a MATCH of a place farther than 5 m."""

    status: Counter[Status]
    right: int
    wrong_matches: int


def extract(known: KnownFeatures, folder: Path, step: int) -> list[Features]:
    return [known.of(read_image(path), "default")[0] for path in sorted(folder.iterdir())[::step]]


def changed(features: Features, rng: np.random.Generator) -> Features:
    """The place as another session saw it, a little less like any query."""
    descriptor = features.global_descriptor
    noise = 0.1 * rng.normal(size=descriptor.shape) / np.sqrt(len(descriptor))
    return replace(features, global_descriptor=((descriptor + noise) / np.linalg.norm(descriptor + noise)).astype("f4"))


def outcome(
    folder: Path, extractor: FeatureExtractor, sessions: list[list[Features]], queries: list[Features]
) -> Outcome:
    """A metre from image to image, as both walks have it."""
    with PlaceMap.create(folder, fingerprint=extractor.fingerprint) as place_map:
        for name, members in enumerate(sessions):
            poses = [Pose.from_yaw(float(x), 0.0, 0.0) for x in range(len(members))]
            place_map.add(
                [
                    NewPlace(f"{name}", 0, f"{x}", pose, None, (160, 120), b"", features)
                    for x, (pose, features) in enumerate(zip(poses, members, strict=True))
                ]
            )
        recognizer = PlaceRecognizer(extractor, place_map, CONFIG)
        answers = [recognizer.recognize_features(features) for features in queries]
    off_m = []
    for number, answer in enumerate(answers):
        pose = answer.candidates[0].place.pose
        assert pose is not None
        off_m.append(abs(pose.position_xyz[0] - QUERY_STEP * number))
    matches = [off for off, answer in zip(off_m, answers, strict=True) if answer.status is Status.MATCH]
    return Outcome(
        Counter(answer.status for answer in answers),
        sum(off <= 2.0 for off in off_m),
        sum(off > 5.0 for off in matches),
    )


def test_ten_sessions_answer_as_one_does(real_images: Path, known_features: KnownFeatures, tmp_path: Path):
    extractor = known_features.readers["default"]
    database = extract(known_features, real_images / "corridor_walk" / "database", 1)
    queries = extract(known_features, real_images / "corridor_walk" / "queries", QUERY_STEP)
    rng = np.random.default_rng(0)
    others = [[changed(features, rng) for features in database] for _ in range(9)]
    one = outcome(tmp_path / "one", extractor, [database], queries)
    ten = outcome(tmp_path / "ten", extractor, [*others, database], queries)
    print(f"\none session {one}\nten sessions {ten}")
    assert ten.wrong_matches == 0
    assert ten.right >= one.right - 1
    assert ten.status[Status.MATCH] >= one.status[Status.MATCH] - 1
    assert ten.status[Status.NO_MATCH] <= one.status[Status.NO_MATCH] + 1
