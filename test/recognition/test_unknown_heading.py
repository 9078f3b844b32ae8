"""What a map does not know of its poses, from the table to the answer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import picture, tiny_extractor

from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer, Status
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.sources.images import open_image_folder

CONFIG = RecognizerConfig(verify="off")


@pytest.fixture
def recognizer(tmp_path: Path) -> PlaceRecognizer:
    """Of a map that a table of image, x and y made, 20 m between places."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = ["image,x,y"]
    for number in range(6):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{20 * number},0")
    (tmp_path / "poses.csv").write_text("\n".join(rows))
    extractor = tiny_extractor(tmp_path)
    place_map = PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint)
    frames = open_image_folder(folder, table=tmp_path / "poses.csv").frames
    build_map(place_map, extractor, frames, BuildConfig())
    place_map.close()
    return PlaceRecognizer(extractor, PlaceMap.open(tmp_path / "map"), CONFIG)


def test_a_map_of_image_x_and_y_answers_without_a_heading(recognizer: PlaceRecognizer):
    answer = recognizer.recognize(picture(3))
    assert answer.candidates[0].place.source == "3.png"
    assert answer.status is not Status.NO_MATCH
    assert answer.pose is not None
    assert (answer.pose.position_xyz, answer.pose.yaw_rad) == ((60.0, 0.0, None), None)
    assert answer.covariance is not None
    np.testing.assert_allclose(np.diag(answer.covariance)[2:], [1000.0**2, *[math.pi**2] * 3])


def test_hints_as_far_or_as_wide_as_numbers_go_raise_nothing(recognizer: PlaceRecognizer):
    everywhere = recognizer.recognize(picture(3), hint=Hint((0.0, 0.0, 0.0), 1e308))
    assert everywhere.candidates[0].place.source == "3.png"
    assert recognizer.recognize(picture(3), hint=Hint((0.0, 0.0, 0.0), math.inf)).candidates
    assert recognizer.recognize(picture(3), hint=Hint((-1e308, 1e308, 0.0), 10.0)).status is Status.NO_MATCH
