"""Points that a map keeps of its places: of all, of some, or of none as maps of before."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import FINGERPRINT, new_place, picture, tiny_extractor

from effovpr_ros.core.errors import MapError
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.merge import MergeConfig, merge_maps
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.store import STORE_NAME
from effovpr_ros.sources.frame import Frame

BLOBS = [b"points of 0", None, b"", b"points of 3"]


def make(folder: Path, session: str = "a", kind: type[PlaceMap] = PlaceMap) -> Path:
    with kind.create(folder, fingerprint=FINGERPRINT) as place_map:
        place_map.add([replace(new_place(i, session=session), points=blob) for i, blob in enumerate(BLOBS)])
        place_map.flush()
    return folder


def as_of_before(folder: Path) -> Path:
    connection = sqlite3.connect(folder / STORE_NAME)
    connection.execute("DROP TABLE points")
    connection.commit()
    connection.close()
    return folder


def test_points_come_back_in_the_order_asked_for(tmp_path: Path):
    with PlaceMap.open(make(tmp_path / "map")) as place_map:
        assert place_map.points([3, 0, 1, 2]) == [b"points of 3", b"points of 0", None, b""]
        assert place_map.points([]) == []
        assert place_map.bytes_by_part()["points"] == 22
        assert place_map.check() == []


def test_a_map_of_before_opens_and_gets_points_when_it_is_written_to(tmp_path: Path):
    folder = as_of_before(make(tmp_path / "map"))
    stored = (folder / STORE_NAME).read_bytes()
    with PlaceMap.open(folder) as place_map:
        assert place_map.points([0, 1]) == [None, None]
        assert "points" not in place_map.bytes_by_part()
        assert place_map.check() == []
        assert place_map.place(0).source == "0.jpg"
    # To read changes nothing.
    assert (folder / STORE_NAME).read_bytes() == stored
    with PlaceMap.open(folder, writable=True) as place_map:
        assert place_map.points([0]) == [None]
        place_map.add([replace(new_place(7), points=b"new")])
        place_map.flush()
    with PlaceMap.open(folder) as place_map:
        assert place_map.points([0, 4]) == [None, b"new"]
        assert place_map.check() == []


def test_damaged_points_are_named(tmp_path: Path):
    folder = make(tmp_path / "map")
    connection = sqlite3.connect(folder / STORE_NAME)
    connection.execute("UPDATE points SET points = x'00' WHERE place_id = 3")
    connection.commit()
    connection.close()
    with PlaceMap.open(folder) as place_map:
        assert place_map.points([0]) == [b"points of 0"]
        with pytest.raises(MapError, match=r"points of place 3 .* are damaged"):
            place_map.points([0, 3])
        assert any("points of place 3" in line for line in place_map.check())


def test_forgotten_places_take_their_points_along(tmp_path: Path):
    with GrowingMap.open(make(tmp_path / "map", kind=GrowingMap), writable=True) as place_map:
        place_map.forget([0])
        place_map.save_copy(tmp_path / "copy")
    with PlaceMap.open(tmp_path / "copy") as copy:
        assert copy.points([3, 0]) == [b"points of 3", None]
        assert copy.bytes_by_part()["points"] == 11


def test_a_merged_map_has_the_points_of_both(tmp_path: Path):
    old = as_of_before(make(tmp_path / "old"))
    assert merge_maps(tmp_path / "out", [old, make(tmp_path / "new", "b")], MergeConfig()) == 8
    with PlaceMap.open(tmp_path / "out") as merged:
        assert merged.points(range(8)) == [None] * 4 + BLOBS


def test_a_build_keeps_what_it_is_told_to(tmp_path: Path):
    extractor = tiny_extractor(tmp_path)
    frames = [Frame(f"{i}.jpg", "a", i, None, None, lambda i=i: picture(i, 60 + i, 50)) for i in range(3)]
    with PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint) as place_map:
        build_map(place_map, extractor, frames[:2], BuildConfig(), points_of=lambda image: b"%d" % image.shape[1])
        build_map(place_map, extractor, frames, BuildConfig())
        assert place_map.points(range(3)) == [b"60", b"61", None]
