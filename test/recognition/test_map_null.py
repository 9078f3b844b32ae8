"""What wrong answers of a map reach, asked of maps of rendered patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic import tiny_extractor

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.confidence import read_map_null, setting_name
from effovpr_ros.recognition.evidence import USUAL_LEADS
from effovpr_ros.recognition.map_null import keep_map_null, measure_map_null, typical_spacing_m
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.sources.frame import Frame

CONFIG = RecognizerConfig(verify="off")


def picture(number: int) -> RgbImage:
    rng = np.random.default_rng(number)
    return np.asarray(np.kron(rng.integers(0, 255, (6, 6, 3)), np.ones((16, 16, 1))), np.uint8)


def make_map(folder: Path, extractor: FeatureExtractor, shown: list[int]) -> PlaceMap:
    """Places 100 m apart that show pictures by number."""
    place_map = PlaceMap.create(folder, fingerprint=extractor.fingerprint)
    frames = [
        Frame(
            f"{n}.png", "drive", n + 1, Pose.from_yaw(100.0 * n, 0.0, 0.0), None, lambda number=number: picture(number)
        )
        for n, number in enumerate(shown)
    ]
    build_map(place_map, extractor, frames, BuildConfig())
    return place_map


@pytest.fixture
def extractor(tmp_path: Path) -> FeatureExtractor:
    return tiny_extractor(tmp_path)


def test_places_that_look_alike_raise_it(tmp_path: Path, extractor: FeatureExtractor):
    with (
        make_map(tmp_path / "unlike", extractor, list(range(20))) as unlike,
        make_map(tmp_path / "alike", extractor, [n // 2 for n in range(20)]) as alike,
    ):
        plain, twins = (measure_map_null(extractor, item, CONFIG) for item in (unlike, alike))
        assert plain is not None and twins is not None
        assert (plain.num_places, plain.num_asked, plain.spacing_m) == (20, 20, 100.0)
        # Hidden, a place is answered with its twin, which is far above all others; a third of the leads is the usual.
        assert twins.leads.score_over_typical > plain.leads.score_over_typical + 0.1
        assert twins.leads.score_over_rival > plain.leads.score_over_rival + 0.1
        # Points were not looked at.
        assert (plain.leads.over_typical, plain.leads.over_rival) == (USUAL_LEADS.over_typical, USUAL_LEADS.over_rival)


def test_the_spacing_is_that_to_the_nearest_place_of_the_session():
    def place(number: int, session: str, x: float | None) -> Place:
        pose = None if x is None else Pose.from_yaw(x, 0.0, 0.0)
        return Place(number, session, number, f"{number}.png", pose, None, (640, 480))

    # 0, 3, 10 in one session: 3, 3 and 7 m; the other session's place at 1 m is no neighbour.
    places = [place(n, "a", x) for n, x in enumerate((0.0, 3.0, 10.0))]
    assert typical_spacing_m(places) == 3.0
    assert typical_spacing_m([*places, place(3, "b", 1.0)]) == 3.0
    assert typical_spacing_m([place(0, "a", 0.0), place(1, "b", 5.0)]) is None
    assert typical_spacing_m([place(0, "a", None), place(1, "a", None)]) is None


def test_a_small_map_says_nothing_and_a_large_one_is_asked_once(tmp_path: Path, extractor: FeatureExtractor):
    with make_map(tmp_path / "small", extractor, list(range(9))) as small:
        assert measure_map_null(extractor, small, CONFIG) is None
    with make_map(tmp_path / "map", extractor, list(range(12))) as place_map:
        assert measure_map_null(extractor, place_map, RecognizerConfig(rerank=False)) is None
        kept = keep_map_null(extractor, place_map, CONFIG)
        assert kept is not None
        setting = setting_name(place_map.fingerprint, CONFIG)
        assert read_map_null(place_map, setting) == kept == keep_map_null(extractor, place_map, CONFIG)
        assert PlaceRecognizer(extractor, place_map, CONFIG).null == kept
        assert PlaceRecognizer(extractor, place_map, RecognizerConfig(score="count")).null is None


def test_an_order_shows_in_places_that_follow_each_other(tmp_path: Path, extractor: FeatureExtractor):
    # Fours that look alike follow each other, or stand eight apart.
    with (
        make_map(tmp_path / "drive", extractor, [n // 4 for n in range(32)]) as drive,
        make_map(tmp_path / "mixed", extractor, [n % 8 for n in range(32)]) as mixed,
    ):
        in_order, without = (measure_map_null(extractor, item, CONFIG) for item in (drive, mixed))
        assert in_order is not None and in_order.in_order
        assert without is not None and not without.in_order
        assert PlaceRecognizer(extractor, mixed, CONFIG, null=without).config.same_place_ids == 0
