"""A map on disk: what goes in comes out, what is damaged is said, what is killed goes on."""

from __future__ import annotations

import csv
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import FINGERPRINT, features, new_place

from effovpr_ros.core.errors import ConfigError, DescriptorShapeError, MapError, MapFormatError, ModelMismatchError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping import index as index_module
from effovpr_ros.mapping import map_reading
from effovpr_ros.mapping.export import export_map
from effovpr_ros.mapping.index import DescriptorIndex, IndexSummary
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.sources.images import open_image_folder


def make_map(folder: Path, count: int = 6) -> Path:
    with PlaceMap.create(folder, fingerprint=FINGERPRINT, name="test") as place_map:
        place_map.add([new_place(number, geo=GeoPoint(10.0 + number % 60, 20.0, 3.0)) for number in range(count)])
        place_map.flush()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_map(tmp_path / "map")


def test_what_goes_in_comes_out(folder: Path):
    with PlaceMap.open(folder) as place_map:
        assert (len(place_map), place_map.name, place_map.frame_id, place_map.sessions) == (6, "test", "map", ["a"])
        assert place_map.fingerprint == FINGERPRINT
        for number in range(6):
            stored, given = place_map.place(number), new_place(number, geo=GeoPoint(10.0 + number, 20.0, 3.0))
            assert (stored.session, stored.stamp_ns, stored.source) == ("a", number or None, f"{number}.jpg")
            assert (stored.pose, stored.geo, stored.image_size_wh) == (given.pose, given.geo, (96, 72))
            assert place_map.thumbnail(number) == given.thumbnail
            local = place_map.local_features([number])[0]
            np.testing.assert_array_equal(local.codes, given.features.local.codes)
            np.testing.assert_array_equal(local.cells_xy, given.features.local.cells_xy)
            found = place_map.search(given.features.global_descriptor, 2)
            assert found[0].place.place_id == number
            assert found[0].similarity == pytest.approx(1.0, abs=1e-3)
        assert place_map.check() == []


def test_what_is_unknown_comes_out_as_unknown(tmp_path: Path):
    given = [
        (Pose((1.0, 2.0, None), None), None),
        (Pose((1.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0)), GeoPoint(50.0, 8.0)),
        (Pose((1.0, 2.0, 0.0), None), GeoPoint(50.0, 8.0, 0.0)),
        (None, GeoPoint(50.0, 8.0)),
    ]
    datum = Datum(GeoPoint(50.0, 8.0))
    with PlaceMap.create(tmp_path / "m", fingerprint=FINGERPRINT, datum=datum) as place_map:
        new = [new_place(number, pose=pose, geo=geo) for number, (pose, geo) in enumerate(given)]
        new[1] = replace(new[1], stamp_ns=None)
        place_map.add(new)
        place_map.flush()
    with PlaceMap.open(tmp_path / "m") as place_map:
        assert place_map.datum == datum
        assert place_map.place(1).stamp_ns is None
        assert None in {stamp_ns for _, stamp_ns in place_map.stored_sources(new[1].session)}
        assert [(place.pose, place.geo) for place in place_map.places()] == given
        assert place_map.check() == []
        # By geo-tag, at the origin; by pose, 5 m away.
        assert place_map.rows_near((0.0, 0.0), 1.0).tolist() == [3]
        export_map(place_map, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "places.csv").open()))
    assert [rows[0][name] for name in ("x", "y", "z", "qw", "altitude")] == ["1.0", "2.0", "", "", ""]
    assert [rows[2][name] for name in ("z", "qw", "altitude")] == ["0.0", "", "0.0"]
    assert rows[1]["stamp"] == ""
    again = open_image_folder(tmp_path / "out", table=tmp_path / "out" / "places.csv").frames
    assert [(frame.pose, frame.geo) for frame in again] == given


def make_earlier(folder: Path, poses: Sequence[Pose], geos: Sequence[GeoPoint | None], datum: Datum | None) -> None:
    """A map as versions wrote it that had no word for unknown."""
    with PlaceMap.create(folder, fingerprint=FINGERPRINT, datum=datum) as place_map:
        zipped = enumerate(zip(poses, geos, strict=True))
        place_map.add([new_place(number, pose=pose, geo=geo) for number, (pose, geo) in zipped])
        place_map.flush()
    with sqlite3.connect(folder / "places.sqlite3") as connection:
        connection.execute("DELETE FROM properties WHERE key = 'unknown_from'")
    connection.close()


