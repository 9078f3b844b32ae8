"""Candidates of maps with several sessions, worked by hand: none wins by its order, its size or its density."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import FINGERPRINT, features, new_place, tiny_extractor

from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.image_features import Features
from effovpr_ros.mapping.place import Candidate, NewPlace, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Status
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.retrieval import one_session_a_place, retrieve
from effovpr_ros.recognition.same_place import is_same_place

CONFIG = RecognizerConfig(top_k=4, same_place_radius_m=5.0)


def place(number: int, session: str, x: float | None = None, geo: GeoPoint | None = None, own_frame: str = "") -> Place:
    pose = None if x is None else Pose.from_yaw(x, 0.0, 0.0)
    return Place(number, session, 0, "", pose, geo, (1, 1), own_frame)


def kept(*places: Place) -> list[int]:
    ranked = [Candidate(item, 1.0 - 0.01 * rank) for rank, item in enumerate(places)]
    return [candidate.place.place_id for candidate in one_session_a_place(ranked, CONFIG)]


def test_the_most_similar_session_speaks_for_a_place():
    # Places 1 and 3 are within 5 m of place 0 of another session; place 2 is of its own; place 4 is elsewhere.
    ranked = [place(0, "a", 0.0), place(1, "b", 4.0), place(2, "a", 1.0), place(3, "b", -5.0), place(4, "b", 9.0)]
    assert kept(*ranked) == [0, 2, 4]
    # What was left out leaves nothing out itself: 4 is near 1 alone.
    assert kept(place(0, "a", 0.0), place(1, "b", 4.0), place(4, "c", 8.0)) == [0, 4]
    assert kept(place(0, "b", 4.0), place(1, "a", 0.0)) == [0]


def test_sessions_that_cannot_be_compared_all_stay():
    assert kept(place(0, "a", 0.0), place(1, "b"), place(2, "c", 0.0, own_frame="c/odom"), place(3, "d")) == [
        0,
        1,
        2,
        3,
    ]
    assert kept(place(0, "a", 0.0, own_frame="odom"), place(1, "b", 1.0, own_frame="odom")) == [0]


def test_one_session_is_left_as_it_is():
    assert kept(place(0, "a", 0.0), place(1, "a", 0.0), place(2, "a")) == [0, 1, 2]
    assert kept() == []


def test_the_rule_is_that_of_is_same_place():
    rng = np.random.default_rng(1)
    places = []
    for number in range(60):
        tag = GeoPoint(60.0 + rng.uniform(0, 2e-4), 10.0 + rng.uniform(0, 4e-4)) if rng.random() < 0.7 else None
        x = rng.uniform(0, 40) if rng.random() < 0.6 else None
        frame = "odom" if rng.random() < 0.3 else ""
        made = place(number, "abc"[rng.integers(3)], x, tag, frame)
        if x is not None:
            made = replace(made, pose=Pose((x, 0.0, rng.choice([None, 0.0, 20.0])), None))
        places.append(made)
    expected: list[Place] = []
    for item in places:
        others = [other for other in expected if other.session != item.session]
        if not any(is_same_place(other, item, CONFIG) for other in others):
            expected.append(item)
    assert 5 < len(expected) < 55
    assert kept(*places) == [item.place_id for item in expected]


def towards(angle_deg: float) -> Features:
    """Features whose cosine with those of another angle is that of the difference."""
    return features([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg)), 0.0, 0.0])


def at(x: float, session: str, angle_deg: float, number: int) -> NewPlace:
    return new_place(number, session=session, pose=Pose.from_yaw(x, 0.0, 0.0), features=towards(angle_deg))


@pytest.mark.parametrize("dense_first", [True, False])
def test_a_dense_session_does_not_crowd_out_the_rest(tmp_path: Path, dense_first: bool):
    """Forty places of one session and spot resemble the query more than the next spot does, which still is found."""
    dense = [at(0.1 * number, session, 10.0 + 0.1 * number, number) for number in range(20) for session in ("b", "c")]
    sparse = [at(0.0, "a", 2.0, 0), at(50.0, "a", 60.0, 50), at(90.0, "a", 70.0, 90)]
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        place_map.add([*dense, *sparse] if dense_first else [*sparse, *dense])
        found = retrieve(place_map, towards(0.0), CONFIG)
    assert [(item.place.session, item.place.pose.position_xyz[0]) for item in found if item.place.pose] == [
        ("a", 0.0),
        ("a", 50.0),
        ("a", 90.0),
    ]


def test_places_from_a_number_on_neither_answer_nor_leave_others_out(tmp_path: Path):
    """The place of session b looks most like the query, but it is too new, so that of a speaks for the spot."""
    places = [at(0.0, "a", 10.0, 0), at(50.0, "a", 60.0, 50), at(1.0, "b", 2.0, 1)]
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        place_map.add(places)
        assert [item.place.place_id for item in retrieve(place_map, towards(0.0), CONFIG)] == [2, 1]
        assert [item.place.place_id for item in retrieve(place_map, towards(0.0), CONFIG, before=2)] == [0, 1]


def test_sessions_that_cannot_be_compared_cost_one_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT) as place_map:
        place_map.set_session_frame("b", "b/odom")
        place_map.add(
            [at(float(number), session, 1.0 * number, number) for number in range(9) for session in ("a", "b")]
        )
        asked: list[int] = []

        def search(descriptor: np.ndarray, top_k: int, **options: object) -> list[Candidate]:
            asked.append(top_k)
            return PlaceMap.search(place_map, descriptor, top_k, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(place_map, "search", search)
        assert len(retrieve(place_map, towards(0.0), CONFIG)) == CONFIG.top_k
        assert asked == [CONFIG.top_k]


@pytest.mark.parametrize("swap", [True, False])
def test_the_session_that_looks_like_the_query_is_named(tmp_path: Path, swap: bool):
    """Winter has ten times more places, and either may come first: a summer query is answered by summer."""
    extractor = tiny_extractor(tmp_path)
    rng = np.random.default_rng(3)
    width = extractor.fingerprint.global_dim

    def like(direction: np.ndarray, share: float) -> Features:
        other = rng.normal(size=width)
        vector = share * direction / np.linalg.norm(direction) + (1.0 - share) * other / np.linalg.norm(other)
        local = made.local
        return Features((vector / np.linalg.norm(vector)).astype(np.float32), local, made.grid_wh)

    made = extractor.extract([np.zeros((56, 56, 3), np.uint8)])[0]
    spots = rng.normal(size=(5, width))
    summer = [
        new_place(20 * number, session="summer", pose=Pose.from_yaw(20.0 * number, 0, 0), features=like(spot, 0.9))
        for number, spot in enumerate(spots)
    ]
    winter = [
        new_place(
            200 * number + copy,
            session="winter",
            pose=Pose.from_yaw(20.0 * number + 0.1 * copy, 0, 0),
            features=like(spot, 0.7),
        )
        for number, spot in enumerate(spots)
        for copy in range(10)
    ]
    with PlaceMap.create(tmp_path / "m", fingerprint=extractor.fingerprint) as place_map:
        place_map.add([*winter, *summer] if swap else [*summer, *winter])
        recognizer = PlaceRecognizer(extractor, place_map, RecognizerConfig(rerank=False, match_confidence=0.1))
        answers = [recognizer.recognize_features(like(spot, 0.95)) for spot in spots]
    assert [answer.candidates[0].place.session for answer in answers] == ["summer"] * 5
    assert [answer.candidates[0].place.pose for answer in answers] == [item.pose for item in summer]
    assert all(answer.status is not Status.NO_MATCH for answer in answers)
