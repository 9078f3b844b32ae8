"""The picture of an answer: verified points where the third stage looked, else patches."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import features, jpeg, picture

from effovpr_ros.geometry.points import Points
from effovpr_ros.geometry.verified_matches import VerifiedMatches
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.answer_picture import draw_answer
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.drawing import WIDTH_PX, draw_points
from effovpr_ros.recognition.latency import Latency
from effovpr_ros.recognition.third_stage import Verified, VerifiedCandidate

IMAGE = picture(3)


def test_verified_points_are_drawn_where_there_are_some():
    """Two of three points agree: what is drawn is those two, and the patches are not asked for."""
    points = Points(
        "xfeat", np.array([[10.0, 10.0], [50.0, 40.0], [70.0, 20.0]], np.float32), np.zeros((3, 64), np.int8), (96, 72)
    )
    index = np.arange(3)
    matches = VerifiedMatches(index, index, points.keypoints_xy, points.keypoints_xy, np.ones(3), index < 2)
    candidate = Candidate(Place(1, "s", 0, "1.jpg", None, None, (96, 72)), 0.9)
    latency = Latency(0.0, 0.0, 0.0, 0.0, 0.0)
    found = Recognition(
        Status.MATCH, 0.9, (candidate,), None, None, None, 0.0, latency, "why", features([1.0] * 4),
        verified=Verified(points, (VerifiedCandidate(1, points, matches),)),
    )  # fmt: skip
    asked = []

    def matched_cells(*_: object) -> tuple[np.ndarray, np.ndarray]:
        asked.append(1)
        return np.empty((0, 2), np.uint8), np.empty((0, 2), np.uint8)

    stored = jpeg(picture(3))
    recognizer = SimpleNamespace(place_map=SimpleNamespace(thumbnail=lambda _: stored), matched_cells=matched_cells)
    drawn = draw_answer(recognizer, IMAGE, found)
    assert asked == []
    assert drawn.shape[1] == WIDTH_PX
    # By hand: (10.5, 10.5) and (50.5, 40.5) of 96 x 72 pixels.
    parts = np.array([[10.5 / 96, 10.5 / 72], [50.5 / 96, 40.5 / 72]])
    wanted = draw_points(IMAGE, IMAGE, parts, parts)
    pair = drawn[-len(wanted) :]
    assert np.abs(pair[:, : WIDTH_PX // 2].astype(int) - wanted[:, : WIDTH_PX // 2]).max() == 0
    elsewhere = replace(found, verified=Verified(points, ()))
    assert (draw_answer(recognizer, IMAGE, elsewhere) != drawn).any()
    assert asked == [1]


def test_an_answer_without_a_candidate_is_no_picture():
    latency = Latency(0.0, 0.0, 0.0, 0.0, 0.0)
    none = Recognition(Status.NO_MATCH, 0.0, (), None, None, None, 0.0, latency, "no place", features([1.0] * 4))
    with pytest.raises(Exception, match="cannot be drawn"):
        draw_answer(SimpleNamespace(), IMAGE, none)
