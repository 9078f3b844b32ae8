"""The measured pose of an answer that is doubtful by itself, for those who hold it against others of the same robot."""

from __future__ import annotations

from dataclasses import replace

from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.latency import StageClock
from effovpr_ros.recognition.recognizer import PlaceRecognizer


def with_doubtful_pose(recognizer: PlaceRecognizer, recognition: Recognition) -> Recognition:
    """An AMBIGUOUS answer with its pose measured, where its points allow that; any other as it is.

    Alone it proves nothing. The poses that several images of one robot measure agree by odometry where they are right,
    and hardly ever where they are wrong: `relocalization` and `map_odom` make use of that.

    Args:
        recognizer: that answered.
        recognition: its answer.
    """
    verified = recognition.verified
    if recognition.status is not Status.AMBIGUOUS or verified is None or recognition.measurement is not None:
        return recognition
    clock = StageClock()
    with clock.stage("pose"):
        measurement = recognizer.poses.measure(recognition.candidates, verified, recognition.camera)
    before, took = recognition.latency_ms, clock.latency()
    latency = replace(before, pose=before.pose + took.pose, total=before.total + took.total)
    return replace(recognizer.with_measurement(recognition, measurement), latency_ms=latency)
