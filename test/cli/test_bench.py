"""`effovpr bench`: its material, its figures, and that the object it prints is the one that is documented."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described import described
from synthetic import tiny_extractor, tiny_weights

from effovpr_ros.cli import bench
from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.images import decode_image
from effovpr_ros.lab.benchmarks.accuracy import FIRST_STAGE, ORB_BOW, VLAD, engines_to_compare, measure_accuracy
from effovpr_ros.lab.benchmarks.datasets import open_dataset, rendered_drives
from effovpr_ros.lab.benchmarks.node import NodeFigures, full_speed_s
from effovpr_ros.lab.benchmarks.query import ImagesOnlyMap
from effovpr_ros.lab.benchmarks.search import measure_search
from effovpr_ros.lab.benchmarks.synthetic import drives, fill_map, jpeg_of, pictures, second_visits
from effovpr_ros.lab.benchmarks.timing import Timing, side_by_side
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


def test_median_and_spread_worked_by_hand():
    # Of 0, 1, ... 10 the percentiles 10, 50 and 90 are 1, 5 and 9.
    timing = Timing.of([float(value) for value in reversed(range(11))])
    assert timing == Timing(5.0, 1.0, 9.0, 11)
    assert str(timing) == "5.00 (1.00 to 9.00)"
    assert str(Timing.of([0.01234])) == "0.0123 (0.0123 to 0.0123)"


def test_functions_are_timed_in_turn():
    calls: list[str] = []
    timings = side_by_side([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3)
    assert "".join(calls) == "abababab"
    assert [timing.runs for timing in timings] == [3, 3]


def test_drives_are_walks_of_unit_descriptors():
    made = np.concatenate(list(drives(3000, 32)))
    assert made.shape == (3000, 32)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1.0, atol=2e-3)
    np.testing.assert_array_equal(made, made.astype(np.float16))
    # 50 drives of 60 places: neighbours are alike, places of two drives are not.
    neighbours = np.sum(made[:59] * made[1:60], axis=1)
    assert 0.5 < neighbours.mean() < 0.95
    assert abs((made[:60] @ made[60:120].T).mean()) < 0.4
    # With a shared direction all are alike by at least about its square.
    shared = np.concatenate(list(drives(3000, 32, shared=0.7)))
    assert 0.35 < (shared[:60] @ shared[-60:].T).mean() < 0.65
    visits = second_visits(made, 20, cosine=0.8)
    np.testing.assert_allclose((visits @ made.T).max(axis=1), 0.8, atol=0.15)


def test_search_of_a_flat_index_finds_everything():
    figures = measure_search(2000, 16)
    assert (figures.places, figures.dimension, figures.kind, figures.recall_at_10) == (2000, 16, "flat", 1.0)
    assert 0.0 < figures.time.p10_ms <= figures.time.median_ms <= figures.time.p90_ms
    # 16 numbers of 4 bytes, and a header.
    assert 64.0 <= figures.bytes_per_place < 65.0


def test_a_large_map_is_recognised_and_read(tmp_path: Path):
    extractor = tiny_extractor(tmp_path)
    images = pictures(3)
    fill_map(tmp_path / "map", extractor, 30, images)
    with PlaceMap.open(tmp_path / "map") as place_map, ImagesOnlyMap.open(tmp_path / "map") as images_only:
        assert len(place_map) == 30
        assert place_map.check() == []
        descriptor = extractor.extract([images[1]])[0].global_descriptor
        assert place_map.search(descriptor, 1)[0].place.place_id == 1
        # On demand a place is described by its picture.
        images_only.extractor = extractor
        found = images_only.packed_local([7, 1])
        for place_id, features in zip((7, 1), found, strict=True):
            shown = decode_image(place_map.thumbnail(place_id), "thumbnail")
            np.testing.assert_array_equal(features.codes, extractor.extract([shown])[0].local.packed.codes)
        # Places that look alike differ by a turn, so that they are compared at full cost but not taken for one.
        stored = place_map.local_features([1, 4])
        np.testing.assert_array_equal(np.roll(stored[0].codes, 1, axis=0), stored[1].codes)


def test_layouts_of_data_sets(tmp_path: Path):
    for name in ("database", "queries"):
        folder(tmp_path / "two" / name, 3)
    (tmp_path / "two" / "positives.csv").write_text("query,database\n0.jpg,0.jpg\n1.jpg,2.jpg\n")
    two = open_dataset(tmp_path / "two")
    assert (two.name, two.positives) == ("two", [{0}, {2}, set()])
    folder(tmp_path / "lap" / "images", 14)
    (tmp_path / "lap" / "loops.csv").write_text("image,earlier image\n12.jpg,1.jpg\n")
    lap = open_dataset(tmp_path / "lap")
    assert (len(lap.queries), lap.positives[12]) == (14, {1})
    # Ten metres from one photograph to the next: each query lies between two of the map, the last beside one.
    walk = tmp_path / "walk" / "images"
    folder(walk, 4)
    for number in range(4):
        (walk / f"{number}.jpg").rename(walk / f"@{500_000 + 10 * number}@5000000@.jpg")
    found = open_dataset(tmp_path / "walk")
    assert ([len(found.database), len(found.queries)], found.positives) == ([2, 2], [{0, 1}, {1}])
    with pytest.raises(EvaluationError, match="neither database/ and queries/ nor images/"):
        open_dataset(walk)
    for number, photograph in enumerate(sorted(walk.iterdir())):
        photograph.rename(walk / f"@east@north{number}@.jpg")
    with pytest.raises(EvaluationError, match="0 images say where they were taken \\(4 refused\\)"):
        open_dataset(tmp_path / "walk")


def test_accuracy_beside_peers(tmp_path: Path):
    for name in ("database", "queries"):
        folder(tmp_path / "set" / name, 4)
    (tmp_path / "set" / "positives.csv").write_text(
        "query,database\n" + "".join(f"{number}.jpg,{number}.jpg\n" for number in range(4))
    )
    config = replace(tiny_extractor(tmp_path).config, device="cpu")
    told: list[str] = []
    rows = measure_accuracy(
        open_dataset(tmp_path / "set"), config, ["torch", "openvino-int8"], RecognizerConfig(), told.append
    )
    found = {(row.method, row.engine): row for row in rows}
    # Every query is an image of the map.
    assert all(row.recall_at_1 == 100.0 and row.queries == 4 for row in rows)
    assert found[VLAD, "torch"].global_bytes == 32 * 24 * 4
    assert found[FIRST_STAGE, "torch"].local_bytes == 0.0 < found[FIRST_STAGE, "torch"].global_bytes
    assert found[ORB_BOW, ""].global_bytes == 0.0 < found[ORB_BOW, ""].local_bytes
    # Four pictures are too few to calibrate 8 bits with: told, and the rest goes on.
    assert bool(told) != any(engine == "openvino-int8" for _, engine in found)
    assert engines_to_compare("openvino-bf16", ["openvino-int8"]) == ["openvino-bf16", "torch", "openvino-int8"]
    assert engines_to_compare("torch", []) == ["torch"]


def test_the_rendered_drives_have_right_answers():
    pytest.importorskip("vizdoom")
    dataset = rendered_drives()
    assert sum(map(bool, dataset.positives)) > 40
    assert dataset.queries[0].load().shape == (480, 640, 3)


def test_the_object_is_the_documented_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bench, "PLACES", 150)
    monkeypatch.setattr(bench, "measure_search", lambda places, dimension: measure_search(places // 10, dimension))
    folder(tmp_path / "set" / "database", 4)
    shutil.copytree(tmp_path / "set" / "database", tmp_path / "set" / "queries")
    (tmp_path / "set" / "positives.csv").write_text("query,database\n0.jpg,0.jpg\n1.jpg,1.jpg\n")
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(tiny_weights(tmp_path)), "--size", "56"]
    parts = [part for part in bench.PARTS if part != "node"]
    assert main(["bench", *parts, "--quick", "--json", "--data", str(tmp_path / "set"), *model]) == 0
    found = described("bench", capsys.readouterr().out)
    node = NodeFigures.of(raw_figures(), "torch", 150)
    described("bench", json.dumps({**found, "node": asdict(node)}))
    engines = {row["name"]: row for row in found["network"]["engines"]}
    assert engines["torch"]["times_as_fast"] == 1.0
    assert engines["torch-compile"]["skipped"]
    assert found["network"]["best"] == found["query"]["engine"]
    assert found["query"]["limit_ms"] == 15.0
    assert [row["candidates"] for row in found["rerank"]] == [10, 100]
    assert found["map"]["places"] == found["query"]["places"] == 150
    assert {row["dataset"] for row in found["accuracy"]} == {"set"}
    assert found["node"] is None


def test_tables_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bench, "PLACES", 150)
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(tiny_weights(tmp_path)), "--size", "56"]
    assert main(["bench", "query", "--quick", "--engine", "torch", *model]) == 0
    said = capsys.readouterr().out
    assert "### One query, torch, 150 places, 100 candidates" in said
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len({len(line) for line in rows if "network" in line or "decide" in line}) == 1
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "everything"])
    assert stopped.value.code == 2
    assert "'everything' is none of network" in capsys.readouterr().err


def test_the_node_is_started_and_asked(tmp_path: Path, offline_extractor: Any):
    pytest.importorskip("rclpy")
    images = pictures(2)
    fill_map(tmp_path / "map", offline_extractor, 6, images)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(jpeg_of(image))
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.node_benchmark", "--map", tmp_path / "map"]
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out.json", "--rounds", "3", "--starts", "1"]
    done = subprocess.run([*map(str, (*command, *options))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = NodeFigures.of(json.loads((tmp_path / "out.json").read_text()), "torch", 6)
    assert figures.latency.runs == 3
    assert figures.around.median_ms < figures.latency.median_ms
    assert figures.stages["total"].median_ms < figures.latency.median_ms
    assert 100.0 < figures.anonymous_mib < figures.resident_mib
    assert figures.start.median_ms > 500.0
    assert figures.first_answer.median_ms > figures.start.median_ms
    assert figures.first_answer_torch.runs == 1
    missing = subprocess.run(
        [*map(str, (*command[:-1], tmp_path / "none", *options))], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1
    assert "refused to configure" in missing.stderr


def folder(path: Path, count: int) -> None:
    path.mkdir(parents=True)
    for number, image in enumerate(pictures(count)):
        (path / f"{number}.jpg").write_bytes(jpeg_of(image))


def raw_figures() -> dict[str, Any]:
    stages = {
        name: [1.0, 2.0] for name in ("extract_ms", "search_ms", "rerank_ms", "verify_ms", "decide_ms", "total_ms")
    }
    return {
        "start_s": [3.0],
        "first_answer_s": [3.3],
        "first_answer_torch_s": [3.0],
        "settling": [[(4.0, 100.0), (5.0, 100.0), (6.0, 50.0), (7.0, 50.0), (8.0, 50.0)], [(4.0, 50.0)]],
        "latency_ms": [5.0, 7.0],
        "stages_ms": stages,
        "resident_mib": 700.04,
        "anonymous_mib": 500.0,
    }


@pytest.mark.parametrize(
    ("passes_ms", "from_answer"),
    [
        ([100.0] * 4 + [40.0] * 12, 3),
        # A single slow one among fast ones is another program's.
        ([100.0] * 4 + [40.0] * 6 + [90.0] + [40.0] * 12, 3),
        ([40.0] * 12, 0),
        ([100.0], 0),
        # The last ten are what counts: 50 is not half as much again as 40.
        ([50.0] * 5 + [40.0] * 10, 0),
    ],
)
def test_full_speed_is_reached_with_the_first_of_three_fast_answers(passes_ms: list[float], from_answer: int):
    """Of answers that come a second apart."""
    assert full_speed_s([(float(number), pass_ms) for number, pass_ms in enumerate(passes_ms)]) == from_answer


def test_node_figures_worked_by_hand():
    figures = NodeFigures.of(raw_figures(), "torch", 6)
    assert figures.start.median_ms == 3000.0
    assert figures.times_torch == pytest.approx(1.1)
    assert (figures.full_speed_first_s, figures.full_speed_later_s) == (5.0, 4.0)
    unsettled = NodeFigures.of({**raw_figures(), "settling": []}, "torch", 6)
    assert (unsettled.full_speed_first_s, unsettled.full_speed_later_s) == (None, None)
    # 5 - 1 and 7 - 2.
    assert (figures.around.median_ms, figures.around.runs) == (4.5, 2)
    assert figures.resident_mib == 700.0