def test_what_earlier_versions_guessed_is_read_as_unknown(tmp_path: Path):
    datum, east = Datum(GeoPoint(50.0, 8.0, 520.0)), (0.0, 0.0, 0.0, 1.0)
    poses = [
        Pose((0.0, 0.0, 0.0), east),
        Pose((0.0, 0.0, -520.0), east),
        Pose((0.0, 0.0, -520.0), (0.0, 0.0, 1.0, 0.0)),
        Pose((0.0, 0.0, 3.0), east),
        Pose((0.0, 0.0, 0.0), east),
    ]
    geos = [GeoPoint(50.0, 8.0, 520.0), *[GeoPoint(50.0, 8.0, 0.0)] * 3, None]
    make_earlier(tmp_path / "m", poses, geos, datum)
    expected = [
        (Pose((0.0, 0.0, 0.0), None), GeoPoint(50.0, 8.0, 520.0)),
        (Pose((0.0, 0.0, None), None), GeoPoint(50.0, 8.0)),
        (Pose((0.0, 0.0, None), (0.0, 0.0, 1.0, 0.0)), GeoPoint(50.0, 8.0)),
        # This height does not follow from an altitude of 0.
        (Pose((0.0, 0.0, 3.0), None), GeoPoint(50.0, 8.0)),
        (Pose((0.0, 0.0, 0.0), east), None),
    ]
    with PlaceMap.open(tmp_path / "m") as place_map:
        assert [(place.pose, place.geo) for place in place_map.places()] == expected
        assert place_map.check() == []
    # What is added by this version means what it says.
    known = (Pose((0.0, 0.0, 0.0), east), GeoPoint(50.0, 8.0, 0.0))
    with PlaceMap.open(tmp_path / "m", writable=True) as place_map:
        place_map.add([new_place(5, pose=known[0], geo=known[1])])
        place_map.flush()
    with PlaceMap.open(tmp_path / "m") as place_map:
        assert [(place.pose, place.geo) for place in place_map.places()] == [*expected, known]


def test_search_within_some_places(folder: Path):
    with PlaceMap.open(folder) as place_map:
        query = new_place(0).features.global_descriptor
        found = place_map.search(query, 10, within=lambda place: place.place_id > 3)
        assert sorted(candidate.place.place_id for candidate in found) == [4, 5]
        with pytest.raises(DescriptorShapeError, match=r"\(3,\), the map's model gives \(4,\)"):
            place_map.search(np.ones(3, np.float32), 1)


def test_local_features_come_in_the_order_asked_for_and_from_memory(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with PlaceMap.open(folder) as place_map:
        first = place_map.packed_local([4, 1])
        monkeypatch.setattr(place_map._store, "packed_local", lambda *_: pytest.fail("read from disk again"))
        again = place_map.packed_local([1, 4])
        assert again[0] is first[1]
        assert again[1] is first[0]
        with pytest.raises(MapError, match="no place 6"):
            monkeypatch.undo()
            place_map.local_features([6])


def test_memory_for_local_features_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch):
    size = new_place(0).features.local.packed
    monkeypatch.setattr(map_reading, "CACHE_BYTES", 2 * (size.codes.nbytes + size.cells_xy.nbytes))
    with PlaceMap.open(folder) as place_map:
        place_map.local_features([0, 1])
        place_map.local_features([0, 2])
        assert set(place_map._cache.found([0, 1, 2])) == {0, 2}


def test_sessions_are_appended_and_duplicates_refused_as_a_whole(folder: Path):
    with PlaceMap.open(folder, writable=True) as place_map:
        assert place_map.add([new_place(0, session="b"), new_place(1, session="b")]) == [6, 7]
        with pytest.raises(MapError, match="already there"):
            place_map.add([new_place(9), new_place(3)])
        assert len(place_map) == 8
        place_map.flush()
    with PlaceMap.open(folder) as place_map:
        assert place_map.sessions == ["a", "b"]
        assert len(place_map) == 8
        assert place_map.check() == []


