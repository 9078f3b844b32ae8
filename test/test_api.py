"""The three names of `effovpr_ros.api`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from synthetic import picture

from effovpr_ros.api import Recognizer, build_map, open_map
from effovpr_ros.core.errors import ConfigError, ImageError, SourceError
from effovpr_ros.recognition.recognizer import Status

TABLE = "image,x,y,z,qx,qy,qz,qw\n" + "".join(f"{number}.png,{10 * number},0,0,0,0,0,1\n" for number in range(4))


def write_photos(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(picture(number, 320, 240), cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, poses.csv and map/."""
    folder = tmp_path_factory.mktemp("api")
    write_photos(folder / "photos")
    (folder / "poses.csv").write_text(TABLE, encoding="utf-8")
    report = build_map(folder / "map", folder / "photos", table=folder / "poses.csv", device="cpu")
    assert (report.places, report.added, report.refused) == (4, 4, ())
    return folder


@pytest.fixture(scope="module")
def recognizer(built: Path):
    with open_map(built / "map", device="cpu") as opened:
        yield opened


def test_an_image_gives_the_place_it_was_taken_at(recognizer: Recognizer, built: Path):
    answer = recognizer.recognize(built / "photos" / "2.png")
    assert answer.status is not Status.NO_MATCH
    assert answer.place is not None and answer.place.source == "2.png"
    assert answer.pose is not None and answer.pose.position_xyz == (20.0, 0.0, 0.0)
    assert answer.covariance is not None and answer.covariance.shape == (6, 6)
    assert 0.0 <= answer.confidence <= 1.0


def test_a_file_and_its_pixels_give_one_answer(recognizer: Recognizer, built: Path):
    by_file = recognizer.recognize(str(built / "photos" / "1.png"))
    by_array = recognizer.recognize(picture(1, 320, 240))
    assert [c.place.place_id for c in by_file.candidates] == [c.place.place_id for c in by_array.candidates]
    assert by_file.confidence == by_array.confidence


def test_an_answer_is_drawn_beside_its_place(recognizer: Recognizer, built: Path):
    answer = recognizer.recognize(built / "photos" / "3.png")
    drawn = recognizer.draw(built / "photos" / "3.png", answer)
    assert drawn.shape[1:] == (1000, 3) and drawn.dtype == np.uint8
    # 496 pixels of panel at 4:3, below a bar of one line or more.
    assert drawn.shape[0] >= 372 + 36


def test_a_map_is_added_to_and_keeps_its_model(built: Path, tmp_path: Path):
    folder = tmp_path / "map"
    build_map(folder, built / "photos", device="cpu")
    again = build_map(folder, built / "photos", device="cpu")
    assert (again.places, again.added) == (4, 0)
    more = build_map(folder, write_photos(tmp_path / "more", 5), session="two", device="cpu")
    assert (more.places, more.added) == (9, 5)
    with pytest.raises(ConfigError, match="is of model offline, not large"):
        build_map(folder, built / "photos", model="large")


def test_what_cannot_be_used_is_named(built: Path, tmp_path: Path):
    photos = write_photos(tmp_path / "photos", 2)
    (photos / "broken.jpg").write_bytes(b"no picture")
    report = build_map(tmp_path / "map", photos, device="cpu")
    assert report.added == 2
    assert len(report.refused) == 1 and report.refused[0].startswith("broken.jpg")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SourceError, match="holds no image"):
        build_map(tmp_path / "other", tmp_path / "nothing")
    assert not (tmp_path / "other").exists()
    with pytest.raises(ConfigError, match="'tpo_k' is no setting"):
        open_map(tmp_path / "map", settings={"tpo_k": 3})
    with open_map(tmp_path / "map", device="cpu", settings={"rerank": False}) as opened:
        with pytest.raises(ImageError):
            opened.recognize(tmp_path / "missing.jpg")
        assert not any(item.num_matches for item in opened.recognize(photos / "0.png").candidates)


def test_the_examples_of_module_and_readme_run(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import effovpr_ros.api as api

    of_module = "\n".join(line[4:] for line in (api.__doc__ or "").splitlines() if line.startswith("    "))
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (of_readme,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "photos").symlink_to(built / "photos")
    for name in ("where_is_this.jpg", "second_look.jpg"):
        (tmp_path / name).symlink_to(built / "photos" / "0.png")
    monkeypatch.chdir(tmp_path)
    for example in (of_module, of_readme):
        assert "open_map" in example
        names: dict[str, object] = {}
        exec(compile(example, "example", "exec"), names)
        assert re.match(r"(MATCH|AMBIGUOUS|NO_MATCH) [01]\.\d+", capsys.readouterr().out)
    assert names["picture"].shape[1:] == (1000, 3)  # type: ignore[attr-defined]


def test_the_notebook_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]):
    """Its cells in order, as Jupyter runs them; it is kept without outputs."""
    notebook = json.loads((Path(__file__).parents[1] / "examples" / "first_map.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 6 and not any(cell["outputs"] for cell in cells)
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "first_map.ipynb", "exec"), names)
    assert names["built"].added == 16
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7 and sum("MATCH " in line and line.startswith("again_") for line in printed) == 5
    assert all(answer.status is not Status.MATCH for name, answer in names["answers"].items() if "elsewhere" in name)
