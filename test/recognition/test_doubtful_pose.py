"""The measured pose of an answer that is doubtful by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import PoseMeasurement, PoseOutcome
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.doubtful_pose import with_doubtful_pose
from effovpr_ros.recognition.latency import Latency

PRIOR, SEEN = Pose.from_yaw(1.0, 2.0, 0.0), Pose.from_yaw(1.5, 2.0, 0.1)


class Recognizer:
    """Measures one pose of whatever it is asked."""

    def __init__(self) -> None:
        self.poses, self.measured = self, 0

    def measure(self, candidates: Any, verified: Any, camera: Any) -> PoseMeasurement:
        self.measured += 1
        return PoseMeasurement(PoseOutcome.MEASURED, "40 points", SEEN, np.eye(6) * 1e-3, 40, 2)

    def with_measurement(self, recognition: Recognition, measurement: PoseMeasurement) -> Recognition:
        return replace(recognition, pose=measurement.pose, covariance=measurement.covariance, measurement=measurement)


def answer(status: Status, verified: Any = "points") -> Recognition:
    latency = Latency(1.0, 1.0, 1.0, 1.0, 10.0)
    pose = None if status is Status.NO_MATCH else PRIOR
    return Recognition(status, 0.5, (), pose, np.eye(6), None, 0.0, latency, "", None, verified=verified)


def test_an_ambiguous_answer_gets_its_measured_pose_and_the_time_it_took():
    recognizer = Recognizer()
    measured = with_doubtful_pose(recognizer, answer(Status.AMBIGUOUS))
    assert (measured.status, measured.pose, measured.is_metric) == (Status.AMBIGUOUS, SEEN, True)
    assert measured.latency_ms.pose > 0.0
    assert measured.latency_ms.total >= 10.0 + measured.latency_ms.pose
    # Asked again, it is measured once.
    assert with_doubtful_pose(recognizer, measured) is measured
    assert recognizer.measured == 1


@pytest.mark.parametrize("given", [answer(Status.MATCH), answer(Status.NO_MATCH), answer(Status.AMBIGUOUS, None)])
def test_other_answers_are_left_as_they_are(given: Recognition):
    recognizer = Recognizer()
    assert with_doubtful_pose(recognizer, given) is given
    assert recognizer.measured == 0
