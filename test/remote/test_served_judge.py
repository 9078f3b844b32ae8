"""A sequence of a server's answers is judged as one of a map on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
from synthetic import FINGERPRINT

from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.geometry.measured_pose import PoseMeasurement, PoseOutcome
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import DecidedBy, Decision, Status
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.temporal import SequenceFilter
from effovpr_ros.remote.answers import Answers, GeoRecord, answer_record, read_answers, recognition_of
from effovpr_ros.remote.map_info import MapInfo
from effovpr_ros.remote.served_judge import ServedJudge

CONFIG = RecognizerConfig(sequence_length=10, same_place_ids=0, same_place_radius_m=0.5)
DATUM = Datum(GeoPoint(50.0, 8.0, 100.0))
INFO = MapInfo("city", "r1", "1", 100, 1, "map", (), GeoRecord(50.0, 8.0, 100.0), None, FINGERPRINT, "", False, 1, True)
NO_LOCALS = LocalFeatures(np.zeros((0, 4), np.int8), np.zeros((0, 2), np.uint8))


class NoMap:
    """Without places; knows where on the earth it is."""

    datum, fingerprint = DATUM, FINGERPRINT

    def require_model(self, fingerprint: object) -> None:
        pass

    def get_property(self, key: str) -> bytes | None:
        return None


class NoModel:
    fingerprint, device = FINGERPRINT, "cpu"


def place(x: int) -> Place:
    return Place(x, "drive", 1, f"{x}.jpg", Pose.from_yaw(float(x), 0.0, 0.5), None, (64, 48))


def alone(recognizer: PlaceRecognizer, truth: int, seed: int) -> Recognition:
    """The image at `truth`, which names that place, or at every fourth one by mistake another one."""
    rng = np.random.default_rng(seed)
    others = rng.choice(np.setdiff1d(np.arange(50), np.arange(truth - 3, truth + 4)), 9, replace=False).tolist()
    candidates = [Candidate(place(truth), 0.5, 9, 0, 9.0)]
    scores = [10.0 if truth % 4 == 3 else 1.0, *rng.uniform(0.0, 2.0, 8)]
    candidates += [Candidate(place(x), 0.5, 5, 0, float(score)) for x, score in zip(others, scores, strict=True)]
    view = rng.normal(size=16).astype(np.float32)
    features = Features(view / np.linalg.norm(view), NO_LOCALS, (23, 23))
    ranked = sorted(candidates, key=lambda item: -item.score)
    return recognizer.assemble(features, ranked, Decision(Status.AMBIGUOUS, 0.6, "as told"))


def over_http(recognition: Recognition) -> Recognition:
    answers = Answers("city", "r1", (answer_record(recognition, 100),))
    (record,) = read_answers(json.loads(json.dumps(asdict(answers))), "here").results
    return recognition_of(record, recognition.features, "here")


def test_a_drive_has_the_answers_of_a_map_on_this_machine():
    recognizer = PlaceRecognizer(NoModel(), NoMap(), CONFIG)  # type: ignore[arg-type]
    here, served = SequenceFilter(recognizer), SequenceFilter(ServedJudge(INFO, CONFIG))
    statuses = []
    for step in range(13):
        image = alone(recognizer, step, step)
        when = {"stamp_ns": (step + 1) * 10**9, "odometry": Pose.from_yaw(float(step), 0.0, 0.0)}
        mine, theirs = here.update(image, **when), served.update(over_http(image), **when)
        for name in ("status", "confidence", "reason", "decided_by", "calibrated", "pose", "geo"):
            assert getattr(theirs, name) == getattr(mine, name), (step, name)
        assert [item.place.place_id for item in theirs.candidates] == [item.place.place_id for item in mine.candidates]
        np.testing.assert_allclose(theirs.covariance, mine.covariance)
        statuses.append(mine.status)
    # Single images are mistaken now and then, the sequence is not.
    assert statuses[-1] is Status.MATCH
    assert theirs.candidates[0].place.place_id == 12
    assert theirs.decided_by is DecidedBy.SEQUENCE


def measured(recognition: Recognition) -> Recognition:
    pose, covariance = Pose.from_yaw(0.2, 0.1, 0.5), np.eye(6)
    known = PoseMeasurement(PoseOutcome.MEASURED, "by points", pose, covariance)
    return replace(recognition, pose=pose, covariance=covariance, measurement=known, status=Status.MATCH)


def test_what_was_measured_stays_with_the_place_that_it_was_measured_at():
    recognizer = PlaceRecognizer(NoModel(), NoMap(), CONFIG)  # type: ignore[arg-type]
    answer = measured(alone(recognizer, 3, 1))
    judge, decision = ServedJudge(INFO, CONFIG), Decision(Status.MATCH, 0.9, "", DecidedBy.SEQUENCE)
    assert judge.judged(answer, answer.candidates, decision).is_metric
    assert judge.judged(answer, answer.candidates, decision).pose == Pose.from_yaw(0.2, 0.1, 0.5)
    other = judge.judged(answer, answer.candidates[::-1], decision)
    last = answer.candidates[-1].place
    assert (other.pose, other.is_metric, other.measurement) == (last.pose, False, None)
    assert other.geo == DATUM.to_geo(last.pose.position_xyz)
    none = judge.judged(answer, answer.candidates, Decision(Status.NO_MATCH, 0.1, ""))
    assert (none.pose, none.covariance, none.geo, none.measurement) == (None, None, None, None)


def test_a_place_has_no_orientation_where_the_server_turned_its_own():
    recognizer = PlaceRecognizer(NoModel(), NoMap(), CONFIG)  # type: ignore[arg-type]
    answer = alone(recognizer, 3, 1)
    first, last = answer.candidates[0].place, answer.candidates[-1].place
    turned = replace(answer, pose=Pose.from_yaw(float(first.place_id), 0.0, 2.0))
    found = ServedJudge(INFO, CONFIG).judged(turned, answer.candidates[::-1], Decision(Status.AMBIGUOUS, 0.4, ""))
    assert found.pose == Pose((float(last.place_id), 0.0, 0.0), None)


def test_another_revision_and_a_map_without_order():
    recognizer = PlaceRecognizer(NoModel(), NoMap(), CONFIG)  # type: ignore[arg-type]
    sequence = SequenceFilter(ServedJudge(INFO, CONFIG))
    for step in range(4):
        answer = sequence.update(alone(recognizer, step, step), stamp_ns=(step + 1) * 10**9)
    assert "after 1.0 frames" not in answer.reason
    # Thresholds alone change nothing, another revision begins anew.
    sequence.use(ServedJudge(INFO, replace(CONFIG, sequence_match=0.99)))
    assert "after 1.0 frames" not in sequence.update(alone(recognizer, 4, 4), stamp_ns=5 * 10**9).reason
    sequence.use(ServedJudge(replace(INFO, revision="r2"), CONFIG))
    assert "after 1.0 frames" in sequence.update(alone(recognizer, 5, 5), stamp_ns=6 * 10**9).reason
    judge = ServedJudge(replace(INFO, in_order=False), replace(CONFIG, same_place_ids=3))
    assert judge.config.same_place_ids == 0
    image = alone(recognizer, 3, 3)
    unposed = tuple(replace(item, place=replace(item.place, pose=None)) for item in image.candidates)
    image = replace(image, candidates=unposed)
    assert SequenceFilter(judge).update(image) is image
    assert SequenceFilter(ServedJudge(INFO, CONFIG)).update(image) is not image
