"""The third stage on a map of drawn scenes: what it verifies, what it costs, and what it does where it cannot."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from synthetic import FINGERPRINT, features, jpeg, new_place

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.engines.agreement import scene
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry import xfeat
from effovpr_ros.geometry.point_codec import encode_points
from effovpr_ros.geometry.points import SIFT, PointExtractor, Points, no_points
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.store import STORE_NAME
from effovpr_ros.recognition import third_stage as module
from effovpr_ros.recognition.decision import Decision, Status
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import (
    ThirdStage,
    candidates_to_verify,
    may_change_the_answer,
    point_extractor,
)

SIZE = (320, 240)
ALWAYS = RecognizerConfig(verify="on", score="count", verify_budget_ms=0.0)


@dataclass(frozen=True)
class SeesNumbers:
    """Stands for the network: the features of a picture are those that it is told."""

    features: Features
    fingerprint = FINGERPRINT
    device = "cpu"

    def extract(self, images: list[RgbImage]) -> list[Features]:
        return [self.features for _ in images]


def seen_again(number: int) -> RgbImage:
    """The scene of a place from nearby."""
    warp = np.array([[0.97, 0.02, 6.0], [-0.01, 1.0, 4.0]], np.float32)
    return cv2.warpAffine(scene(number, SIZE), warp, SIZE, borderMode=cv2.BORDER_REFLECT)


def make_map(folder: Path, count: int = 6, *, points: bool = True) -> Path:
    """Places 10 m apart, whose pictures are scenes."""
    with PlaceMap.create(folder, fingerprint=FINGERPRINT) as place_map:
        places = []
        for number in range(count):
            picture = scene(number, SIZE)
            stored = encode_points(point_extractor("cpu").extract(picture)) if points else None
            places.append(
                replace(
                    new_place(number, pose=Pose.from_yaw(10.0 * number, 0.0, 0.0)),
                    image_size_wh=SIZE,
                    thumbnail=jpeg(picture),
                    points=stored,
                )
            )
        place_map.add(places)
        place_map.flush()
    return folder


@pytest.fixture
def place_map(tmp_path: Path) -> Iterator[PlaceMap]:
    with PlaceMap.open(make_map(tmp_path / "map")) as opened:
        yield opened


def candidates(place_map: PlaceMap, scores: list[float] | None = None) -> list[Candidate]:
    """All places in their order, with like scores."""
    places = place_map.places()
    return [Candidate(place, 0.9, 10, 10, score) for place, score in zip(places, scores or [10.0] * 99, strict=False)]


def asked(image: RgbImage) -> Callable[[], Points]:
    return lambda: point_extractor("cpu").extract(image)


def test_counts_and_matches_of_each_candidate(place_map: PlaceMap):
    ranked, verified = ThirdStage(place_map, ALWAYS).verify(asked(seen_again(2)), candidates(place_map), 100)
    by_place = {item.place.place_id: item.points for item in ranked}
    assert all(counts is not None for counts in by_place.values())
    of_right = by_place[2]
    others = [counts.homography for number, counts in by_place.items() if number != 2]
    assert of_right.homography > 100
    assert of_right.homography > 10 * max(others)
    assert [item.place.place_id for item in ranked] == [item.place_id for item in verified.candidates]
    assert verified.query.image_size_wh == SIZE
    found = verified.of(2)
    assert found.matches.num_homography == of_right.homography
    assert found.points.image_size_wh == SIZE
    assert verified.of(99) is None


def test_without_stored_points_those_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A map of before has no table of points; pictures are looked at once."""
    folder = make_map(tmp_path / "map", points=False)
    connection = sqlite3.connect(folder / STORE_NAME)
    connection.execute("DROP TABLE points")
    connection.commit()
    connection.close()
    with PlaceMap.open(folder) as place_map:
        stage = ThirdStage(place_map, ALWAYS)
        ranked, _ = stage.verify(asked(seen_again(3)), candidates(place_map), 100)
        counts = {item.place.place_id: item.points.homography for item in ranked}
        assert max(counts, key=lambda number: counts[number]) == 3
        query = point_extractor("cpu").extract(seen_again(3))
        monkeypatch.setattr(PointExtractor, "extract", lambda *_: pytest.fail("a picture was looked at again"))
        again, _ = stage.verify(lambda: query, candidates(place_map), 100)
        assert [item.points for item in again] == [item.points for item in ranked]


