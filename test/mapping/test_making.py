"""A map that a command made and put nothing in goes again."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import FINGERPRINT, new_place, tiny_weights

from effovpr_ros.api import build_map
from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import MapError, SourceError
from effovpr_ros.mapping.making import LOCK_NAME, removed_if_empty
from effovpr_ros.mapping.place_map import PlaceMap


def fill(folder: Path, num_places: int, fail: bool = False, made: bool = True) -> None:
    with removed_if_empty(folder, made), PlaceMap.create(folder, fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number) for number in range(num_places)])
        if fail:
            raise MapError("on purpose")


def test_an_empty_map_is_removed_and_nothing_else(tmp_path: Path):
    fill(tmp_path / "empty", 0)
    with pytest.raises(MapError, match="on purpose"):
        fill(tmp_path / "failed", 0, fail=True)
    with pytest.raises(MapError, match="on purpose"):
        fill(tmp_path / "filled", 2, fail=True)
    fill(tmp_path / "before", 0, made=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "filled"]
    with PlaceMap.open(tmp_path / "filled") as place_map:
        assert len(place_map) == 2


def test_what_others_put_there_stays(tmp_path: Path):
    with removed_if_empty(tmp_path / "map", True):
        PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT).close()
        (tmp_path / "map" / "notes.txt").write_text("mine")
    assert [path.name for path in (tmp_path / "map").iterdir()] == ["notes.txt"]
    # Another program took the map over before it was removed.
    with removed_if_empty(tmp_path / "other", True):
        PlaceMap.create(tmp_path / "other", fingerprint=FINGERPRINT).close()
        writer = PlaceMap.open(tmp_path / "other", writable=True)
    assert (tmp_path / "other" / LOCK_NAME).exists()
    writer.close()
    with PlaceMap.open(tmp_path / "other") as place_map:
        assert len(place_map) == 0


def test_no_map_is_left_where_no_image_can_be_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images, weights = tmp_path / "images", str(tiny_weights(tmp_path))
    images.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (images / name).write_bytes(b"no picture")
    options = ["--model", "vit_tiny_test_patch14", "--weights", weights, "--size", "56"]
    assert main(["map", "build", str(tmp_path / "map"), str(images), *options]) == 1
    assert "0 places built: none of the 2 images" in capsys.readouterr().err
    assert not (tmp_path / "map").exists()
    with pytest.raises(SourceError, match="none of the 2 images"):
        build_map(tmp_path / "map", images, model="vit_tiny_test_patch14", weights=weights, device="cpu")
    assert not (tmp_path / "map").exists()
