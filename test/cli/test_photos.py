"""`effovpr demo photos`, and the page that it and `effovpr query --page` write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from effovpr_ros.cli.main import main
from effovpr_ros.lab.demo_photos import FOLDER

MOST_BYTES = 500_000


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    assert main(["demo", "photos", "--out", str(folder), "--device", "cpu"]) == 0
    return folder


def test_the_pictures_are_small_and_each_has_its_row():
    files = [path for path in FOLDER.rglob("*") if path.suffix in (".jpg", ".csv")]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    rows = (FOLDER / "map" / "poses.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == sorted(path.name for path in (FOLDER / "map").glob("*.jpg"))


def test_places_seen_again_are_found_and_others_are_not(demo: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "photos", "--out", str(demo), "--device", "cpu", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    again = [item for item in results if item["in_the_map"]]
    assert len(again) == 5 and len(results) == 7
    for item in again:
        # Second views are taken within a metre of their place, and places are five metres apart.
        assert item["status"] == "MATCH" and item["distance_m"] <= 1.05, item
    assert all(item["status"] != "MATCH" for item in results if not item["in_the_map"])


def test_the_page_needs_nothing_else(demo: Path):
    page = (demo / "photos.html").read_text(encoding="utf-8")
    assert page.count('<article class="card">') == 7
    assert page.count('src="data:image/webp;base64,') == 7
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page


def test_a_query_writes_its_page_with_what_cannot_be_read(demo: Path, tmp_path: Path):
    (tmp_path / "<b>.jpg").write_bytes(b"no picture")
    images = [str(FOLDER / "queries" / "again_0.jpg"), str(tmp_path / "<b>.jpg")]
    page = tmp_path / "page.html"
    assert main(["query", str(demo / "photo_map"), *images, "--page", str(page), "--device", "cpu"]) == 1
    text = page.read_text(encoding="utf-8")
    assert text.count('<article class="card">') == 2 and text.count("data:image/webp") == 1
    assert "&lt;b&gt;.jpg" in text and "<b>.jpg" not in text and ">ERROR<" in text


def test_a_page_that_cannot_be_written_is_one_line(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image = str(FOLDER / "queries" / "again_0.jpg")
    missing = tmp_path / "missing" / "page.html"
    assert main(["query", str(demo / "photo_map"), image, "--page", str(missing), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.strip().endswith("page.html does not exist; make it or choose another --page")
    assert main(["query", str(demo / "photo_map"), str(FOLDER / "queries"), "--device", "cpu"]) == 1
    assert "queries is a folder; name the pictures in it" in capsys.readouterr().out


def test_a_map_is_checked_for_programs_too(demo: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["map", "check", str(demo / "photo_map"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"map": "photo_map", "places": 16, "problems": []}
