"""Frames to places: spacing, resume, sessions, unreadable images, interruption."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synthetic import picture, tiny_extractor

from effovpr_ros.core.errors import ConfigError, ImageError, ModelMismatchError, SourceError
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.builder import BuildConfig, build_map, make_thumbnail
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.sources.frame import Frame


@pytest.fixture
def extractor(tmp_path: Path) -> FeatureExtractor:
    return tiny_extractor(tmp_path)


@pytest.fixture
def place_map(tmp_path: Path, extractor: FeatureExtractor) -> Iterator[PlaceMap]:
    with PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint) as created:
        yield created


def frame(number: int, pose: Pose | None = None, *, session: str = "a", unreadable: bool = False) -> Frame:
    def load() -> np.ndarray:
        if unreadable:
            raise ImageError(f"{number}.jpg cannot be decoded")
        return picture(number, 60 + number, 50)

    return Frame(f"{number}.jpg", session, number, pose, None, load)


def test_keyframes_by_distance_and_by_angle(place_map: PlaceMap, extractor: FeatureExtractor):
    yaws = [0, 0, 0, 0, 0, 40, 40]
    xs = [0.0, 0.4, 0.9, 1.0, 1.5, 1.6, 2.6]
    frames = [
        frame(i, Pose.from_yaw(x, 0.0, math.radians(yaw))) for i, (x, yaw) in enumerate(zip(xs, yaws, strict=True))
    ]
    report = build_map(place_map, extractor, frames, BuildConfig(spacing_m=1.0, spacing_deg=30.0))
    # 3 is 1 m from 0; 5 is turned by 40 degrees; 6 is 1 m from 5.
    assert [place.source for place in place_map.places()] == ["0.jpg", "3.jpg", "5.jpg", "6.jpg"]
    assert (report.added, report.skipped_spacing, report.interrupted) == (4, 3, False)
    again = build_map(place_map, extractor, frames, BuildConfig(spacing_m=1.0, spacing_deg=30.0))
    assert (again.added, again.already_present, again.skipped_spacing) == (0, 4, 3)


def test_frames_without_a_pose_are_all_kept(place_map: PlaceMap, extractor: FeatureExtractor):
    assert build_map(place_map, extractor, [frame(i) for i in range(3)], BuildConfig(spacing_m=5.0)).added == 3


def test_descriptors_do_not_depend_on_the_batch(place_map: PlaceMap, extractor: FeatureExtractor):
    build_map(place_map, extractor, [frame(i) for i in range(5)], BuildConfig(batch_size=2))
    for number in range(5):
        alone = extractor.extract([frame(number).load()])[0]
        assert float(place_map.global_descriptors()[number] @ alone.global_descriptor) > 0.9999
        np.testing.assert_array_equal(place_map.local_features([number])[0].cells_xy, alone.local.cells_xy)


def test_unreadable_images_are_skipped_and_named(place_map: PlaceMap, extractor: FeatureExtractor):
    done: list[int] = []
    frames = [frame(i, unreadable=i == 1) for i in range(4)]
    report = build_map(place_map, extractor, frames, BuildConfig(batch_size=2), done.append)
    assert report.added == 3
    assert report.unreadable == (("1.jpg", "1.jpg cannot be decoded"),)
    assert sum(done) == 4


def test_an_interrupted_build_keeps_what_is_finished_and_resumes(place_map: PlaceMap, extractor: FeatureExtractor):
    def interrupted() -> Iterator[Frame]:
        for number in range(10):
            if number == 7:
                raise KeyboardInterrupt
            yield frame(number)

    report = build_map(place_map, extractor, interrupted(), BuildConfig(batch_size=2))
    assert report.interrupted
    assert 4 <= report.added <= 7
    rest = build_map(place_map, extractor, [frame(i) for i in range(10)], BuildConfig(batch_size=2))
    assert rest.added == 10 - report.added
    assert rest.already_present == report.added
    assert sorted(int(place.source.removesuffix(".jpg")) for place in place_map.places()) == list(range(10))


def test_a_source_that_fails_midway_keeps_what_came_before(place_map: PlaceMap, extractor: FeatureExtractor):
    def failing() -> Iterator[Frame]:
        yield from (frame(i) for i in range(4))
        raise SourceError("bag is damaged")

    threads = threading.active_count()
    with pytest.raises(SourceError, match="bag is damaged"):
        build_map(place_map, extractor, failing(), BuildConfig(batch_size=2))
    assert len(place_map) == 4
    assert place_map.check() == []
    assert threading.active_count() == threads


def test_sessions_have_spacing_of_their_own(place_map: PlaceMap, extractor: FeatureExtractor):
    here = Pose.from_yaw(0.0, 0.0, 0.0)
    config = BuildConfig(spacing_m=1.0)
    build_map(place_map, extractor, [frame(0, here)], config)
    assert build_map(place_map, extractor, [frame(0, here, session="b")], config).added == 1
    assert place_map.sessions == ["a", "b"]


def test_another_model_is_refused(tmp_path: Path, place_map: PlaceMap):
    with pytest.raises(ModelMismatchError, match="image_size: 56 != 84"):
        build_map(place_map, tiny_extractor(tmp_path, image_size=84), [frame(0)], BuildConfig())


def test_thumbnails_shrink_and_never_grow():
    from effovpr_ros.core.images import decode_image

    assert decode_image(make_thumbnail(picture(1, 640, 480), 320), "x").shape == (240, 320, 3)
    assert decode_image(make_thumbnail(picture(1, 64, 48), 320), "x").shape == (48, 64, 3)


@pytest.mark.parametrize("bad", [{"spacing_m": -1.0}, {"spacing_deg": math.nan}, {"batch_size": 0}])
def test_impossible_settings_are_refused(bad: dict[str, float]):
    with pytest.raises(ConfigError):
        BuildConfig(**bad)  # type: ignore[arg-type]
