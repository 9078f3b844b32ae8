"""Metrics worked by hand, ground truth of both forms, and the command on a small set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from described import described
from PIL import Image
from synthetic import picture, tiny_extractor, tiny_weights

from effovpr_ros.cli.evaluate_methods import parse_methods
from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import ConfigError, EvaluationError
from effovpr_ros.lab.evaluation.ground_truth import from_folders, from_loops
from effovpr_ros.lab.evaluation.method import EffoVPRMethod
from effovpr_ros.lab.evaluation.metrics import bootstrap_interval, precision_recall, random_recall_at_1, recall_at_k
from effovpr_ros.lab.evaluation.runner import database_map, extract_queries
from effovpr_ros.recognition.presets import PRESETS
from effovpr_ros.recognition.recognizer import DecidedBy, PlaceRecognizer, RecognizerConfig, Status
from effovpr_ros.recognition.third_stage import point_extractor


def test_recall_worked_by_hand():
    ranked = [[3, 1], [2, 0], [5], [], [1, 2]]
    positives = [{1}, {2}, set(), {4}, {9}]
    # With positives: queries 0, 1, 3 and 4. Right at 1: query 1. Right at 2: 0 and 1.
    assert recall_at_k(ranked, positives, 1) == (1 / 4, 1 / 5)
    assert recall_at_k(ranked, positives, 2) == (2 / 4, 2 / 5)
    assert recall_at_k(ranked, positives, 20) == (2 / 4, 2 / 5)
    with pytest.raises(EvaluationError, match="no query has a positive"):
        recall_at_k([[1]], [set()], 1)


def test_a_guess_worked_by_hand():
    # One of four, two of five; the third has no positive; 7 is not allowed.
    positives, allowed = [{0}, {1, 2}, set(), {7, 1}], [range(4), range(5), range(5), range(2)]
    assert random_recall_at_1(positives, allowed) == pytest.approx((1 / 4 + 2 / 5 + 1 / 2) / 3)
    assert random_recall_at_1([set()], [range(3)]) == 0.0


def test_precision_and_recall_worked_by_hand():
    # In order: right, right, wrong and right together, wrong. Five queries have a positive.
    curve = precision_recall([0.5, 0.9, 0.8, 0.5, 0.1], [True, True, True, False, False], 5)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.5, 0.1]
    assert curve.precision.tolist() == [1.0, 1.0, 3 / 4, 3 / 5]
    assert curve.recall.tolist() == [1 / 5, 2 / 5, 3 / 5, 3 / 5]
    assert curve.average_precision == pytest.approx(1 / 5 + 1 / 5 + 3 / 4 / 5)
    assert curve.recall_at(1.0) == 2 / 5
    assert curve.recall_at(0.7) == 3 / 5
    assert precision_recall([0.9], [False], 3).recall_at(0.99) == 0.0


def test_precision_and_recall_equal_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    confidences, right = rng.integers(0, 20, 200) / 20, rng.random(200) < 0.6
    curve = precision_recall(confidences.tolist(), right.tolist(), int(right.sum()))
    assert curve.average_precision == pytest.approx(metrics.average_precision_score(right, confidences), abs=1e-12)
    precision, recall, threshold = metrics.precision_recall_curve(right, confidences)
    np.testing.assert_allclose(curve.precision[::-1], precision[:-1])
    np.testing.assert_allclose(curve.recall[::-1], recall[:-1])
    np.testing.assert_allclose(curve.threshold[::-1], threshold)


def test_bootstrap_brackets_the_mean():
    low, high = bootstrap_interval([True] * 80 + [False] * 20)
    # The normal approximation gives 0.8 +- 1.96 * 0.04.
    assert low == pytest.approx(0.722, abs=0.02)
    assert high == pytest.approx(0.878, abs=0.02)
    assert bootstrap_interval([True] * 5) == (1.0, 1.0)
    assert bootstrap_interval([True, False]) == bootstrap_interval([True, False])


def save(folder: Path, names: list[str], first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=first):
        Image.fromarray(picture(number)).save(folder / name)
    return folder


def test_positives_by_radius_in_utm(tmp_path: Path):
    stored = save(tmp_path / "database", ["@550000.0@4180000.0@.png", "@550030.0@4180040.0@.png"])
    asked = save(tmp_path / "queries", ["@550010.0@4180000.0@.png", "@551000.0@4180000.0@.png"])
    assert from_folders(stored, asked).positives == [frozenset({0}), frozenset()]
    # Query 0 is 10 m and hypot(20, 40) = 44.7 m away.
    assert from_folders(stored, asked, radius_m=45.0).positives[0] == frozenset({0, 1})
    with pytest.raises(EvaluationError, match="no query has a positive; check the radius"):
        from_folders(stored, asked, radius_m=5.0)
    with pytest.raises(EvaluationError, match="radius nan"):
        from_folders(stored, asked, radius_m=float("nan"))


def test_degrees_and_missing_positions_are_detected(tmp_path: Path):
    stored = save(tmp_path / "database", ["@8.68@50.1@.png"])
    asked = save(tmp_path / "queries", ["@8.68@50.1@b.png"])
    with pytest.raises(EvaluationError, match="hold degrees where UTM metres are due"):
        from_folders(stored, asked)
    plain = save(tmp_path / "plain", ["a.png"])
    with pytest.raises(EvaluationError, match=r"a\.png has no position; .*--positives"):
        from_folders(plain, plain)


def test_positives_and_loops_by_table(tmp_path: Path):
    stored, asked = save(tmp_path / "database", ["a.png", "b.png"]), save(tmp_path / "queries", ["q.png", "r.png"])
    table = tmp_path / "positives.csv"
    table.write_text("query,database\nq.png,database/b.png\n")
    assert from_folders(stored, asked, positives=table).positives == [frozenset({1}), frozenset()]
    table.write_text("query,database\nq.png,c.png\n")
    with pytest.raises(EvaluationError, match=r"line 2: c\.png is not among the images of the database"):
        from_folders(stored, asked, positives=table)
    table.write_text("query,database\nq.png\n")
    with pytest.raises(EvaluationError, match="line 2: wanted two file names"):
        from_folders(stored, asked, positives=table)

    frames = save(tmp_path / "drive", [f"{n}.png" for n in (1, 2, 9, 10, 11)])
    table.write_text("image,earlier\n10.png,1.png\n10.png,9.png\n11.png,2.png\n")
    dataset = from_loops(frames, table, min_gap=3)
    assert [Path(frame.name).name for frame in dataset.queries] == ["1.png", "2.png", "9.png", "10.png", "11.png"]
    assert dataset.allowed == [range(0), range(0), range(0), range(1), range(2)]
    # 9.png is only one frame before 10.png.
    assert dataset.positives == [frozenset(), frozenset(), frozenset(), frozenset({0}), frozenset({1})]
    with pytest.raises(EvaluationError, match="min_gap 0"):
        from_loops(frames, table, min_gap=0)


def test_two_images_of_one_name_are_refused(tmp_path: Path):
    save(tmp_path / "database" / "x", ["a.png"])
    save(tmp_path / "database" / "y", ["a.png"])
    table = tmp_path / "positives.csv"
    table.write_text("query,database\na.png,a.png\n")
    with pytest.raises(EvaluationError, match=r"two images are named a\.png"):
        from_folders(tmp_path / "database", tmp_path / "database" / "x", positives=table)


def test_methods_are_parsed_or_refused():
    texts = ["effovpr", "global", "strict:match_confidence=0.5,top_k=7,rerank=true"]
    methods = parse_methods(texts, PRESETS["paper"][1])
    assert [config.rerank for config in methods.values()] == [True, False, True]
    assert {config.score for config in methods.values()} == {"count"}
    assert (methods["strict"].match_confidence, methods["strict"].top_k) == (0.5, 7)
    for text, said in (
        ("bow", "method 'bow' is unknown"),
        ("x:speed=3", "no setting 'speed'"),
        ("x:top_k=many", "'many' is no int"),
        ("x:rerank=1", "neither true nor false"),
        ("x:score=sum", "score 'sum'"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse_methods([text], PRESETS["default"][1])
    with pytest.raises(ConfigError, match="comes twice"):
        parse_methods(["global", "global"], PRESETS["default"][1])


def test_the_command_on_a_set_whose_answers_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stored = save(tmp_path / "set" / "database", [f"@{550000 + 100 * n}.0@4180000.0@.png" for n in range(6)])
    # The same pictures from 5 m away, and one of nowhere.
    asked = save(tmp_path / "set" / "queries", [f"@{550005 + 100 * n}.0@4180000.0@.png" for n in range(6)])
    save(asked, ["@600000.0@4180000.0@.png"], first=50)
    weights = tiny_weights(tmp_path)
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(weights), "--size", "56", "--preset", "default"]
    out = tmp_path / "out"
    code = main(["evaluate", "folders", str(stored), str(asked), "--json", "--out", str(out), *model])
    result = described("evaluate", capsys.readouterr().out)
    assert code == 0
    assert result["schema_version"] == 1
    assert result["dataset"] == {"name": "set/queries", "queries": 7, "queries_with_positives": 6, "database": 6}
    assert result["random_recall_at_1"] == pytest.approx(1 / 6)
    for method in result["methods"].values():
        assert method["recall"]["1"] == 1.0
        assert method["recall_all_queries"]["1"] == pytest.approx(6 / 7)
        assert method["calibration_error"] is None
        assert set(method["latency_ms"]) == {"extract", "search", "rerank", "verify", "pose", "decide", "total"}
        assert method["recall_at_1_interval"] == [1.0, 1.0]
    assert result["methods"]["effovpr"]["recall_at_precision"]["1.0"] == 1.0
    # 512 fp16 numbers, and 16 keypoints of 12 bytes: all patches, which needs no mask.
    assert result["methods"]["global"]["bytes_per_place"] == 1024
    # Both stages; points of the third one come on top: 4 bytes, and 36 for each of the 1024 strongest at most.
    points = [min(1024, len(point_extractor("cpu").extract(picture(number)))) for number in range(6)]
    assert min(points) > 0
    assert result["methods"]["effovpr"]["bytes_per_place"] == 1024 + 16 * 12 + 4 + 36 * np.mean(points)
    assert json.loads((out / "result.json").read_text()) == result
    rows = list(csv.DictReader((out / "answers.csv").open()))
    assert len(rows) == 14
    assert [row["right"] for row in rows[:7]] == ["1"] * 6 + [""]


def test_a_sequence_is_one_stream_a_folder(tmp_path: Path):
    extractor = tiny_extractor(tmp_path)
    stored = save(tmp_path / "database", [f"{n:02}.png" for n in range(12)])
    for folder in ("day", "night"):
        save(tmp_path / "queries" / folder, [f"{folder}{n:02}.png" for n in range(12)])
    table = tmp_path / "positives.csv"
    names = [f"{folder}{n:02}.png,{n:02}.png\n" for folder in ("day", "night") for n in range(12)]
    table.write_text("query,database\n" + "".join(names))
    dataset = from_folders(stored, tmp_path / "queries", positives=table)
    queries = extract_queries(dataset, extractor, lambda done: None)
    # No image alone is a MATCH: no confidence is 1.
    config = RecognizerConfig(match_confidence=1.0, sequence_length=10)
    with database_map(dataset, queries, extractor, lambda done: None) as place_map:
        method = EffoVPRMethod(place_map, PlaceRecognizer(extractor, place_map, config))
        answers = [method.answer(query) for query in queries]
    assert [answer.ranked[0] for answer in answers] == [*range(12), *range(12)]
    found = [answer.recognition for answer in answers]
    assert [item is not None and item.decided_by is DecidedBy.SEQUENCE for item in found] == [True] * 24
    assert (answers[11].status, answers[12].status, answers[23].status) == (
        Status.MATCH,
        Status.AMBIGUOUS,
        Status.MATCH,
    )
    assert found[12] is not None
    assert "after 1.0 frames" in found[12].reason


def test_loops_answer_from_the_past_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    frames = save(tmp_path / "drive", [f"{n:02}.png" for n in range(4)])
    save(frames, [f"{n + 4:02}.png" for n in range(4)], first=0)
    table = tmp_path / "loops.csv"
    table.write_text("image,earlier\n" + "".join(f"{n + 4:02}.png,{n:02}.png\n" for n in range(4)))
    weights = tiny_weights(tmp_path)
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(weights), "--size", "56", "--t1", "0.0"]
    assert main(["evaluate", "loops", str(frames), "--loops", str(table), "--min-gap", "2", *model]) == 0
    printed = capsys.readouterr().out
    assert "8 queries, 4 with a positive, 8 database images" in printed
    assert [line.split()[1] for line in printed.splitlines()[2:4]] == ["100.0", "100.0"]
