"""`effovpr query` with pictures that cannot be read: each is named, the others are answered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import recorded_pictures as pictures
from described import described
from PIL import Image
from synthetic import picture, tiny_weights

from effovpr_ros.cli.main import main


@pytest.fixture
def place_map(tmp_path: Path) -> list[str]:
    """A map of three pictures, and the options that open it."""
    (tmp_path / "in").mkdir()
    for seed in range(3):
        Image.fromarray(picture(seed)).save(tmp_path / "in" / f"{seed}.png")
    weights = ["--weights", str(tiny_weights(tmp_path)), "--device", "cpu"]
    model = ["--model", "vit_tiny_test_patch14", "--size", "56", "--t1", "0", "--points", "none"]
    assert main(["map", "build", str(tmp_path / "map"), str(tmp_path / "in"), *weights, *model]) == 0
    return [str(tmp_path / "map"), *weights]


def test_bad_pictures_cost_themselves_alone(place_map: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = {
        "bomb.png": pictures.png_header(60000, 60000),
        "above_2_30.png": pictures.png_header(2**15 + 1, 2**15 + 1),
        "empty.jpg": b"",
        "cut.jpg": pictures.encoded("JPEG")[:800],
        os.fsdecode(b"caf\xe9.jpg"): b"noise",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    asked = [
        *(str(tmp_path / name) for name in bad),
        str(tmp_path / "pipe.jpg"),
        str(tmp_path),
        str(tmp_path / "gone.jpg"),
    ]
    good = str(tmp_path / "in" / "1.png")
    capsys.readouterr()
    assert main(["query", place_map[0], *asked, good, *place_map[1:]]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  ")]
    assert len(lines) == len(asked) + 1
    assert all("ERROR" in line for line in lines[:-1])
    assert r"caf\xe9.jpg" in lines[4]
    assert "1.png" in lines[-1]
    assert "ERROR" not in lines[-1]


def test_the_limit_is_an_option(place_map: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = str(tmp_path / "in" / "1.png")
    capsys.readouterr()
    assert main(["query", place_map[0], good, *place_map[1:], "--json", "--max-megapixels", "0.001"]) == 1
    assert "96x72 pixels" in described("query", capsys.readouterr().out)["results"][0]["error"]
    assert main(["query", place_map[0], good, *place_map[1:], "--max-megapixels", "0"]) == 1
    assert "--max-megapixels 0.0 must be above 0" in capsys.readouterr().err