def test_thumbnails_are_as_large_as_their_picture(tmp_path: Path):
    """Points of a thumbnail of half the size lie where those of the picture do."""
    small = cv2.resize(scene(0, (640, 480)), SIZE, interpolation=cv2.INTER_AREA)
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([replace(new_place(0), image_size_wh=(640, 480), thumbnail=jpeg(small))])
        _, verified = ThirdStage(place_map, ALWAYS).verify(asked(scene(0, (640, 480))), candidates(place_map), 100)
        matches = verified.candidates[0].matches
        apart = (matches.query_xy - matches.candidate_xy)[matches.on_homography]
        assert len(apart) > 50
        # Pixels of half the size are two wide.
        assert np.abs(np.median(apart, axis=0)).max() < 1.0


def test_points_of_another_kind_are_left_aside(tmp_path: Path):
    """A map with SIFT's points, made without kornia, asked where XFeat runs: its pictures serve."""
    picture = scene(1, SIZE)
    of_sift = encode_points(PointExtractor(kind=SIFT).extract(picture))
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([replace(new_place(0), image_size_wh=SIZE, thumbnail=jpeg(picture), points=of_sift)])
        ranked, verified = ThirdStage(place_map, ALWAYS).verify(asked(seen_again(1)), candidates(place_map), 100)
        assert verified.candidates[0].points.kind == verified.query.kind
        assert ranked[0].points.homography > 100


@pytest.mark.parametrize("blob", [b"", b"\x09\x00\x00\x00"])
def test_points_that_cannot_be_read_are_named_and_pictures_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, blob: bytes
):
    picture = scene(1, SIZE)
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([replace(new_place(0), image_size_wh=SIZE, thumbnail=jpeg(picture), points=blob)])
        ranked, _ = ThirdStage(place_map, ALWAYS).verify(asked(seen_again(1)), candidates(place_map), 100)
    assert ranked[0].points.homography > 100
    assert "its stored picture is used" in caplog.text


def test_a_place_without_a_picture_shares_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([replace(new_place(0), thumbnail=b""), replace(new_place(1), thumbnail=b"no picture")])
        ranked, _ = ThirdStage(place_map, ALWAYS).verify(asked(scene(1, SIZE)), candidates(place_map), 100)
    assert [item.points.matches for item in ranked] == [0, 0]
    assert "picture of place 1" in caplog.text


