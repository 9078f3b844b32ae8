"""What a second camera adds, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.recording import FRONT, REAR
from effovpr_ros.lab.simulation.rig_score import BodyAnswer, score_rig
from effovpr_ros.recognition.decision import Status

HERE = Pose.from_yaw(10.0, 5.0, 0.3)
NEAR = Pose.from_yaw(11.0, 5.5, 0.5)
TURNED = Pose.from_yaw(10.0, 5.0, 0.3 + math.pi)
MATCH, AMBIGUOUS = Status.MATCH, Status.AMBIGUOUS


def test_missing_right_matches_and_those_that_two_cameras_gain():
    """Five frames, four of them on mapped ground. Alone: one right MATCH, one wrong; three are missing. Together: two
    right ones, of which one is gained, and one off the map that is none."""
    one = [BodyAnswer(MATCH, NEAR), BodyAnswer(MATCH, TURNED), BodyAnswer(AMBIGUOUS, HERE), BodyAnswer(AMBIGUOUS, None)]
    two = [BodyAnswer(MATCH, HERE), BodyAnswer(MATCH, NEAR), BodyAnswer(AMBIGUOUS, HERE), BodyAnswer(AMBIGUOUS, None)]
    off = BodyAnswer(Status.NO_MATCH, TURNED)
    back = [(HERE, BodyAnswer(MATCH, TURNED), BodyAnswer(MATCH, HERE)), (HERE, off, BodyAnswer(MATCH, TURNED))]
    score = score_rig([HERE] * 5, [True, True, True, True, False], [*one, off], [*two, off], back, [False, True])
    assert (score.frames, score.mapped, score.missing, score.gained) == (5, 4, 3, 1)
    assert (score.one_right, score.one_wrong, score.two_right, score.two_wrong) == (1, 1, 2, 0)
    assert (score.back_frames, score.back_one, score.back_two, score.back_matches) == (2, 0, 1, (1, 1))
    assert (score.unseen, score.unseen_two) == (1, 1)
    assert "1 of 3" in score.table()
    assert score.to_dict()["missing"] == 3


def test_the_rear_camera_stands_where_the_front_one_does_and_looks_back():
    ahead, back = (
        Rotation.from_quat(camera.mounting.known_quat_xyzw).apply((0.0, 0.0, 1.0)) for camera in (FRONT, REAR)
    )
    np.testing.assert_allclose(ahead, (1.0, 0.0, 0.0), atol=1e-9)
    np.testing.assert_allclose(back, (-1.0, 0.0, 0.0), atol=1e-9)
    up = Rotation.from_quat(REAR.mounting.known_quat_xyzw).apply((0.0, -1.0, 0.0))
    np.testing.assert_allclose(up, (0.0, 0.0, 1.0), atol=1e-9)
    assert REAR.mounting.position_xyz == pytest.approx(FRONT.mounting.position_xyz)
