"""Answers and queries as they are written down, and what is no such thing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from synthetic import FINGERPRINT, features

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import ConfigError, ModelMismatchError, ServerError
from effovpr_ros.core.mounted_cameras import MountedCamera, parse_pose
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.core.records import read_record
from effovpr_ros.geometry.measured_pose import PoseMeasurement, PoseOutcome
from effovpr_ros.geometry.points import Points
from effovpr_ros.mapping.place import Candidate, Place, PointCounts
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.latency import Latency
from effovpr_ros.remote.answers import Answers, answer_record, read_answers, recognition_of
from effovpr_ros.remote.queries import (
    CameraParameters,
    FeatureQuery,
    camera_parameters,
    decode_query,
    encode_query,
)
from effovpr_ros.remote.tokens import read_tokens

QUERY = features((1.0, 0.5, 0.25, 0.125))
POINTS = Points("xfeat", np.array([[3.0, 4.0], [10.5, 20.0]], np.float32), np.full((2, 64), 25, np.int8), (96, 72))


def recognition(**changed: object) -> Recognition:
    place = Place(7, "drive", 70, "7.jpg", Pose((1.0, 2.0, None), None), GeoPoint(50.0, 8.0), (96, 72))
    known = Pose((1.5, 2.5, 0.25), (0.0, 0.0, 0.0, 1.0))
    candidates = (
        Candidate(place, 0.9, 20, 15, 17.5, points=PointCounts(40, 30, 500)),
        Candidate(replace(place, place_id=8, pose=None, geo=None), 0.5),
    )
    measured = PoseMeasurement(PoseOutcome.MEASURED, "30 points", known, np.eye(6))
    values = (Status.MATCH, 0.95, candidates, known, np.eye(6), GeoPoint(50.1, 8.1, 100.0), 0.1)
    answer = Recognition(
        *values, Latency(1.0, 2.0, 3.0, 4.0, 10.0), "why", QUERY, calibrated=True, measurement=measured
    )
    return replace(answer, **changed)


def written(answer: Recognition) -> Answers:
    """Through JSON and back."""
    answers = Answers("house", "1", (answer_record(answer, 10),))
    return read_answers(json.loads(json.dumps(asdict(answers))), "server")


def test_an_answer_is_the_same_after_json():
    answer = recognition()
    (record,) = written(answer).results
    again = recognition_of(record, QUERY, "server")
    assert (again.candidates, again.pose, again.geo) == (answer.candidates, answer.pose, answer.geo)
    assert (again.status, again.confidence, again.calibrated) == (Status.MATCH, 0.95, True)
    assert (again.is_metric, again.measurement.reason, again.bearing_offset) == (True, "30 points", 0.1)
    assert again.covariance.tolist() == np.eye(6).tolist()
    assert again.latency_ms == answer.latency_ms


def test_what_is_unknown_stays_unknown():
    answer = recognition(status=Status.NO_MATCH, pose=None, covariance=None, geo=None, measurement=None)
    (record,) = written(answer).results
    assert (record.pose, record.geo, record.measured, record.is_metric) == (None, None, None, False)
    again = recognition_of(record, QUERY, "server")
    assert (again.pose, again.geo, again.measurement, again.status) == (None, None, None, Status.NO_MATCH)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"status": "SURE"}, "status 'SURE' is unknown"),
        ({"confidence": "high"}, "confidence of results of an answer is 'high', not a number"),
        ({"confidence": float("nan")}, "not a finite number"),
        ({"is_metric": 1}, "is_metric of results of an answer is 1, not true or false"),
        ({"pose": {"position_xyz": [0, 0], "quat_xyzw": None, "covariance": []}}, "not a list of 3"),
        ({"pose": {"position_xyz": [0, 0, 0], "quat_xyzw": None, "covariance": []}}, "is none of a pose"),
        ({"candidates": None}, "not a list"),
    ],
)
def test_an_answer_that_cannot_be_meant_is_refused(changed: dict[str, object], said: str):
    values = json.loads(json.dumps(asdict(Answers("house", "1", (answer_record(recognition(), 10),)))))
    values["results"][0] |= changed
    with pytest.raises(ServerError, match=said):
        recognition_of(read_answers(values, "server").results[0], QUERY, "server")


def test_a_newer_writer_may_add_fields():
    @dataclass(frozen=True)
    class Small:
        a: int
        b: tuple[float, ...] = ()

    assert read_record(Small, {"a": 1, "b": [1, 2.5], "c": "new"}, "it") == Small(1, (1.0, 2.5))
    with pytest.raises(ConfigError, match="it lacks 'a'"):
        read_record(Small, {}, "it")


@pytest.mark.parametrize("points", [POINTS, None])
def test_features_are_the_same_after_encoding(points: Points | None):
    again = decode_query(encode_query(FeatureQuery(QUERY, (96, 72), points), FINGERPRINT), FINGERPRINT)
    assert again.features.global_descriptor == pytest.approx(QUERY.global_descriptor, abs=1e-3)
    assert (again.features.local.codes == QUERY.local.codes).all()
    assert (again.features.local.cells_xy == QUERY.local.cells_xy).all()
    assert (again.features.grid_wh, again.image_size_wh) == ((2, 2), (96, 72))
    if points is None:
        assert again.points is None
    else:
        assert again.points is not None
        assert again.points.keypoints_xy == pytest.approx(points.keypoints_xy, abs=0.01)


def test_features_of_another_model_are_refused_with_what_differs():
    data = encode_query(FeatureQuery(QUERY, (96, 72)), replace(FINGERPRINT, weights_sha256="1" * 64))
    with pytest.raises(ModelMismatchError, match=r"weights_sha256: 000.* != 111"):
        decode_query(data, FINGERPRINT)


def header(**changed: object) -> bytes:
    data = encode_query(FeatureQuery(QUERY, (96, 72)), FINGERPRINT)
    length = int.from_bytes(data[4:8], "little")
    text = json.dumps({**json.loads(data[8 : 8 + length]), **changed}).encode()
    return b"EVQ1" + len(text).to_bytes(4, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "begin with EVQ1"),
        (b"EVQ1\xff\xff\xff\xff{}", "more than there are or may be"),
        (b"EVQ1\x02\0\0\0{]", "no JSON"),
        (b"EVQ1\x02\0\0\0[]", "no table"),
        (b"EVQ1\x02\0\0\0{}", "do not name their model"),
        (header(grid_wh=[0, 2]), "grid_wh"),
        (header(grid_wh=[500, 2]), "grid_wh"),
        (header(image_size_wh=[-1, 2]), "image_size_wh"),
        (header(bytes={"descriptor": 8, "codes": 4, "cells": 1, "points": 9}), "which says"),
        (header(bytes={"descriptor": 9, "codes": 3, "cells": 1, "points": 0}), "does not have 4 dimensions"),
        (header(bytes={"descriptor": 8, "codes": 5, "cells": 0, "points": 0}), "whole number"),
        (header() + b"x", "which says"),
        (header().replace(b"\xf1\x3a", b"\x00\x7c", 1), "not finite numbers"),
    ],
)
def test_damaged_features_are_refused(data: bytes, said: str):
    with pytest.raises(ConfigError, match=said):
        decode_query(data, FINGERPRINT)


def test_a_camera_is_the_same_after_the_url():
    model = CameraModel((640, 480), (500.0, 501.5), (319.5, 239.5), "equidistant", (0.1, -0.02, 0.003, 0.0))
    mounted = MountedCamera(model, parse_pose("0.1 0 0.5 -1.5708 0 -1.5708"), is_guess=True)
    given = camera_parameters(mounted)
    numbers = {name: float(given.pop(name)) for name in ("fx", "fy", "cx", "cy")}
    again = CameraParameters(**numbers, **{**given, "camera_is_guess": given["camera_is_guess"] == "true"}).camera(
        (320, 240)
    )
    assert again is not None
    assert (again.camera, again.is_guess) == (model, True)
    assert again.body_from_camera.quat_xyzw == pytest.approx(mounted.body_from_camera.quat_xyzw, abs=1e-6)
    assert CameraParameters(9.0, 9.0, 1.0, 1.0).camera((320, 240)).camera.image_size_wh == (320, 240)


def test_tokens_come_from_a_file_or_the_environment(tmp_path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "tokens"
    file.write_text("# of the first robot\n0123456789abcdef\n\n  fedcba9876543210  \n")
    assert read_tokens(str(file), "--token-file") == ["0123456789abcdef", "fedcba9876543210"]
    monkeypatch.setenv("EFFOVPR_TOKEN", "abc")
    assert read_tokens("", "--token-file") == ["abc"]
    file.write_text("# none\n")
    with pytest.raises(ConfigError, match=r"--token-file .*tokens holds no token"):
        read_tokens(str(file), "--token-file")
    with pytest.raises(ConfigError, match="No such file"):
        read_tokens(str(tmp_path / "none"), "--token-file")
