"""VLAD and ORB with a bag of words: worked by hand, then on pictures that are in the map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from synthetic import FINGERPRINT, features, jpeg, new_place

from effovpr_ros.cli.evaluate_methods import BASELINES, parse_methods
from effovpr_ros.core.errors import ConfigError, EvaluationError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.codes import encode
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.lab.evaluation import orb_bow, vlad
from effovpr_ros.lab.evaluation.method import Query
from effovpr_ros.lab.evaluation.orb_bow import OrbBowMethod
from effovpr_ros.lab.evaluation.vlad import VladMethod
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.presets import PRESETS
from effovpr_ros.sources.frame import Frame

PLACES = 4


def test_vlad_worked_by_hand():
    words = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    descriptors = np.array([[0.8, 0.6], [0.96, 0.28], [0.6, 0.8]], np.float32)
    # Residuals: (-0.2, 0.6) + (-0.04, 0.28) to the first word, (0.6, -0.2) to the second.
    first, second = np.array([-0.24, 0.88]), np.array([0.6, -0.2])
    wanted = np.concatenate([first / np.hypot(*first), second / np.hypot(*second)]) / np.sqrt(2.0)
    np.testing.assert_allclose(vlad.vlad(descriptors, words), wanted, rtol=1e-6)
    # Only the first word is used; then no descriptor at all; then a descriptor that is a word.
    np.testing.assert_allclose(vlad.vlad(descriptors[:1], words), np.array([-1, 3, 0, 0]) / np.sqrt(10), rtol=1e-6)
    assert vlad.vlad(np.empty((0, 2), np.float32), words).tolist() == [0.0] * 4
    assert vlad.vlad(words[:1], words).tolist() == [0.0] * 4


def test_words_of_vlad_are_the_centres_of_clusters():
    rng = np.random.default_rng(0)
    centres = np.eye(3, dtype=np.float32)
    descriptors = np.repeat(centres, 20, axis=0) + rng.normal(0.0, 0.01, (60, 3)).astype(np.float32)
    words = vlad.learn_words(descriptors, 3)
    np.testing.assert_allclose(words[np.argsort(words.argmax(axis=1))], centres, atol=0.02)
    assert np.array_equal(words, vlad.learn_words(descriptors, 3))
    with pytest.raises(EvaluationError, match="60 local descriptors, too few for 61 words"):
        vlad.learn_words(descriptors, 61)


def test_weights_and_score_worked_by_hand():
    # Word 0 is in all three images, word 1 in two, word 2 in one, word 3 in none.
    counts = sparse.csr_array(np.array([[2.0, 1.0, 1.0, 0.0], [1.0, 3.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0]]))
    idf = orb_bow.inverse_document_frequency(counts)
    np.testing.assert_allclose(idf, [0.0, np.log(3 / 2), np.log(3), 0.0])
    places = orb_bow.weigh(counts, idf)
    total = np.log(3 / 2) + np.log(3)
    wanted = [[0.0, np.log(3 / 2) / total, np.log(3) / total, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(places.toarray(), wanted)
    assert places.nnz == 3
    # Weighted and scaled: 1/4 and 3/4.
    query = sparse.csr_array(np.array([[0.0, 0.25, 0.75, 0.0]]))
    scores = orb_bow.l1_scores(query, places.tocsc())
    by_definition = [1.0 - 0.5 * np.abs(query.toarray()[0] - row).sum() for row in np.array(wanted[:2])]
    np.testing.assert_allclose(scores, [*by_definition, 0.0])
    assert scores[1] == pytest.approx(0.25)


def test_binary_words_are_the_majority_of_their_members():
    # Two groups far apart: bits of 0b1111_0000 and of 0b0000_1111, each with one bit turned in one member of three.
    descriptors = np.array([[0xF0], [0xF0], [0xF1], [0x0F], [0x0F], [0x8F]], np.uint8)
    words = orb_bow.learn_words(descriptors, 2)
    assert sorted(words[:, 0].tolist()) == [0x0F, 0xF0]
    assert len(orb_bow.learn_words(descriptors, 9)) == 4
    # Distances of 0b1110_0000 to the words 0x0F and 0xF0: 7 and 1.
    words = np.array([[0x0F], [0xF0]], np.uint8)
    query = np.array([[0xE0], [0x0F], [0xF0]], np.uint8)
    assert orb_bow.nearest_words(query, words).tolist() == [1, 0, 1]
    assert orb_bow.histogram(query, words).toarray().tolist() == [[1.0, 2.0]]
    assert orb_bow.histogram(query[:0], words).toarray().tolist() == [[0.0, 0.0]]
    with pytest.raises(EvaluationError, match="no image of the map has an ORB feature"):
        orb_bow.learn_words(descriptors[:0], 2)


def blocks(seed: int) -> RgbImage:
    """A picture with corners, which ORB needs; each seed looks unlike any other."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (320, 240), interpolation=cv2.INTER_NEAREST), np.uint8)


