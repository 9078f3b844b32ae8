"""The table of inputs as people record them, through the same code as `effovpr map build`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_bags  # noqa: F401
import recorded_inputs  # noqa: F401
from inputs import ANY, TABLE, Input, Right
from synthetic import picture, tiny_weights

from effovpr_ros.cli.main import main
from effovpr_ros.core.images import decode_image
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.place_map import PlaceMap


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a tiny network."""
    weights = tiny_weights(tmp_path_factory.mktemp("weights"))
    return [
        "--model",
        "vit_tiny_test_patch14",
        "--weights",
        str(weights),
        "--size",
        "56",
        "--t1",
        "0",
        "--device",
        "cpu",
    ]


def test_there_are_enough():
    assert len(TABLE) >= 150


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_input(row: Input, tmp_path: Path, model: list[str], capfd: pytest.CaptureFixture[str]):
    made = tmp_path / "made"
    made.mkdir()
    source = row.make(made)
    # Whatever an input is, the command comes to an end by itself: an exception would end the test.
    code = main(["map", "build", str(tmp_path / "map"), *source, *model])
    out, err = capfd.readouterr()
    assert code == row.code, err
    assert "Traceback" not in err
    for text in row.said:
        assert text in out + err
    assert counted(out + err) == row.refused
    if not row.places:
        assert "effovpr: " in err
        if not (tmp_path / "map").exists():
            return
    with PlaceMap.open(tmp_path / "map") as place_map:
        places = place_map.places()
        assert sorted(name_of(place, places) for place in places) == sorted(row.places)
        for place in places:
            right = row.places[name_of(place, places)]
            compare(place, right)
            if right.looks is not None:
                looks_like(place_map.thumbnail(place.place_id), right.looks)


def counted(text: str) -> int:
    """Items that the report says were refused or could not be read."""
    done = re.search(r"(\d+) refused for their pose, time or tags, (\d+) unreadable", text)
    if done:
        return int(done[1]) + int(done[2])
    failed = re.search(r"can be used \((\d+) refused\)", text)
    return int(failed[1]) if failed else 0


def name_of(place: Place, places: list[Place]) -> str:
    """Name of the source; with its number where several have it, as the images of a bag."""
    same = [other.place_id for other in places if other.source == place.source]
    return place.source if len(same) == 1 else f"{place.source} {same.index(place.place_id)}"


def compare(place: Place, right: Right) -> None:
    if right.xyz is not ANY:
        assert_known(place.pose and place.pose.position_xyz, right.xyz, 1e-6)
    if right.yaw_deg is not ANY:
        yaw_rad = place.pose.yaw_rad if place.pose else None
        assert yaw_rad == (None if right.yaw_deg is None else pytest.approx(math.radians(right.yaw_deg), abs=1e-6))
    if right.geo is not ANY:
        geo = place.geo and (place.geo.latitude_deg, place.geo.longitude_deg, place.geo.altitude_m)
        assert_known(geo, right.geo, 1e-9)
    if right.stamp_ns is not ANY:
        assert place.stamp_ns == right.stamp_ns


def assert_known(found: Any, right: Any, tolerance: float) -> None:
    """Numbers that are to be equal, and None where a number is unknown."""
    if right is None or found is None:
        assert found == right
        return
    assert len(found) == len(right)
    for value, wanted in zip(found, right, strict=True):
        assert value == (None if wanted is None else pytest.approx(wanted, abs=tolerance))


def looks_like(thumbnail: bytes, seed: int) -> None:
    """A thumbnail shows the picture: no channel is swapped, no row shifted, nothing dark."""
    shown, wanted = decode_image(thumbnail, "thumbnail").astype(float), picture(seed).astype(float)
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).mean() < 10.0