def test_a_map_that_is_open_for_reading_is_not_written(folder: Path):
    with PlaceMap.open(folder) as place_map, pytest.raises(MapError, match="writable=True"):
        place_map.add([new_place(9)])


def test_places_without_pose_geo_or_keypoints(tmp_path: Path):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(0, pose=None, features=features([1, 0, 0, 0], cells=()))])
        place_map.flush()
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert place_map.place(0).pose is None
        assert place_map.place(0).geo is None
        assert len(place_map.local_features([0])[0]) == 0


def test_pca_is_stored_with_the_map(tmp_path: Path):
    folder = make_map(tmp_path / "map", 12)
    with PlaceMap.open(folder, writable=True) as place_map:
        place_map.fit_pca(2)
        with pytest.raises(ConfigError, match="PCA to 5"):
            place_map.fit_pca(5)
    with PlaceMap.open(folder, writable=True) as place_map:
        assert place_map.global_dim == 2
        assert place_map.search(new_place(3).features.global_descriptor, 1)[0].similarity == pytest.approx(
            1.0, abs=1e-3
        )
        place_map.add([new_place(12)])
        place_map.flush()
    with PlaceMap.open(folder) as place_map:
        best = place_map.search(new_place(12).features.global_descriptor, 13)
        assert 12 in [candidate.place.place_id for candidate in best if candidate.similarity > 0.999]
        assert place_map.check() == []


def test_folders_that_are_no_map(tmp_path: Path):
    with pytest.raises(MapError, match="does not exist; build one with `effovpr map build"):
        PlaceMap.open(tmp_path / "nowhere")
    with pytest.raises(MapError, match=r"holds no map\.yaml"):
        PlaceMap.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MapError, match=r"not empty \(it holds notes\.txt\)"):
        PlaceMap.create(tmp_path, fingerprint=FINGERPRINT)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def change_manifest(folder: Path, **values: object) -> None:
    content = yaml.safe_load((folder / "map.yaml").read_text())
    (folder / "map.yaml").write_text(yaml.safe_dump({**content, **values}))


def test_negative_zeros_of_a_pose_are_no_damage(tmp_path: Path):
    # A robot on a plane that has turned beyond half a circle: w is negative, and -q has zeros with a sign.
    turned = Pose((1.0, -0.0, 0.0), (-0.0, -0.0, 0.8, 0.6))
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([replace(new_place(0), pose=turned)])
        place_map.flush()
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert place_map.check() == []
        assert place_map.place(0).pose == turned


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format_version": 3}, "format 3, this version reads 1 and 2; update effovpr_ros"),
        ({"format_version": 0}, "rebuild the map"),
        ({"format_version": None}, "names no format_version"),
        ({"model": {"architecture": "x"}}, "lacks weights_sha256"),
        ({"checksums": None}, "checksums is None, not a table of names and values; restore the map"),
        ({"datum": {"latitude": 99.0, "longitude": 0.0, "altitude": 0.0}}, "latitude 99"),
    ],
)
def test_manifests_that_cannot_be_used(folder: Path, values: dict[str, object], said: str):
    change_manifest(folder, **values)
    with pytest.raises(MapFormatError, match=said):
        PlaceMap.open(folder)


def test_a_manifest_that_is_no_yaml(folder: Path):
    (folder / "map.yaml").write_text("{")
    with pytest.raises(MapFormatError, match="cannot be read"):
        PlaceMap.open(folder)


def test_a_missing_store_and_lost_places(folder: Path):
    change_manifest(folder, num_places=7)
    with pytest.raises(MapError, match=r"holds 6 places, map\.yaml 7"):
        PlaceMap.open(folder)
    (folder / "places.sqlite3").unlink()
    with pytest.raises(MapError, match="restore it from a copy"):
        PlaceMap.open(folder)


def edit(folder: Path, sql: str) -> None:
    with sqlite3.connect(folder / "places.sqlite3") as connection:
        connection.execute(sql)
    connection.close()


def test_a_bad_checksum_is_refused(folder: Path):
    edit(folder, "UPDATE places SET checksum = checksum + 1 WHERE id = 2")
    with pytest.raises(MapError, match="does not fit the checksum"):
        PlaceMap.open(folder)