def local(seed: int) -> Features:
    """Features whose twelve local descriptors are of one place."""
    facets = np.random.default_rng(seed).normal(size=(12, 4)).astype(np.float32)
    cells = np.stack([np.arange(12) % 4, np.arange(12) // 4], axis=1).astype(np.uint8)
    return replace(features([1, 0, 0, 0]), local=LocalFeatures(encode(facets), cells), grid_wh=(4, 3))


@pytest.fixture
def place_map(tmp_path: Path) -> Iterator[PlaceMap]:
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as made:
        made.add([replace(new_place(n, features=local(n)), thumbnail=jpeg(blocks(n))) for n in range(PLACES)])
        yield made


def query(number: int, *, image: RgbImage | None = None, allowed: range | None = None) -> Query:
    frame = Frame(f"{number}.png", "a", 0, None, None, lambda: blocks(number) if image is None else image)
    return Query(frame, local(number), 7.0, allowed)


@pytest.mark.parametrize(
    "make", [lambda m: VladMethod(m, 3, num_words=4), lambda m: OrbBowMethod(m, 3)], ids=["vlad", "orb-bow"]
)
def test_a_place_is_found_by_its_own_image(place_map: PlaceMap, make: Callable[[PlaceMap], VladMethod | OrbBowMethod]):
    method = make(place_map)
    assert not method.calibrated
    for number in range(PLACES):
        answer = method.answer(query(number))
        assert answer.ranked[0] == number
        assert len(answer.ranked) <= 3
        # The thumbnails are JPEG, which turns some bits of ORB; local descriptors are stored as they are.
        assert answer.confidence == pytest.approx(1.0, abs=1e-6 if isinstance(method, VladMethod) else 0.3)
        assert answer.status is None
        assert answer.latency_ms.total == answer.latency_ms.extract + answer.latency_ms.search
        # Where its own place is not allowed, another answers with less confidence.
        other = method.answer(query(number, allowed=range(number)))
        assert number not in other.ranked
        assert set(other.ranked) <= set(range(number))
        assert other.confidence < answer.confidence
    assert method.answer(query(0, allowed=range(0))).ranked == []


def test_what_the_methods_count(place_map: PlaceMap):
    assert VladMethod(place_map, 3, num_words=4).bytes_per_place == 4 * 4 * 4
    assert VladMethod(place_map, 3, num_words=4).answer(query(1)).latency_ms.extract > 7.0
    bag = OrbBowMethod(place_map, 3)
    orb = cv2.ORB.create(nfeatures=1000)
    thumbnails = [cv2.imdecode(np.frombuffer(place_map.thumbnail(n), np.uint8), 0) for n in range(PLACES)]
    described = [set(map(bytes, orb.detectAndCompute(image, None)[1])) for image in thumbnails]
    # Fewer features than words: each distinct feature is a word, and counts unless all images have it.
    assert sum(map(len, described)) < orb_bow.NUM_WORDS
    everywhere = set.intersection(*described)
    assert bag.bytes_per_place == 8 * np.mean([len(found - everywhere) for found in described])


def test_a_larger_query_is_seen_at_the_scale_of_the_thumbnails(place_map: PlaceMap):
    bag = OrbBowMethod(place_map, 3)
    twice = np.asarray(cv2.resize(blocks(2), (640, 480), interpolation=cv2.INTER_NEAREST), np.uint8)
    assert bag.answer(query(2, image=twice)).confidence == pytest.approx(bag.answer(query(2)).confidence)


def test_a_blank_query_has_no_answer(place_map: PlaceMap):
    blank: NDArray[np.uint8] = np.zeros((240, 320, 3), np.uint8)
    answer = OrbBowMethod(place_map, 3).answer(query(0, image=blank))
    assert (answer.ranked, answer.confidence) == ([], 0.0)
    no_keypoints = replace(query(0), features=features([1, 0, 0, 0], cells=()))
    assert VladMethod(place_map, 3, num_words=4).answer(no_keypoints).confidence == 0.5


def test_baselines_are_named_among_the_methods():
    methods = parse_methods(["effovpr", "vlad", "orb-bow"], PRESETS["default"][1])
    assert [methods["vlad"], methods["orb-bow"]] == list(BASELINES.values())
    with pytest.raises(ConfigError, match="vlad has no settings"):
        parse_methods(["vlad:top_k=3"], PRESETS["default"][1])
    with pytest.raises(ConfigError, match="'vlad' comes twice"):
        parse_methods(["vlad", "vlad"], PRESETS["default"][1])
