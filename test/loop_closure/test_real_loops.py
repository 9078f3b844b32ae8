"""Loops closed on real photographs with the offline weights; no threshold was chosen on rtabmap_loop."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from conftest import KnownFeatures

from effovpr_ros.core.images import read_image
from effovpr_ros.loop_closure.closing import Picture
from effovpr_ros.loop_closure.detector import LoopClosureDetector
from effovpr_ros.loop_closure.keyframe_map import open_session_map
from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.loop_closure.results import LoopClosure
from effovpr_ros.mapping.builder import make_thumbnail

CORRIDOR_FRAMES = 111


def read_pairs(table: Path) -> list[tuple[str, str]]:
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    return [(row[0], row[1]) for row in rows[1:]]


def closures(
    detector: LoopClosureDetector,
    known: KnownFeatures,
    images: list[Path],
    first_s: float,
    *,
    with_points: bool = False,
) -> list[LoopClosure | None]:
    """What each image closes, one image a second, every image a keyframe, without odometry."""
    found = []
    for number, path in enumerate(images):
        stamp_ns = round((first_s + number) * 1e9)
        assert detector.wants(stamp_ns, None)
        image = read_image(path)
        features = known.of(image, "default")[0]
        size_wh = (image.shape[1], image.shape[0])
        # As `process` does it, with features that other tests need too.
        points = functools.cache(functools.partial(detector.third_stage.extractor.extract, image))
        result = detector.process_features(
            features, make_thumbnail(image, 320), size_wh, stamp_ns, None, Picture(points if with_points else None)
        )
        found.append(result.closure)
    return found


def count(name: str, right: list[bool], of: int) -> None:
    print(f"\n{name}: {sum(right)} of {of} closed, {len(right) - sum(right)} wrong")


def test_two_laps_of_an_indoor_corridor(real_images: Path, known_features: KnownFeatures, tmp_path: Path):
    extractor = known_features.readers["default"]
    folder = real_images / "rtabmap_loop"
    images = sorted((folder / "images").iterdir())
    pairs = set(read_pairs(folder / "loops.csv"))
    place_map = open_session_map(tmp_path / "map", extractor.fingerprint)
    detector = LoopClosureDetector(extractor, place_map, LOOP_RECOGNIZER, LoopConfig(min_age_s=0.0, min_keyframes=10))
    found = closures(detector, known_features, images, 100.0, with_points=True)
    right = [
        (image.name, images[closure.match.keyframe_id].name) in pairs
        for image, closure in zip(images, found, strict=True)
        if closure
    ]
    count("two laps of an indoor corridor", right, len({image for image, _ in pairs}))
    assert sum(right) >= 39
    assert all(right)
    detector.close()


def test_one_corridor_walked_twice_as_two_sessions(real_images: Path, known_features: KnownFeatures, tmp_path: Path):
    extractor = known_features.readers["default"]
    folder = real_images / "corridor_walk"
    database = sorted((folder / "database").iterdir(), key=lambda path: int("".join(filter(str.isdigit, path.stem))))
    queries = sorted((folder / "queries").iterdir(), key=lambda path: int("".join(filter(str.isdigit, path.stem))))
    pairs = set(read_pairs(folder / "positives.csv"))
    # An hour until a keyframe of the own session may close a loop: only the other session is searched.
    config = LoopConfig(min_age_s=3600.0)
    for session, images in (("first", database), ("second", queries)):
        place_map = open_session_map(tmp_path / "map", extractor.fingerprint)
        detector = LoopClosureDetector(extractor, place_map, LOOP_RECOGNIZER, config, session)
        found = closures(detector, known_features, images, 100.0)
        detector.close()
        if session == "first":
            assert found == [None] * CORRIDOR_FRAMES
    closed = [(image, closure) for image, closure in zip(queries, found, strict=True) if closure]
    assert {closure.match.session for _, closure in closed} == {"first"}
    right = [(image.name, database[closure.match.keyframe_id].name) in pairs for image, closure in closed]
    count("one corridor walked twice", right, CORRIDOR_FRAMES)
    assert sum(right) >= 95
    assert right.count(False) <= 1