def test_damage_inside_is_found(folder: Path):
    edit(folder, "UPDATE places SET x = x + 1 WHERE id = 2")
    edit(folder, "UPDATE local_descriptors SET codes = zeroblob(length(codes)) WHERE place_id = 4")
    with PlaceMap.open(folder) as place_map:
        problems = place_map.check()
        assert any("place 2 (2.jpg)" in line for line in problems)
        assert any("local descriptors of place 4" in line for line in problems)
        with pytest.raises(MapError, match=r"place 4 .* are damaged"):
            place_map.local_features([1, 4])


@pytest.mark.parametrize("damage", ["missing", "noise", "stale"])
def test_the_index_is_rebuilt_when_it_does_not_fit(folder: Path, damage: str):
    index = folder / "index.faiss"
    if damage == "missing":
        index.unlink()
    elif damage == "noise":
        index.write_bytes(b"noise")
    else:
        with PlaceMap.open(folder, writable=True) as place_map:
            place_map.add([new_place(6)])
    with PlaceMap.open(folder) as place_map:
        query = new_place(len(place_map) - 1).features.global_descriptor
        assert place_map.search(query, 1)[0].place.place_id == len(place_map) - 1
        assert len(place_map) == (7 if damage == "stale" else 6)
        assert any("index.faiss" in line or "interrupted" in line for line in place_map.check())


def test_places_added_after_the_index_was_written_are_added_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with PlaceMap.open(folder, writable=True) as place_map:
        place_map.add([new_place(6), new_place(7)])
    monkeypatch.setattr(DescriptorIndex, "build", lambda *_, **__: pytest.fail("made anew"))
    with PlaceMap.open(folder) as place_map:
        assert [best(place_map, number) for number in range(8)] == list(range(8))


def best(place_map: PlaceMap, number: int) -> int:
    return place_map.search(new_place(number).features.global_descriptor, 1)[0].place.place_id


def test_a_large_map_has_codes_and_says_what_they_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index_module, "FLAT_FLOATS", 4 * 100)
    folder = make_map(tmp_path / "map", 150)
    stored = yaml.safe_load((folder / "map.yaml").read_text())["index"]
    assert (stored["kind"], stored["rescored"]) == ("codes", 400)
    assert stored["recall_at_10"] == 1.0, "all 150 places are compared"
    monkeypatch.setattr(index_module, "choose_rescored", lambda _: pytest.fail("measured again"))
    with PlaceMap.open(folder) as place_map:
        assert place_map.manifest.index == IndexSummary("codes", 400, 1.0)
        assert [best(place_map, number) for number in (0, 77, 149)] == [0, 77, 149]
        query = new_place(3).features.global_descriptor
        assert place_map.search(query, 1, before=3)[0].place.place_id < 3
        assert place_map.search(query, 200, within=lambda place: place.place_id in (8, 140))[0].place.place_id in (
            8,
            140,
        )
    (folder / "index.faiss").unlink()
    monkeypatch.undo()
    with PlaceMap.open(folder) as place_map:
        assert [best(place_map, number) for number in (0, 77, 149)] == [0, 77, 149]


def test_a_map_that_says_nothing_of_its_index_opens(folder: Path):
    content = yaml.safe_load((folder / "map.yaml").read_text())
    del content["index"]
    (folder / "map.yaml").write_text(yaml.safe_dump(content))
    with PlaceMap.open(folder) as place_map:
        assert best(place_map, 4) == 4


def test_rows_near_a_position_by_pose_or_geo_tag(tmp_path: Path):
    datum = Datum(GeoPoint(50.0, 8.0, 100.0))
    north = datum.to_geo((0.0, 30.0, 0.0))
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT, datum=datum) as place_map:
        place_map.set_session_frame("own", "own/odom")
        place_map.add([new_place(0), new_place(7), new_place(8, pose=None), new_place(9, session="own")])
        place_map.add([new_place(10, pose=None, geo=north)])
        assert place_map.rows_near((0.0, 0.0), 7.0).tolist() == [0, 1]
        assert place_map.rows_near((0.0, 0.0), 30.1).tolist() == [0, 1, 4]
        place_map.add([new_place(3)])
        near = place_map.rows_near((0.0, 0.0), 7.0)
        assert near.tolist() == [0, 1, 5]
        query = new_place(8).features.global_descriptor
        assert sorted(found.place.place_id for found in place_map.search(query, 9, within=near)) == [0, 1, 5]
        assert sorted(found.place.place_id for found in place_map.search(query, 9, within=near, before=5)) == [0, 1]


