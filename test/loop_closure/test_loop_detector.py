"""The loop closure detector on drives whose truth is known, and what bad input does to it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import picture, tiny_extractor

from effovpr_ros.core.errors import MapError, ModelMismatchError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.loop_closure.detector import LoopClosureDetector
from effovpr_ros.loop_closure.keyframe_map import open_session_map
from effovpr_ros.loop_closure.keyframes import Condition
from effovpr_ros.loop_closure.loop_config import LoopConfig
from effovpr_ros.loop_closure.results import LoopResult
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.confidence import ConfidenceModel, setting_name, store_confidence_model
from effovpr_ros.recognition.recognizer import DecidedBy, PlaceRecognizer, RecognizerConfig, Status

RECOGNIZER = RecognizerConfig(top_k=5, same_place_ids=0, same_place_radius_m=0.3)
CONFIG = LoopConfig(min_age_s=3.0, min_distance_m=2.0, min_keyframes=3)
LAP = 8


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return tiny_extractor(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def begin(extractor: FeatureExtractor, tmp_path: Path) -> Callable[..., LoopClosureDetector]:
    """Makes a detector on the map of this test; MATCH is a cosine of nearly 1."""

    def make(
        session: str = "a", config: LoopConfig = CONFIG, recognizer: RecognizerConfig = RECOGNIZER
    ) -> LoopClosureDetector:
        place_map = open_session_map(tmp_path / "map", extractor.fingerprint)
        name = setting_name(extractor.fingerprint, recognizer)
        exactly_alike = ConfidenceModel(name, (1000.0, 0.0, 0.0, 0.0, 0.0, 0.0), -998.0, 0.7, 0.99, "by hand", 0, 0.0)
        store_confidence_model(place_map, exactly_alike)
        return LoopClosureDetector(extractor, place_map, recognizer, config, session)

    return make


def on_circle(number: int) -> Pose:
    """One metre along the way and an eighth of a turn for each image."""
    turn = 2.0 * math.pi * number / LAP
    radius = LAP / (2.0 * math.pi)
    return Pose.from_yaw(radius * math.cos(turn), radius * math.sin(turn), turn + math.pi / 2.0)


def see(detector: LoopClosureDetector, image: RgbImage, seconds: float, odometry: Pose | None) -> LoopResult:
    stamp_ns = round(seconds * 1e9)
    assert detector.wants(stamp_ns, odometry)
    return detector.process(image, stamp_ns, odometry)


def drive(detector: LoopClosureDetector, numbers: range, *, odometry: bool = True) -> list[LoopResult]:
    """Images of a circle, one a second; each lap shows the same eight pictures in slightly other light."""
    results = []
    for number in numbers:
        image = np.minimum(picture(number % LAP).astype(int) + number // LAP, 255).astype(np.uint8)
        results.append(see(detector, image, 1000.0 + number, on_circle(number) if odometry else None))
    return results


def test_two_laps_close_where_the_first_began(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    results = drive(detector, range(2 * LAP))
    assert [result.keyframe.keyframe_id for result in results if result.keyframe] == list(range(2 * LAP))
    assert [result.closure is not None for result in results] == [False] * LAP + [True] * LAP
    assert all(result.condition is Condition.NORMAL for result in results)
    closure = results[11].closure
    assert closure is not None
    assert (closure.query.keyframe_id, closure.match.keyframe_id) == (11, 3)
    assert (closure.query.stamp_ns, closure.match.stamp_ns) == (1_011_000_000_000, 1_003_000_000_000)
    assert (closure.query.session, closure.match.session) == ("a", "a")
    assert closure.has_odom_poses
    assert closure.match.odom_pose == on_circle(3)
    assert closure.query.odom_pose == on_circle(11)
    # Chords between keyframes, each a little shorter than the arc of one metre.
    chord = LAP / math.pi * math.sin(math.pi / LAP)
    assert closure.match.distance_m == pytest.approx(3 * chord)
    assert closure.query.distance_m == pytest.approx(11 * chord)
    assert closure.decided_by is DecidedBy.SINGLE_IMAGE
    assert closure.calibrated
    assert closure.confidence > 0.7
    assert closure.num_matches >= closure.num_consistent > 0
    assert closure.similarity == pytest.approx(1.0, abs=1e-3)
    assert results[11].insert_ms > 0.0
    assert results[11].recognition is not None
    assert results[11].recognition.latency_ms.extract > 0.0


def test_keyframes_that_are_too_young_are_no_candidates(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    results = drive(detector, range(7))
    answers = [result.recognition for result in results]
    assert [[item.place.place_id for item in answer.candidates] if answer else [] for answer in answers[:3]] == [[]] * 3
    # Keyframe 0 is 3 s and three keyframes old, and 2.9 m back; keyframe 3 of 6 as well.
    assert {item.place.place_id for item in answers[3].candidates} == {0}  # type: ignore[union-attr]
    assert {item.place.place_id for item in answers[6].candidates} == {0, 1, 2, 3}  # type: ignore[union-attr]


def test_a_second_session_finds_the_first_at_once_without_odometry_between(begin: Callable[..., LoopClosureDetector]):
    first = begin("a")
    drive(first, range(LAP))
    first.close()
    second = begin("b", LoopConfig(min_age_s=3600.0))
    results = drive(second, range(LAP, 2 * LAP))
    for number, result in enumerate(results):
        assert result.closure is not None
        assert (result.closure.match.keyframe_id, result.closure.match.session) == (number, "a")
        assert (result.closure.query.keyframe_id, result.closure.query.session) == (LAP + number, "b")
        assert not result.closure.has_odom_poses
        assert result.closure.match.odom_pose is None
    second.close()


def test_the_sequence_decides_where_it_is_on(begin: Callable[..., LoopClosureDetector]):
    detector = begin(recognizer=RecognizerConfig(top_k=5, sequence_length=10, match_confidence=1.0))
    results = drive(detector, range(3 * LAP), odometry=False)
    decided = [result.closure.decided_by for result in results if result.closure]
    assert len(decided) >= LAP
    assert set(decided) == {DecidedBy.SEQUENCE}
    assert not any(result.closure.calibrated for result in results if result.closure)
    assert all(result.condition is Condition.NO_ODOMETRY for result in results)


def test_a_frozen_camera_makes_no_keyframes_and_is_told_from_a_robot_that_stands(
    begin: Callable[..., LoopClosureDetector],
):
    detector = begin(config=LoopConfig(keyframe_period_s=1.0))
    assert see(detector, picture(1), 0.0, on_circle(0)).keyframe is not None
    frozen = see(detector, picture(1), 1.0, on_circle(1))
    assert frozen == LoopResult(Condition.CAMERA_FROZEN)
    assert detector.condition is Condition.CAMERA_FROZEN
    standing = see(detector, picture(1), 2.0, on_circle(0))
    assert standing == LoopResult(Condition.IMAGE_REPEATED)
    thawed = see(detector, picture(2), 3.0, on_circle(3))
    assert thawed.keyframe is not None
    assert thawed.condition is Condition.NORMAL
    assert len(detector.place_map) == 2


def test_without_odometry_a_repeated_image_is_no_keyframe(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    assert see(detector, picture(1), 0.0, None).keyframe is not None
    assert see(detector, picture(1), 1.0, None) == LoopResult(Condition.IMAGE_REPEATED)
    assert see(detector, picture(2), 2.0, None).keyframe is not None


def test_a_jump_of_the_odometry_cuts_the_relation_but_not_the_closures(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    drive(detector, range(LAP))
    moved = [
        Pose.from_yaw(1000.0 + on_circle(number).position_xyz[0], 0.0, on_circle(number).yaw_rad)
        for number in range(LAP, LAP + 4)
    ]
    results = [
        see(detector, picture(number % LAP) // 2 * 2, 1000.0 + number, pose)
        for number, pose in zip(range(LAP, LAP + 4), moved, strict=True)
    ]
    assert [result.condition for result in results] == [Condition.ODOMETRY_JUMPED] + [Condition.NORMAL] * 3
    assert detector.progress.track == 1
    for number, result in enumerate(results):
        assert result.closure is not None
        assert result.closure.match.keyframe_id == number
        assert not result.closure.has_odom_poses
        assert result.closure.query.odom_pose == moved[number]


def test_a_bag_that_is_played_again_closes_loops_with_its_first_round(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    drive(detector, range(LAP))
    results = [see(detector, picture(number) // 2 * 2, 1000.0 + number, on_circle(number)) for number in range(5)]
    assert results[0].condition is Condition.CLOCK_BACKWARDS
    assert [result.closure.match.keyframe_id for result in results if result.closure] == [0, 1, 2, 3, 4]
    assert not any(result.closure.has_odom_poses for result in results if result.closure)


def test_an_image_out_of_order_is_ignored(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    drive(detector, range(2))
    assert not detector.wants(1_000_900_000_000, on_circle(1))
    assert detector.condition is Condition.IMAGE_OUT_OF_ORDER
    late = detector.process(picture(7), 1_000_900_000_000, on_circle(1))
    assert late == LoopResult(Condition.IMAGE_OUT_OF_ORDER)
    assert len(detector.place_map) == 2


def test_a_limit_of_keyframes_is_kept_and_their_ids_stay(begin: Callable[..., LoopClosureDetector]):
    # Candidates of an image are not forgotten with it, so these must be fewer than the limit.
    limit = LAP + 4
    detector = begin(config=LoopConfig(min_age_s=3.0, min_distance_m=2.0, min_keyframes=3, max_keyframes=limit))
    results = drive(detector, range(5 * LAP))
    assert [result.keyframe.keyframe_id for result in results if result.keyframe] == list(range(5 * LAP))
    assert len(detector.place_map) == limit
    # Every place of the circle is still there, and the last lap closes at each.
    assert {place.place_id % LAP for place in detector.place_map.places()} == set(range(LAP))
    for number, result in enumerate(results[-LAP:]):
        assert result.closure is not None
        assert result.closure.match.keyframe_id % LAP == number


def test_settings_change_while_it_runs(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    drive(detector, range(LAP))
    detector.set_configs(RECOGNIZER, LoopConfig(min_age_s=3600.0))
    assert not any(result.closure for result in drive(detector, range(LAP, LAP + 3)))
    detector.set_configs(RECOGNIZER, CONFIG)
    assert all(result.closure for result in drive(detector, range(LAP + 3, LAP + 5)))


def test_a_saved_map_is_read_by_the_recogniser_and_the_session_goes_on(
    begin: Callable[..., LoopClosureDetector], extractor: FeatureExtractor, tmp_path: Path
):
    detector = begin()
    drive(detector, range(LAP))
    detector.save_map(tmp_path / "saved", "of a lap")
    drive(detector, range(LAP, LAP + 2))
    with PlaceMap.open(tmp_path / "saved") as saved:
        assert (saved.name, saved.frame_id, len(saved), saved.sessions) == ("of a lap", "odom", LAP, ["a"])
        answer = PlaceRecognizer(extractor, saved, RECOGNIZER).recognize(picture(3))
        assert answer.status is Status.MATCH
        assert answer.candidates[0].place.place_id == 3
        assert answer.pose == on_circle(3)
        assert saved.thumbnail(3)[:2] == b"\xff\xd8"
    with pytest.raises(MapError, match="in use"):
        detector.save_map(tmp_path / "saved")
    detector.close()


def test_a_saved_map_of_two_tracks_answers_with_both_and_gives_poses_of_the_first(
    begin: Callable[..., LoopClosureDetector], extractor: FeatureExtractor, tmp_path: Path
):
    detector = begin()
    drive(detector, range(4))
    far = [Pose.from_yaw(1000.0 + number, 0.0, 0.0) for number in range(4, LAP)]
    for number, pose in zip(range(4, LAP), far, strict=True):
        see(detector, picture(number), 1000.0 + number, pose)
    detector.save_map(tmp_path / "saved")
    detector.close()
    with PlaceMap.open(tmp_path / "saved") as saved:
        recognizer = PlaceRecognizer(extractor, saved, RECOGNIZER)
        answers = [recognizer.recognize(picture(number)) for number in range(LAP)]
    assert [answer.candidates[0].place.place_id for answer in answers] == list(range(LAP))
    assert [answer.pose for answer in answers] == [*(on_circle(number) for number in range(4)), *([None] * 4)]
    assert [answer.candidates[0].place.pose for answer in answers[4:]] == far


def test_a_session_goes_on_after_it_was_closed(begin: Callable[..., LoopClosureDetector]):
    first = begin()
    drive(first, range(LAP))
    first.close()
    again = begin()
    results = drive(again, range(LAP, 2 * LAP))
    assert [result.closure.match.keyframe_id for result in results if result.closure] == list(range(LAP))
    assert again.place_map.sessions == ["a"]
    assert len(again.place_map) == 2 * LAP


def test_a_map_of_another_model_and_a_folder_in_use_are_refused(
    begin: Callable[..., LoopClosureDetector], extractor: FeatureExtractor, tmp_path: Path
):
    begin().close()
    other = tiny_extractor(tmp_path, facet="key")
    with pytest.raises(ModelMismatchError, match="facet"):
        open_session_map(tmp_path / "map", other.fingerprint)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(MapError, match=r"holds a\.jpg"):
        open_session_map(tmp_path / "photos", extractor.fingerprint)


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
from test_loop_detector import *
extractor = tiny_extractor(Path({weights!r}))
detector = LoopClosureDetector(extractor, open_session_map({folder!r}, extractor.fingerprint), RECOGNIZER, CONFIG, "a")
for number in range(100000):
    result = drive(detector, range(number, number + 1))[0]
    print(result.keyframe.keyframe_id, flush=True)
"""


