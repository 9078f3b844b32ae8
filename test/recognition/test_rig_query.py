"""Pictures of one moment become one answer; values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic import picture, tiny_extractor

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.mounted_cameras import MountedCamera, camera_names, parse_pose, pose_with_camera
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import Decision, Status
from effovpr_ros.recognition.latency import Latency
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.rig_query import RigPicture, fuse, recognize_rig
from effovpr_ros.sources.frame import Frame

CAMERA = CameraModel((64, 48), (50.0, 51.0), (31.5, 23.5))
AHEAD = parse_pose("0.2 0 0.5 -1.5707963267948966 0 -1.5707963267948966")
BACK = parse_pose("-0.3 0 0.5 -1.5707963267948966 0 1.5707963267948966")
FEATURES = Features(
    np.zeros(4, np.float32), LocalFeatures(np.zeros((9, 4), np.int8), np.zeros((9, 2), np.uint8)), (3, 3)
)


def place(number: int, x_m: float, yaw_rad: float = 0.0, session: str = "drive") -> Place:
    return Place(number, session, number, "", Pose.from_yaw(x_m, 0.0, yaw_rad), None, (64, 48))


def answer(confidence: float, *places: Place) -> Recognition:
    status = Status.MATCH if confidence >= 0.9 else Status.AMBIGUOUS
    candidates = tuple(Candidate(item, 0.5) for item in places)
    none = Latency(0.0, 0.0, 0.0, 0.0, 0.0)
    return Recognition(status, confidence, candidates, None, None, None, 0.0, none, "", FEATURES, calibrated=True)


class Fused:
    """A recogniser whose places say themselves where the body is, and whose further candidates have a confidence."""

    def __init__(self, further: float = 0.1) -> None:
        self.config = RecognizerConfig()
        self.match_confidence = 0.9
        self.poses = SimpleNamespace(prior=lambda place, camera: place.pose)
        self._further = further

    def confidence_of(self, candidates: Any, num_keypoints: int) -> float:
        return self._further

    def assemble(self, features: Any, candidates: Any, decision: Decision, *_: Any, measures: bool) -> Recognition:
        assert not measures
        made = answer(decision.confidence, *(item.place for item in candidates))
        return replace(made, status=decision.status, reason=decision.reason, calibrated=True)


def fused(*answers: Recognition, further: float = 0.1) -> Any:
    recognizer: Any = Fused(further)
    return fuse(recognizer, answers, ["front", "rear", "left"][: len(answers)])


def test_cameras_that_agree_are_surer_together():
    """Log-odds of 0.6 are 0.405; the second adds half of its own and 1: 0.405 + 0.203 + 1 = 1.608, or 0.833."""
    both = fused(answer(0.6, place(1, 0.0)), answer(0.6, place(7, 1.0)))
    assert both.recognition.confidence == pytest.approx(0.833, abs=0.001)
    assert both.agreeing == (0, 1)
    assert "front 0.60, rear 0.60" in both.recognition.reason
    # How they are joined is not fitted.
    assert not both.recognition.calibrated


def test_a_camera_that_contradicts_lowers_the_confidence():
    """Odds 9 against 1: 9 / (1 + 9 + 1) = 0.818; one that hardly believes itself, odds 1/9, leaves 0.890."""
    sure, elsewhere = answer(0.9, place(1, 0.0)), place(7, 50.0)
    against = fused(sure, answer(0.5, elsewhere))
    assert against.recognition.confidence == pytest.approx(9.0 / 11.0)
    assert (against.number, against.agreeing, against.recognition.status) == (0, (0,), Status.AMBIGUOUS)
    assert "rear 0.50 for place 7" in against.recognition.reason
    weak = fused(sure, answer(0.1, elsewhere)).recognition.confidence
    assert weak == pytest.approx(9.0 / (10.0 + 1.0 / 9.0))


def test_the_same_place_with_the_body_turned_round_is_a_contradiction():
    turned = fused(answer(0.9, place(1, 0.0)), answer(0.5, place(7, 0.0, math.pi)))
    assert turned.agreeing == (0,)
    assert turned.recognition.confidence < 0.9


def test_a_place_that_two_cameras_name_second_and_first_counts_before_one_that_one_names_alone():
    """Front: 50 m (0.5) before 0 m (0.4); rear: 0 m (0.8): odds 4 * e^(0.5 ln(2/3) + 1) = 8.88."""
    front = answer(0.5, place(3, 50.0), place(1, 0.0))
    both = fused(front, answer(0.8, place(7, 1.0)), further=0.4)
    assert both.agreeing == (0, 1)
    assert both.recognition.candidates[0].place.place_id == 7
    assert both.recognition.confidence == pytest.approx(8.877 / (1.0 + 8.877), abs=0.001)


def test_a_camera_that_sees_nothing_changes_nothing():
    blank = answer(0.0)
    alone = fused(answer(0.8, place(1, 0.0), place(2, 50.0)), blank)
    assert alone.recognition.confidence == pytest.approx(0.8)
    assert fused(blank, blank).recognition.candidates == ()


def test_places_without_positions_support_each_other_only_within_a_session():
    unknown = [replace(place(n, 0.0, session="a" if n < 10 else "b"), pose=None) for n in (1, 2, 12)]
    assert fused(answer(0.6, unknown[0]), answer(0.6, unknown[1])).agreeing == (0, 1)
    assert len(fused(answer(0.6, unknown[0]), answer(0.6, unknown[2])).agreeing) == 1


def test_the_body_follows_from_a_match_by_a_camera_that_looks_the_other_way():
    """A robot at 10 m that drove east with its camera 0.2 m ahead: the camera was at 10.2 m and looked east. One that
    drives west and sees that with a camera 0.3 m behind is 0.3 m west of it, at 9.9 m, at the same height."""
    body = pose_with_camera(Pose.from_yaw(10.0, 2.0, 0.0, 0.7), AHEAD, BACK)
    assert body.known_xyz == pytest.approx((9.9, 2.0, 0.7))
    assert abs(body.known_yaw_rad) == pytest.approx(math.pi)
    same = Pose.from_yaw(10.0, 2.0, 0.3)
    assert pose_with_camera(same, AHEAD, AHEAD) is same


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        (["/front/image_raw/compressed", "/rear/image_raw"], ("front", "rear")),
        (["/robot/front/color/image_raw", "/robot/rear/color/image_raw"], ("front", "rear")),
        (["/cam/left", "/cam/right"], ("left", "right")),
        (["/a/b/image", "/a/c/b/image"], ("b", "c_b")),
    ],
)
def test_names_of_cameras(topics: list[str], names: tuple[str, ...]):
    assert camera_names(topics) == names


def test_one_picture_is_answered_as_ever_and_a_map_of_two_cameras_wants_to_know_which_one(tmp_path: Path):
    extractor = tiny_extractor(tmp_path)
    with PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint) as place_map:
        for session, mounting, first in (("drive:front", AHEAD, 0), ("drive:rear", BACK, 20)):
            set_session_camera(place_map, session, MountedCamera(CAMERA, mounting))
            frames = [
                Frame(
                    f"{n}",
                    session,
                    n,
                    Pose.from_yaw(20.0 * n, 0.0, 0.0),
                    None,
                    lambda n=n, first=first: picture(n + first),
                )
                for n in range(6)
            ]
            build_map(place_map, extractor, frames, BuildConfig())
        recognizer = PlaceRecognizer(extractor, place_map, RecognizerConfig(verify="off", min_confidence=0.0))
        front, rear = MountedCamera(CAMERA, AHEAD), MountedCamera(CAMERA, BACK)
        alone = recognizer.recognize(picture(3), camera=front)
        one = recognize_rig(recognizer, [RigPicture(picture(3), front, "front")])
        assert (one.recognition.reason, one.recognition.confidence) == (alone.reason, alone.confidence)
        assert one.recognition.pose == alone.pose == Pose.from_yaw(60.0, 0.0, 0.0)
        # What the rear camera of the map saw at 60 m, seen by a front camera: the robot drives back.
        back = recognizer.recognize(picture(23), camera=front).pose
        assert back is not None
        assert back.known_xyz == pytest.approx((60.0 - 0.3 + 0.2, 0.0, 0.0))
        assert abs(back.known_yaw_rad) == pytest.approx(math.pi)
        unknown = recognizer.recognize(picture(23))
        assert unknown.pose is not None
        assert unknown.pose.quat_xyzw is None
        assert unknown.covariance is not None
        assert unknown.covariance[5, 5] == pytest.approx(math.pi**2)
        both = recognize_rig(
            recognizer, [RigPicture(picture(3), front, "front"), RigPicture(picture(23), rear, "rear")]
        )
        assert both.agreeing == (0, 1)
        assert both.recognition.confidence > max(answer.confidence for answer in both.pictures)
        assert both.recognition.latency_ms.extract > 0.0
