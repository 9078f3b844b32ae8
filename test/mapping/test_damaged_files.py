"""What map files may hold is answered in one line; `damaged_files.py` does so with thousands."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.place_map import PlaceMap

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number) for number in range(3)])
        place_map.set_property("note", b"kept as it was")
        place_map.flush()
    return tmp_path / "map"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("num_places: 3", "num_places: 9223372036854775808", "num_places is 9223372036854775808, not a whole number"),
        ("num_places: 3", "num_places: " + "9" * 5000, "cannot be read|longer than any of a map"),
        ("frame_id: map", "frame_id: [map]", r"frame_id is \['map'\], not text"),
        ("centered: false", "centered: 7", "centered of the model is 7, not true or false"),
        ("min_attention: 0.05", "min_attention: .nan", "min_attention of the model is nan"),
        ("datum: null", "datum: {latitude: 95, longitude: 0, altitude: 0}", "latitude 95"),
        ("name: map", BOMB + "name: map", "has aliases or tags"),
        ("name: map", "name: !!python/object:os.x {}", "has aliases or tags"),
        ("name: map", "name: " + "[" * 3000, "nested deeper than 8 levels"),
        ("name: map", "name: " + "1:" * 1500 + "1", "cannot be read|is a number|name is"),
        ("name: map", "name: map #" + "x" * 300_000, "bytes, a map's has at most"),
    ],
)
def test_manifests_hold_what_they_may_and_nothing_else(folder: Path, old: str, new: str, said: str):
    text = (folder / "map.yaml").read_text()
    assert old in text
    (folder / "map.yaml").write_text(text.replace(old, new, 1))
    started = time.monotonic()
    with pytest.raises(MapFormatError, match=said) as caught:
        PlaceMap.open(folder)
    assert "\n" not in str(caught.value) and time.monotonic() - started < 60.0


def test_a_declaration_that_is_no_text_is_refused(folder: Path):
    """Python's own error on a statement that is no UTF-8 passed through."""
    path = folder / "places.sqlite3"
    data = path.read_bytes()
    assert data.count(b"value BLOB NOT NULL)") == 1
    path.write_bytes(data.replace(b"value BLOB NOT NULL)", b"v\xf3lue BLOB NOT NULL)"))
    with pytest.raises(MapError, match=r"places.sqlite3: .*decode.*; see `effovpr map check`"):
        PlaceMap.open(folder)


def test_an_index_of_null_is_refused(folder: Path):
    text = (folder / "map.yaml").read_text()
    start, end = text.index("index:"), text.index("model:")
    (folder / "map.yaml").write_text(f"{text[:start]}index: null\n{text[end:]}")
    with pytest.raises(MapFormatError, match="index is None, not a table"):
        PlaceMap.open(folder)


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (
            "DROP TABLE places; CREATE VIEW places AS "
            "WITH RECURSIVE n(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n",
            "other tables than a map .*view places",
        ),
        ("CREATE TRIGGER t AFTER INSERT ON places BEGIN DELETE FROM places; END", "other tables .*trigger t"),
        ("UPDATE places SET x = 'here'", "a coordinate of place 0 is 'here', not a number"),
        ("UPDATE places SET x = 9e999", "a coordinate of place 0 is inf"),
        ("UPDATE places SET latitude = 95, longitude = 0, altitude = 0", "latitude 95"),
        ("UPDATE places SET session = x'00'", "a session in .* is b'.x00', not text"),
        ("UPDATE global_descriptors SET descriptor = 7", "global descriptor"),
    ],
)
def test_stores_hold_what_they_may_and_nothing_else(folder: Path, statements: str, said: str):
    with closing(sqlite3.connect(folder / "places.sqlite3")) as connection:
        connection.executescript(statements)
    (folder / "index.faiss").unlink()
    with pytest.raises(MapError, match=said), PlaceMap.open(folder) as place_map:
        place_map.places()


def test_a_property_that_changed_is_refused(folder: Path):
    with closing(sqlite3.connect(folder / "places.sqlite3")) as connection:
        connection.execute("UPDATE properties SET value = ? WHERE key = 'note'", (b"kept as it WAS",))
        connection.commit()
    with (
        PlaceMap.open(folder) as place_map,
        pytest.raises(MapFormatError, match=r"note of .* does not fit its checksum"),
    ):
        place_map.get_property("note")


@pytest.mark.parametrize("name", ["x" * 300, "~nosuchuser/map", "nul\x00byte"])
def test_names_that_no_folder_can_have(folder: Path, tmp_path: Path, name: str):
    path = name if name.startswith("~") else str(tmp_path / name)
    for use in (
        lambda: PlaceMap.open(path),
        lambda: PlaceMap.open(path, writable=True),
        lambda: PlaceMap.create(path, fingerprint=FINGERPRINT),
    ):
        with pytest.raises(MapError, match="cannot be used"):
            use()
    with GrowingMap.open(folder, writable=True) as place_map, pytest.raises(MapError, match="cannot be used"):
        place_map.save_copy(path)


def test_a_sample_of_damaged_files():
    script = Path(__file__).with_name("damaged_files.py")
    command = [sys.executable, "-P", str(script), "--count", "60", "--seed", "7"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert result.returncode == 0, result.stdout + result.stderr