def test_another_model_is_refused_with_both_named(folder: Path):
    with PlaceMap.open(folder) as place_map:
        place_map.require_model(FINGERPRINT)
        with pytest.raises(ModelMismatchError, match="image_size: 28 != 322; local_block: 1 != 10"):
            place_map.require_model(replace(FINGERPRINT, image_size=322, local_block=10))


def test_a_datum_is_set_once(folder: Path):
    with PlaceMap.open(folder, writable=True) as place_map:
        place_map.set_datum(Datum(GeoPoint(1.0, 2.0)))
        place_map.set_datum(Datum(GeoPoint(1.0, 2.0)))
        with pytest.raises(MapError, match="cannot become"):
            place_map.set_datum(Datum(GeoPoint(3.0, 2.0)))
        place_map.flush()
    with PlaceMap.open(folder) as place_map:
        assert place_map.datum == Datum(GeoPoint(1.0, 2.0))


def test_places_survive_kill_9_whole(tmp_path: Path):
    program = """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from synthetic import FINGERPRINT, new_place
        from effovpr_ros.mapping.place_map import PlaceMap
        place_map = PlaceMap.create(Path(sys.argv[1]), fingerprint=FINGERPRINT)
        for number in range(100000):
            place_map.add([new_place(2 * number), new_place(2 * number + 1)])
            print(number, flush=True)
    """
    folder = tmp_path / "map"
    command = [sys.executable, "-P", "-c", textwrap.dedent(program), str(folder), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                os.kill(process.pid, signal.SIGKILL)
                break
    with PlaceMap.open(folder, writable=True) as place_map:
        assert len(place_map) >= 42
        assert len(place_map) % 2 == 0
        last = len(place_map) - 1
        assert place_map.search(new_place(last).features.global_descriptor, 1)[0].place.place_id == last
        place_map.add([new_place(10**6)])
        place_map.flush()
        assert place_map.check() == []


def test_a_full_disk_loses_nothing(folder: Path):
    with PlaceMap.open(folder, writable=True) as place_map:
        connection = place_map._store._database._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(MapError, match="full; free some space; the map keeps what was committed"):
            place_map.add([new_place(number) for number in range(100, 400)])
        assert len(place_map) == 6
    with PlaceMap.open(folder, writable=True) as place_map:
        assert place_map.check() == []
        assert place_map.add([new_place(100)]) == [6]


def test_a_manifest_that_cannot_be_replaced_stays(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = (folder / "map.yaml").read_bytes()
    with PlaceMap.open(folder, writable=True) as place_map:
        place_map.add([new_place(6)])

        def no_space(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", no_space)
        with pytest.raises(MapError, match="No space left on device; free some space"):
            place_map.flush()
    assert (folder / "map.yaml").read_bytes() == before
    assert not list(folder.glob("*.tmp"))
    monkeypatch.undo()
    with PlaceMap.open(folder) as place_map:
        assert len(place_map) == 7


def test_an_export_is_a_source_again(folder: Path, tmp_path: Path):
    from effovpr_ros.sources.images import open_image_folder

    with PlaceMap.open(folder) as place_map:
        export_map(place_map, tmp_path / "out")
        with pytest.raises(MapError, match="holds an export already"):
            export_map(place_map, tmp_path / "out")
    frames = open_image_folder(tmp_path / "out", table=tmp_path / "out" / "places.csv").frames
    assert [frame.pose for frame in frames] == [new_place(number).pose for number in range(6)]
    assert frames[2].geo == GeoPoint(12.0, 20.0, 3.0)
    assert frames[2].load().shape == (12, 16, 3)
    assert np.load(tmp_path / "out" / "global_descriptors.npy").shape == (6, 4)
