"""The geometry of loop closures on textured pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic import FINGERPRINT, jpeg, new_place

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.mounted_cameras import parse_pose
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.verification_config import VerificationConfig
from effovpr_ros.geometry.verifier import Method
from effovpr_ros.loop_closure.closure_check import ClosureCheck
from effovpr_ros.loop_closure.results import Keyframe, LoopClosure
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.decision import DecidedBy
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import ThirdStage, Verified

CAMERA = CameraModel.from_field_of_view((320, 240), math.radians(60.0))
AHEAD = "0.2 0 0.5 -1.5707963 0 -1.5707963"
POSE = Pose.from_yaw(0.0, 0.0, 0.0)


def textured(seed: int) -> RgbImage:
    noise = np.random.default_rng(seed).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


def closure(pose: Pose | None = POSE) -> LoopClosure:
    query, match = Keyframe(1, 2, "a", pose, 1.0), Keyframe(0, 1, "a", pose, 0.0)
    return LoopClosure(query, match, 0.9, True, DecidedBy.SINGLE_IMAGE, 0.9, 30, 20, 20.0, 0.0)


@pytest.fixture
def third_stage(tmp_path: Path) -> Iterator[ThirdStage]:
    place = new_place(0)
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as made:
        made.add([NewPlace("a", 1, "0", None, None, (320, 240), jpeg(textured(0)), place.features)])
        yield ThirdStage(made, RecognizerConfig())


def test_the_same_picture_passes_and_another_is_refused(third_stage: ThirdStage):
    check = ClosureCheck(VerificationConfig(verification="two_view"), "")
    same = check.verify(closure(), textured(0), None, third_stage, CAMERA, None)
    assert same.accepted
    assert same.method in (Method.HOMOGRAPHY, Method.ESSENTIAL)
    other = check.verify(closure(), textured(1), None, third_stage, CAMERA, None)
    assert not other.accepted


def test_what_the_third_stage_saw_is_not_looked_for_again(third_stage: ThirdStage, monkeypatch: pytest.MonkeyPatch):
    query = third_stage.extractor.extract(textured(0))
    verified = Verified(query, (third_stage.compare(query, 0),))
    monkeypatch.setattr(third_stage.extractor, "extract", lambda _: pytest.fail("looked at again"))
    check = ClosureCheck(VerificationConfig(verification="two_view"), "")
    assert check.verify(closure(), textured(0), verified, third_stage, CAMERA, None).accepted


def test_without_usable_points_nothing_is_refused(third_stage: ThirdStage):
    third_stage.is_usable = False
    check = ClosureCheck(VerificationConfig(verification="two_view"), "")
    result = check.verify(closure(), textured(1), None, third_stage, CAMERA, None)
    assert (result.accepted, result.method) == (True, Method.NOT_VERIFIED)


def test_without_a_camera_nothing_is_checked(third_stage: ThirdStage):
    check = ClosureCheck(VerificationConfig(verification="two_view"), "")
    result = check.verify(closure(), textured(1), None, third_stage, None, None)
    assert (result.accepted, result.method) == (True, Method.NOT_VERIFIED)


def test_a_metric_pose_is_that_of_the_body_where_the_odometry_relates(third_stage: ThirdStage):
    # The query is the place's picture moved 16 px to the left, on a wall 3 m ahead: the camera stepped right.
    moved = np.roll(textured(0), -16, axis=1)
    depth_m = np.full((240, 320), 3.0, np.float32)
    step_m = 16.0 * 3.0 / CAMERA.focal_xy_px[0]
    check = ClosureCheck(VerificationConfig(verification="metric"), AHEAD)
    body = check.verify(closure(), moved, None, third_stage, CAMERA, depth_m)
    assert body.method is Method.PNP
    assert body.relative_pose is not None
    # The body looks along x, so that right is -y.
    assert body.relative_pose.position_xyz == pytest.approx((0.0, -step_m, 0.0), abs=0.02)
    assert body.covariance is not None
    assert np.linalg.eigvalsh(body.covariance).min() > 0.0
    camera = check.verify(closure(None), moved, None, third_stage, CAMERA, depth_m)
    assert camera.relative_pose is not None
    assert camera.relative_pose.position_xyz == pytest.approx((step_m, 0.0, 0.0), abs=0.02)


def test_poses_of_cameras():
    pose = parse_pose("1 2 3 0 0 1.5707963")
    assert pose.position_xyz == (1.0, 2.0, 3.0)
    assert pose.yaw_rad == pytest.approx(math.pi / 2.0)
    # An optical frame: z is ahead, along x of the body.
    x, y, z, w = parse_pose(AHEAD).quat_xyzw
    assert (2.0 * (x * z + w * y), 2.0 * (y * z - w * x)) == pytest.approx((1.0, 0.0), abs=1e-6)
    for text in ("1 2 3", "a b c d e f", "1 2 3 0 0 nan"):
        with pytest.raises(ConfigError, match="six numbers"):
            parse_pose(text)
    with pytest.raises(ConfigError, match="needs camera_pose"):
        ClosureCheck(VerificationConfig(verification="metric"), " ")