def test_an_empty_picture_changes_nothing(place_map: PlaceMap):
    before = candidates(place_map, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    for query in (np.full((240, 320, 3), 90, np.uint8), np.zeros((8, 8, 3), np.uint8)):
        ranked, _ = ThirdStage(place_map, ALWAYS).verify(asked(query), before, 100)
        assert [item.place for item in ranked] == [item.place for item in before]
        assert all((item.points.matches, item.points.homography) == (0, 0) for item in ranked)


def test_after_the_budget_no_further_candidates(place_map: PlaceMap, monkeypatch: pytest.MonkeyPatch):
    """A clock that moves 30 ms each time it is read: within 50 ms, the first five of six are verified."""
    clock = iter(np.arange(0.0, 10.0, 0.03).tolist())
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    stage = ThirdStage(place_map, replace(ALWAYS, verify_budget_ms=20.0))
    ranked, verified = stage.verify(asked(seen_again(0)), candidates(place_map), 100)
    assert len(verified.candidates) == 5
    assert ranked[5].points is None


def test_who_is_verified():
    """Ten of fifteen in their order, then five elsewhere than the first, further ones to fill up."""

    def place(number: int) -> Place:
        # Odd numbers are where place 0 is, even ones are not.
        return Place(number, "a", 0, "", Pose.from_yaw(0.0 if number % 2 else 100.0 * number, 0.0, 0.0), None, (1, 1))

    found = [Candidate(place(number), 0.9) for number in range(40)]
    chosen = candidates_to_verify(found, ALWAYS)
    assert [item.place.place_id for item in chosen] == [*range(10), 10, 12, 14, 16, 18]
    few = [item for item in found if item.place.place_id % 2 or item.place.place_id < 14]
    assert [item.place.place_id for item in candidates_to_verify(few, ALWAYS)] == [*range(10), 10, 12, 11, 13, 15]
    assert len(candidates_to_verify(found[:3], ALWAYS)) == 3
    assert candidates_to_verify([], ALWAYS) == []
    assert [c.place.place_id for c in candidates_to_verify(found, replace(ALWAYS, verify_top_k=1))] == [0]


def test_where_it_may_change_the_answer(place_map: PlaceMap):
    config, some = RecognizerConfig(min_similarity_global=0.5), candidates(place_map)
    unsure, sure = Decision(Status.MATCH, 0.9, ""), Decision(Status.MATCH, 0.99, "")
    assert may_change_the_answer(some, unsure, config)
    assert not may_change_the_answer(some, sure, config)
    assert may_change_the_answer(some, Decision(Status.AMBIGUOUS, 0.4, ""), config)
    assert may_change_the_answer(some, Decision(Status.NO_MATCH, 0.05, ""), config)
    assert not may_change_the_answer([], Decision(Status.NO_MATCH, 0.0, ""), config)
    # Nothing can be said where the global similarity rules every answer out.
    strict = RecognizerConfig(min_similarity_global=0.95)
    assert not may_change_the_answer(some, Decision(Status.NO_MATCH, 0.0, ""), strict)


def test_the_pipeline_carries_what_was_verified(place_map: PlaceMap):
    extractor = SeesNumbers(new_place(2).features)
    found = PlaceRecognizer(extractor, place_map, ALWAYS).recognize(seen_again(2))
    assert found.candidates[0].place.place_id == 2
    assert found.candidates[0].points.homography > 100
    assert found.verified.candidates[0].place_id == 2
    assert found.latency_ms.verify > 0.0
    assert found.latency_ms.total >= found.latency_ms.verify + found.latency_ms.rerank
    without = PlaceRecognizer(extractor, place_map, replace(ALWAYS, verify="off")).recognize(seen_again(2))
    assert without.verified is None
    assert without.latency_ms.verify == 0.0
    assert without.candidates[0].points is None


def test_after_a_verified_image_points_are_sought_while_candidates_are_ranked(
    place_map: PlaceMap, monkeypatch: pytest.MonkeyPatch
):
    """The first image waits for its points; those of the next are being found by another thread already."""
    two_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        recognizer = PlaceRecognizer(SeesNumbers(new_place(2).features), place_map, ALWAYS)
        threads: list[int] = []
        extract = PointExtractor.extract

        def seen(self: PointExtractor, image: RgbImage) -> Points:
            threads.append(threading.get_ident())
            return extract(self, image)

        monkeypatch.setattr(PointExtractor, "extract", seen)
        answers = [recognizer.recognize(seen_again(2)) for _ in range(2)]
    finally:
        torch.set_num_threads(two_threads)
    assert threads[0] == threading.get_ident()
    assert threads[1] != threading.get_ident()
    assert len(threads) == 2
    assert answers[0].candidates == answers[1].candidates
    assert answers[0].confidence == answers[1].confidence


def test_features_without_a_picture_are_answered_by_two_stages(place_map: PlaceMap):
    recognizer = PlaceRecognizer(SeesNumbers(features([1, 0, 0, 0])), place_map, ALWAYS)
    assert recognizer.recognize_features(new_place(1).features).verified is None


def test_weights_that_cannot_be_used_leave_two_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    other = tmp_path / "xfeat.pt"
    torch.save({}, other)
    monkeypatch.setattr(xfeat, "_weights_path", lambda: other)
    monkeypatch.setattr(module, "point_extractor", lambda device: PointExtractor())
    with PlaceMap.open(make_map(tmp_path / "map", points=False)) as place_map:
        recognizer = PlaceRecognizer(SeesNumbers(new_place(2).features), place_map, ALWAYS)
        caplog.set_level(logging.ERROR)
        for _ in range(3):
            found = recognizer.recognize(seen_again(2))
            assert found.verified is None
            assert found.candidates[0].place.place_id == 2
    # Once, not at every image.
    assert len([record for record in caplog.records if "candidates are not verified" in record.message]) == 1


def test_an_empty_map_has_nothing_to_verify(tmp_path: Path):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        found = PlaceRecognizer(SeesNumbers(features([1, 0, 0, 0])), place_map, ALWAYS).recognize(scene(0, SIZE))
        assert (found.status, found.verified) == (Status.NO_MATCH, None)
        ranked, verified = ThirdStage(place_map, ALWAYS).verify(lambda: no_points("xfeat", SIZE), [], 0)
        assert (ranked, verified.candidates) == ([], ())


def test_settings_out_of_range_are_refused():
    for wrong in ({"verify": "sometimes"}, {"verify_top_k": 0}, {"verify_budget_ms": -1.0}):
        with pytest.raises(ConfigError):
            RecognizerConfig(**wrong)