def test_a_kill_9_loses_at_most_the_last_keyframe_and_the_session_goes_on(
    extractor: FeatureExtractor, begin: Callable[..., LoopClosureDetector], tmp_path: Path
):
    program = KILLED.format(
        tests=[str(folder) for folder in Path(__file__).parents[:2]],
        weights=str(tmp_path),
        folder=str(tmp_path / "map"),
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = -1
    while told < 30:
        told = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    detector = begin()
    places = detector.place_map.places()
    assert [place.place_id for place in places] == list(range(len(places)))
    assert len(places) in (told + 1, told + 2)
    assert {place.session for place in places} == {"a"}
    result = drive(detector, range(len(places), len(places) + 1))[0]
    assert result.keyframe is not None
    assert result.keyframe.keyframe_id == len(places)
    assert result.closure is not None
    assert result.closure.match.keyframe_id % LAP == len(places) % LAP
    detector.close()
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert place_map.check() == []
        assert [place.own_frame for place in place_map.places()] == [""] * len(places) + [f"a/track_{len(places)}"]


def reversed_pose(number: int) -> Pose:
    """The same point of the circle, driven the other way."""
    x, y, _ = on_circle(number).position_xyz
    return Pose.from_yaw(x, y, on_circle(number).yaw_rad + math.pi)


def second_lap(detector: LoopClosureDetector, poses: list[Pose]) -> list[LoopResult]:
    """A first lap, then its pictures again at other poses; the odometry gets there without a jump."""
    drive(detector, range(LAP))
    return [
        see(detector, np.minimum(picture(number).astype(int) + 1, 255).astype(np.uint8), 1100.0 + 10.0 * number, pose)
        for number, pose in enumerate(poses)
    ]


def test_the_same_view_from_a_robot_that_looks_back_is_refused_and_said(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    results = second_lap(detector, [reversed_pose(number) for number in range(LAP)])
    assert detector.progress.track == 0
    for number, result in enumerate(results):
        assert result.closure is None
        assert result.refused is not None
        assert result.refused.closure.match.keyframe_id == number
        assert result.refused.reason == (
            f"keyframes {LAP + number} and {number} are turned by 180 degrees by odometry, above max_heading_deg 100"
        )
        # The image is a keyframe all the same.
        assert result.keyframe is not None
    detector.set_configs(
        RECOGNIZER, LoopConfig(min_age_s=3.0, min_distance_m=2.0, min_keyframes=3, max_heading_deg=180)
    )
    believed = see(detector, np.minimum(picture(0).astype(int) + 2, 255).astype(np.uint8), 1300.0, reversed_pose(0))
    assert believed.closure is not None
    assert believed.refused is None


def test_a_view_farther_off_than_odometry_drifts_is_refused(begin: Callable[..., LoopClosureDetector]):
    detector = begin()
    far = [
        Pose.from_yaw(on_circle(number).position_xyz[0] + 30.0, 0.0, on_circle(number).yaw_rad) for number in range(LAP)
    ]
    results = second_lap(detector, far)
    assert detector.progress.track == 0
    # Some 33 m were driven since, of which a fifth and the radius of a place are less than the 30 m or so between.
    assert all(result.closure is None for result in results)
    assert all("max_drift" in result.refused.reason for result in results if result.refused)
    assert all(result.refused for result in results)


@pytest.mark.parametrize(("limits", "believed"), [({}, False), ({"max_heading_deg": 180.0, "max_drift": 0.0}, True)])
def test_a_sequence_whose_steps_agree_is_refused_where_the_robot_cannot_be(
    begin: Callable[..., LoopClosureDetector], limits: dict[str, float], believed: bool
):
    recognizer = RecognizerConfig(top_k=5, sequence_length=10, match_confidence=1.0, same_place_radius_m=0.3)
    config = LoopConfig(min_age_s=3.0, min_distance_m=2.0, min_keyframes=3, **limits)
    # From the other side of the circle: each step and turn is that of the places seen, but the robot is not there.
    results = second_lap(begin(config=config, recognizer=recognizer), [on_circle(LAP // 2 + n) for n in range(LAP)])
    refused = [result.refused.closure for result in results if result.refused]
    closed = [result.closure for result in results if result.closure]
    assert (bool(closed), bool(refused)) == (believed, not believed)
    assert {closure.decided_by for closure in closed + refused} == {DecidedBy.SEQUENCE}
