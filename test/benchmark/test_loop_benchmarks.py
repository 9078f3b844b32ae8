"""What a keyframe costs beyond the extraction of its features, in a map that grows: `make bench`."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synthetic import picture

from effovpr_ros.core.poses import Pose
from effovpr_ros.features.codes import MAX_CODE
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.loop_closure.detector import LoopClosureDetector
from effovpr_ros.loop_closure.keyframe_map import open_session_map
from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.place import NewPlace

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]
GRID = 23
SMALL, WANTED, LARGE = 1_000, 5_000, 50_000
MEASURED = 60
# Of the stored keyframes of the large maps, so that 50,000 do not take 5 GB of disk.
FEW = 8


def synthetic_features(count: int, first: int, keypoints: int, model: ModelFingerprint) -> Iterator[Features]:
    """Random features, of which neighbours in the drive look a little alike, as they do for a camera."""
    rng = np.random.default_rng(first)
    cells = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2)[:keypoints].astype(np.uint8)
    codes = rng.integers(-MAX_CODE, MAX_CODE + 1, (keypoints, model.local_dim)).astype(np.int8)
    view = rng.normal(size=model.global_dim)
    for number in range(count):
        view = 0.9 * view + 0.44 * rng.normal(size=model.global_dim)
        local = LocalFeatures(np.roll(codes, number, axis=1), cells)
        yield Features((view / np.linalg.norm(view)).astype(np.float32), local, (GRID, GRID))


def fill(place_map: GrowingMap, count: int, keypoints: int) -> None:
    """Append keyframes up to a number, a metre apart."""
    model, first = place_map.fingerprint, place_map.next_id
    places = []
    for number, features in enumerate(synthetic_features(count - first, first, keypoints, model), start=first):
        pose = Pose.from_yaw(float(number), 0.0, 0.0)
        places.append(NewPlace("a", number, f"{number}", pose, None, (640, 480), b"", features))
        if len(places) == 250 or number == count - 1:
            place_map.add(places)
            places = []


def added_ms(detector: LoopClosureDetector, first_m: float) -> list[float]:
    """Time of a keyframe without extraction: JPEG, search, re-ranking, decision, storing, indexing."""
    image = picture(1, 640, 480)
    model = detector.place_map.fingerprint
    times = []
    for number, features in enumerate(synthetic_features(MEASURED + 10, 77, GRID * GRID, model)):
        started = time.perf_counter()
        thumbnail = make_thumbnail(image, detector.config.thumbnail_side)
        pose = Pose.from_yaw(first_m + number, 0.0, 0.0)
        result = detector.process_features(features, thumbnail, (640, 480), round((first_m + number) * 1e9), pose)
        times.append((time.perf_counter() - started) * 1e3)
        assert result.recognition is not None
        assert len(result.recognition.candidates) == LOOP_RECOGNIZER.top_k
    return times[10:]


def report(name: str, wanted: str, times: list[float]) -> float:
    median = statistics.median(times)
    print(f"\n{name:60} wanted {wanted:14} reached {median:.1f} ms, 95 % below {np.percentile(times, 95):.1f} ms")
    return median


def test_a_keyframe_among_five_thousand(offline_extractor: FeatureExtractor, tmp_path: Path):
    place_map = open_session_map(tmp_path / "map", offline_extractor.fingerprint)
    fill(place_map, WANTED, GRID * GRID)
    detector = LoopClosureDetector(offline_extractor, place_map, LOOP_RECOGNIZER, LoopConfig(max_keyframes=WANTED))
    median = report("a keyframe among 5,000, beyond extraction", "< 25 ms", added_ms(detector, 0.0))
    assert len(place_map) <= WANTED
    detector.close()
    assert median < 25.0


def test_growth_from_a_thousand_to_fifty_thousand(offline_extractor: FeatureExtractor, tmp_path: Path):
    place_map = open_session_map(tmp_path / "map", offline_extractor.fingerprint)
    medians = []
    for size in (SMALL, LARGE):
        fill(place_map, size, FEW)
        detector = LoopClosureDetector(offline_extractor, place_map, LOOP_RECOGNIZER, LoopConfig(max_keyframes=0))
        medians.append(report(f"a keyframe among {size:,}, small local features", "", added_ms(detector, 1e6 + size)))
    print(f"  {medians[1] / medians[0]:.2f} times as long for 50 times as many keyframes")
    place_map.close()
    assert medians[1] / medians[0] <= math.sqrt(LARGE / SMALL)


def test_opening_after_a_kill(offline_extractor: FeatureExtractor, tmp_path: Path):
    place_map = open_session_map(tmp_path / "map", offline_extractor.fingerprint)
    fill(place_map, WANTED, GRID * GRID)
    place_map.close()
    started = time.perf_counter()
    with GrowingMap.open(tmp_path / "map", writable=True) as again:
        opened_ms = (time.perf_counter() - started) * 1e3
        assert len(again) == WANTED
    report("opening 5,000 keyframes that no index knows", "< 2000 ms", [opened_ms])
    assert opened_ms < 2000.0


def test_saving_a_map_of_five_thousand(offline_extractor: FeatureExtractor, tmp_path: Path):
    place_map = open_session_map(tmp_path / "map", offline_extractor.fingerprint)
    fill(place_map, WANTED, GRID * GRID)
    started = time.perf_counter()
    place_map.save_copy(tmp_path / "copy")
    report("saving 5,000 keyframes", "", [(time.perf_counter() - started) * 1e3])
    kilobytes = sum(path.stat().st_size for path in (tmp_path / "copy").iterdir()) / 1e3 / WANTED
    print(f"  {kilobytes:.0f} kB a keyframe without its picture")
    place_map.close()
    assert kilobytes < 115.0
