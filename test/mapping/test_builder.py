"""Frames to places: spacing, resume, sessions, unreadable images, interruption."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import picture, tiny_extractor

from effovpr_ros.core.errors import ConfigError, ImageError, ModelMismatchError, SourceError
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map, make_thumbnail
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.images import open_image_folder


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


def test_another_folder_of_the_same_name_loses_nothing(
    place_map: PlaceMap, extractor: FeatureExtractor, tmp_path: Path
):
    """Two cameras' folders are both called `images`, and their pictures `0.png` to `2.png`."""
    for run, seeds in (("monday", range(3)), ("tuesday", range(10, 13))):
        (tmp_path / run / "images").mkdir(parents=True)
        for number, seed in enumerate(seeds):
            Image.fromarray(picture(seed)).save(tmp_path / run / "images" / f"{number}.png")
    counts = []
    for run in ("monday", "tuesday", "monday", "tuesday"):
        report = build_map(
            place_map, extractor, open_image_folder(tmp_path / run / "images").frames, BuildConfig(batch_size=2)
        )
        counts.append((report.added, report.already_present))
    assert counts == [(3, 0), (3, 0), (0, 3), (0, 3)]
    # The same pictures at another path are the same pictures.
    (tmp_path / "monday").rename(tmp_path / "moved")
    moved = build_map(place_map, extractor, open_image_folder(tmp_path / "moved" / "images").frames, BuildConfig())
    assert (moved.added, moved.already_present) == (0, 3)
    assert place_map.check() == []


def write_images_bag(path: Path, seeds: Sequence[int], stamps_ns: Sequence[int]) -> Path:
    with BagWriter(path) as writer:
        for seed, stamp_ns in zip(seeds, stamps_ns, strict=True):
            writer.write_image("/camera", stamp_ns, picture(seed), "camera")
        writer.write_odometry("/odom", min(stamps_ns), Pose.from_yaw(0, 0, 0), frame_id="odom", child_frame_id="base")
        writer.write_odometry("/odom", 10**9, Pose.from_yaw(9, 0, 0), frame_id="odom", child_frame_id="base")
    return path


def test_a_simulator_that_starts_at_0_s_again_and_a_camera_of_constant_stamps(
    place_map: PlaceMap, extractor: FeatureExtractor, tmp_path: Path
):
    second = 10**8
    bags = [
        write_images_bag(tmp_path / "one" / "drive", (0, 1, 2), (0, second, 2 * second)),
        write_images_bag(tmp_path / "two" / "drive", (3, 4, 5), (0, second, 2 * second)),
        # The last two pictures are the same: the robot stands.
        write_images_bag(tmp_path / "constant", (6, 7, 8, 8), (second,) * 4),
    ]
    reports = []
    for bag in (*bags, *bags):
        source = BagSource(bag, max_gap_s=2.0)
        reports.append(build_map(place_map, extractor, source.frames(), BuildConfig()))
    assert [(report.added, report.already_present) for report in reports] == [
        (3, 0),
        (3, 0),
        (4, 0),
        (0, 3),
        (0, 3),
        (0, 4),
    ]


def test_maps_of_before_go_on_by_name_and_say_so(
    tmp_path: Path, extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    with PlaceMap.create(tmp_path / "before", fingerprint=extractor.fingerprint) as created:
        build_map(created, extractor, open_image_folder(folder).frames[:3], BuildConfig())
    as_before(tmp_path / "before")
    with PlaceMap.open(tmp_path / "before") as opened:
        assert opened.stored_sources("images") == {(f"{number}.png", None): {""} for number in range(3)}
    with PlaceMap.open(tmp_path / "before", writable=True) as opened:
        assert len(opened) == 3
        report = build_map(opened, extractor, open_image_folder(folder).frames, BuildConfig())
        assert (report.added, report.already_present) == (1, 3)
        assert [message for message in caplog.messages if "earlier version" in message]
        assert opened.check() == []
    with PlaceMap.open(tmp_path / "before") as opened:
        assert len(opened) == 4


def as_before(folder: Path) -> None:
    """The table of places as earlier versions made it."""
    with closing(sqlite3.connect(folder / "places.sqlite3")) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'places'").fetchone()
        sql = sql.replace(", digest TEXT NOT NULL DEFAULT ''", "").replace("stamp_ns, digest)", "stamp_ns)")
        columns = ", ".join(row[1] for row in connection.execute("PRAGMA table_info(places)") if row[1] != "digest")
        connection.execute(sql.replace("places", "places_of_before"))
        connection.execute(f"INSERT INTO places_of_before SELECT {columns} FROM places")
        connection.execute("DROP TABLE places")
        connection.execute("ALTER TABLE places_of_before RENAME TO places")
        connection.commit()


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
