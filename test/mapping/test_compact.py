"""`effovpr map compact`: a map with short local descriptors, made of one with full ones."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from described import described
from synthetic import new_place, picture, tiny_extractor

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import MapError
from effovpr_ros.features import local_projection
from effovpr_ros.features.codes import decode, encode
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.features.local_projection import LocalProjection
from effovpr_ros.mapping import compact
from effovpr_ros.mapping.compact import compact_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.store import PlaceStore
from effovpr_ros.recognition.recognizer import PlaceRecognizer, RecognizerConfig

PLACES = 12


@pytest.fixture
def extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureExtractor:
    """Full descriptors of 24 numbers, for whose network a projection to 8 is there."""
    full = tiny_extractor(tmp_path)
    components = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0][:8].astype(np.float32)
    short = LocalProjection("tiny-pca8", full.facet_source, components)
    monkeypatch.setattr(local_projection, "shipped_projections", lambda: (short,))
    return full


@pytest.fixture
def map_path(tmp_path: Path, extractor: FeatureExtractor) -> Path:
    path = tmp_path / "office"
    described = extractor.extract([picture(number) for number in range(PLACES)])
    with PlaceMap.create(path, fingerprint=extractor.fingerprint) as place_map:
        place_map.add([new_place(number, features=item) for number, item in enumerate(described)])
        place_map.set_property("calibrations", b"[]")
        place_map.flush()
    return path


def test_codes_are_projected_and_all_else_stays(map_path: Path, extractor: FeatureExtractor):
    with PlaceMap.open(map_path) as before:
        places, full = before.places(), before.local_features(range(PLACES))
        descriptors, thumbnail = before.global_descriptors(), before.thumbnail(3)
    done: list[int] = []
    report = compact_map(map_path, progress=done.append)
    assert sum(done) == report.places == PLACES
    # 16 patches of 24 and then of 8 codes, two a byte.
    assert (report.local_bytes_before, report.local_bytes_after) == (PLACES * 16 * 12, PLACES * 16 * 4)
    assert 0 < report.agreed <= report.compared == PLACES
    components = local_projection.shipped_projections()[0].components
    with PlaceMap.open(map_path) as after:
        assert after.check() == []
        assert (after.fingerprint.local_dim, after.fingerprint.local_codes) == (8, report.local_codes)
        assert after.places() == places and after.thumbnail(3) == thumbnail
        assert after.get_property("calibrations") == b"[]"
        np.testing.assert_array_equal(after.global_descriptors(), descriptors)
        for old, new in zip(full, after.local_features(range(PLACES)), strict=True):
            np.testing.assert_array_equal(new.codes, encode(decode(old.codes) @ components.T))
            np.testing.assert_array_equal(new.cells_xy, old.cells_xy)
    assert sorted(path.name for path in map_path.parent.iterdir() if path.is_dir()) == ["office"]


def test_a_compact_map_recognises_its_places_by_short_queries(
    tmp_path: Path, map_path: Path, extractor: FeatureExtractor
):
    compact_map(map_path, tmp_path / "small")
    short = tiny_extractor(tmp_path)
    with PlaceMap.open(tmp_path / "small") as small, PlaceMap.open(map_path) as office:
        assert office.fingerprint == extractor.fingerprint
        recognizer = PlaceRecognizer(short, small, RecognizerConfig())
        for number in range(PLACES):
            best = recognizer.recognize(picture(number)).candidates[0]
            assert best.place.place_id == number and best.num_matches >= 12


def test_numbers_with_gaps_and_keypoints_that_are_missing_survive(map_path: Path):
    with PlaceMap.open(map_path) as place_map:
        some = place_map.local_features([4])[0]
    store = PlaceStore(map_path)
    store.remove([2, 5])
    grid = store.features([4], 512, 24)[0]
    kept = LocalFeatures(some.codes[[1, 6]], some.cells_xy[[1, 6]])
    store.replace_local([4], [type(grid)(grid.global_descriptor, kept, grid.grid_wh)])
    checksum = store.checksum(PLACES - 2)
    store.close()
    text = (map_path / "map.yaml").read_text()
    old = text.split("places: ")[-1].split()[0]
    text = text.replace(f"num_places: {PLACES}", f"num_places: {PLACES - 2}").replace(old, checksum)
    (map_path / "map.yaml").write_text(text)
    (map_path / "index.faiss").unlink()
    assert compact_map(map_path).places == PLACES - 2
    with PlaceMap.open(map_path) as after:
        assert [place.place_id for place in after.places()] == [0, 1, 3, 4, 6, 7, 8, 9, 10, 11]
        assert after.local_features([4])[0].cells_xy.tolist() == some.cells_xy[[1, 6]].tolist()


def test_refusals_name_the_reason_and_leave_the_map(tmp_path: Path, map_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(MapError, match="there exists already"):
        compact_map(map_path, tmp_path / "there")
    compact_map(map_path)
    with pytest.raises(MapError, match=r"short local descriptors already"):
        compact_map(map_path, tmp_path / "another")
    monkeypatch.setattr(local_projection, "shipped_projections", tuple)
    with PlaceMap.open(map_path) as place_map:
        assert len(place_map) == PLACES


def test_a_model_without_projection_is_refused(map_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_projection, "shipped_projections", tuple)
    with pytest.raises(MapError, match="no projection comes with this package for FacetSource"):
        compact_map(map_path)


def test_a_failure_leaves_the_old_map_and_nothing_else(map_path: Path, monkeypatch: pytest.MonkeyPatch):
    with sqlite3.connect(map_path / "places.sqlite3") as connection:
        connection.execute("UPDATE local_descriptors SET codes = zeroblob(192) WHERE place_id = 7")
    connection.close()
    with pytest.raises(MapError, match=r"place 7 .* damaged"):
        compact_map(map_path)
    assert sorted(path.name for path in map_path.parent.iterdir() if path.is_dir()) == ["office"]
    with PlaceMap.open(map_path) as place_map:
        assert place_map.fingerprint.local_dim == 24


def test_folders_of_others_that_have_a_working_name_stay(map_path: Path):
    names = ["office.before", "office.compacting", ".office.compacting-abcdefgh"]
    for name in names:
        (map_path.parent / name).mkdir()
        (map_path.parent / name / "thesis.txt").write_text("mine")
    compact_map(map_path)
    assert all((map_path.parent / name / "thesis.txt").read_text() == "mine" for name in names)


def test_what_a_killed_call_left_is_removed(map_path: Path):
    left = map_path.parent / ".office.compacting-abcdefgh"
    (left / "office").mkdir(parents=True)
    (left / ".effovpr_ros_working").touch()
    compact_map(map_path)
    assert not left.exists()


def test_an_exchange_that_fails_leaves_the_old_map(map_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(first: Path, second: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(compact, "exchange", fail)
    with pytest.raises(
        MapError, match="Invalid argument; free some space, or give the compact map a folder of its own"
    ):
        compact_map(map_path)
    with PlaceMap.open(map_path) as place_map:
        assert place_map.fingerprint.local_dim == 24
    assert sorted(path.name for path in map_path.parent.iterdir() if path.is_dir()) == ["office"]


def test_a_map_that_is_compact_stays_as_it_is(tmp_path: Path, map_path: Path):
    """As after a kill at the very end: the same command is content."""
    first = compact_map(map_path, tmp_path / "small")
    again = compact_map(map_path, tmp_path / "small")
    assert (again.places, again.local_bytes_after) == (PLACES, first.local_bytes_after)
    compact_map(map_path)
    assert compact_map(map_path).local_bytes_before == first.local_bytes_after


def test_a_conversion_that_confuses_places_is_refused(map_path: Path, monkeypatch: pytest.MonkeyPatch):
    honest = compact._projected
    numbers = iter(range(PLACES))

    def shuffled(features, projection):
        # Every descriptor of every other place is lost.
        local = honest(features, projection).local
        codes = np.zeros_like(local.codes) if next(numbers) % 2 else local.codes
        return type(features)(features.global_descriptor, LocalFeatures(codes, local.cells_xy), features.grid_wh)

    monkeypatch.setattr(compact, "_projected", shuffled)
    with pytest.raises(MapError, match="does not recognise itself"):
        compact_map(map_path)
    with PlaceMap.open(map_path) as place_map:
        assert place_map.fingerprint.local_dim == 24


def test_the_command(tmp_path: Path, map_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["map", "compact", str(map_path), "--out", str(tmp_path / "small"), "--json"]) == 0
    report = described("map-compact", capsys.readouterr().out)
    assert report["local_bytes_after"] * 3 == report["local_bytes_before"]
    assert main(["map", "compact", str(map_path)]) == 0
    assert f"({16 * 12} -> {16 * 4} a place)" in capsys.readouterr().out
    assert main(["map", "compact", str(map_path)]) == 0
    assert "12 places, compact already" in capsys.readouterr().out


def test_an_empty_map_becomes_compact(tmp_path: Path, extractor: FeatureExtractor):
    PlaceMap.create(tmp_path / "empty", fingerprint=extractor.fingerprint).close()
    report = compact_map(tmp_path / "empty")
    assert (report.places, report.compared, report.local_bytes_after) == (0, 0, 0)


def test_an_empty_folder_that_a_kill_left_is_removed(map_path: Path):
    (map_path.parent / ".office.compacting-abcdefgh").mkdir()
    compact_map(map_path)
    assert sorted(path.name for path in map_path.parent.iterdir() if path.is_dir()) == ["office"]
