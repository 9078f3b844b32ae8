"""Saved runs, and one against another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from described import described

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.compare import compare_runs
from effovpr_ros.lab.evaluation.metrics import bootstrap_interval
from effovpr_ros.lab.evaluation.saved_run import load_run

# Right at query 0 and 1; 4 has no positive.
RIGHT_A = ["1", "1", "0", "0", ""]
# Loses 1, gains 2 and 3.
RIGHT_B = ["1", "0", "1", "1", ""]


def save(
    folder: Path,
    rights: dict[str, Sequence[str]],
    *,
    names: Sequence[str] = ("a.png", "b.png", "c.png", "d.png", "e.png"),
    precision: float = 0.5,
    latency: float = 10.0,
    **summary: Any,
) -> Path:
    """A run as `--out` writes it, with chosen answers."""
    folder.mkdir()
    data = {"name": "set/queries", "queries": len(names), "queries_with_positives": 4, "database": 6}
    figures = {"average_precision": precision, "latency_ms": {"total": {"p50": latency, "p95": 2 * latency}}}
    result = {"schema_version": 1, "dataset": data, "random_recall_at_1": 0.25, **summary}
    (folder / "result.json").write_text(json.dumps({**result, "methods": dict.fromkeys(rights, figures)}))
    rows = [
        f"{method},{name},MATCH,0.9000,x.png,{right}"
        for method, column in rights.items()
        for name, right in zip(names, column, strict=True)
    ]
    (folder / "answers.csv").write_text("\n".join(["method,query,status,confidence,database,right", *rows]) + "\n")
    return folder


def test_two_runs_worked_by_hand(tmp_path: Path):
    run_a = load_run(save(tmp_path / "a", {"effovpr": RIGHT_A, "global": RIGHT_A}, precision=0.4, latency=12.0))
    run_b = load_run(save(tmp_path / "b", {"other": RIGHT_A, "effovpr": RIGHT_B}, precision=0.7, latency=9.0))
    (compared,) = compare_runs(run_a, run_b)
    assert (compared.method_a, compared.method_b) == ("effovpr", "effovpr")
    assert (compared.recall_at_1_a, compared.recall_at_1_b, compared.recall_at_1_difference) == (2 / 4, 3 / 4, 1 / 4)
    assert compared.gained == ("c.png", "d.png")
    assert compared.lost == ("b.png",)
    assert compared.average_precision_difference == pytest.approx(0.3)
    assert compared.latency_ms_difference == pytest.approx(-3.0)
    assert compared.recall_at_1_difference_interval == bootstrap_interval([0.0, -1.0, 1.0, 1.0])


def test_the_interval_is_of_paired_differences(tmp_path: Path):
    # The same answers: paired, the difference is certainly 0, however widely each recall may spread.
    run = load_run(save(tmp_path / "a", {"effovpr": RIGHT_A}))
    (compared,) = compare_runs(run, run)
    assert compared.recall_at_1_difference_interval == (0.0, 0.0)
    assert compared.gained == compared.lost == ()


def test_methods_of_other_names_can_be_compared(tmp_path: Path):
    run_a = load_run(save(tmp_path / "a", {"effovpr": RIGHT_A}))
    run_b = load_run(save(tmp_path / "b", {"strict": RIGHT_B}))
    (compared,) = compare_runs(run_a, run_b, ("effovpr", "strict"))
    assert (compared.method_a, compared.method_b, len(compared.gained)) == ("effovpr", "strict", 2)
    with pytest.raises(EvaluationError, match=r"no common method: .*a has effovpr, .*b has strict; .*--method A B"):
        compare_runs(run_a, run_b)
    with pytest.raises(EvaluationError, match=r"b has no method 'effovpr'; it has strict"):
        compare_runs(run_a, run_b, ("effovpr", "effovpr"))


def test_frames_of_one_topic_are_told_apart_by_their_number(tmp_path: Path):
    run_a = load_run(save(tmp_path / "a", {"effovpr": RIGHT_A}, names=["/camera"] * 5))
    run_b = load_run(save(tmp_path / "b", {"effovpr": RIGHT_B}, names=["/camera"] * 5))
    assert compare_runs(run_a, run_b)[0].gained == ("/camera #2", "/camera #3")


def test_runs_that_do_not_compare_are_refused(tmp_path: Path):
    reference = load_run(save(tmp_path / "a", {"effovpr": RIGHT_A}))
    data = {**reference.summary["dataset"], "database": 7}
    other = save(tmp_path / "set", {"effovpr": RIGHT_B}, dataset=data)
    with pytest.raises(EvaluationError, match=r"different data sets \(.*6 database images.*7 database images"):
        compare_runs(reference, load_run(other))
    other = save(tmp_path / "queries", {"effovpr": RIGHT_B}, names=["a.png", "z.png", "c.png", "d.png", "e.png"])
    with pytest.raises(EvaluationError, match=r"different queries: b\.png in .* is z\.png"):
        compare_runs(reference, load_run(other))
    other = save(tmp_path / "radius", {"effovpr": RIGHT_B}, random_recall_at_1=0.5)
    with pytest.raises(EvaluationError, match=r"different ground truth: a guess has R@1 0\.2500 in .*0\.5000"):
        compare_runs(reference, load_run(other))
    other = save(tmp_path / "truth", {"effovpr": ["", "0", "1", "1", "1"]})
    with pytest.raises(EvaluationError, match="different ground truth"):
        compare_runs(reference, load_run(other))


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(EvaluationError, match=r"nowhere holds no run: result\.json is missing; .*--out"):
        load_run(tmp_path / "nowhere")
    folder = save(tmp_path / "old", {"effovpr": RIGHT_A}, schema_version=7)
    with pytest.raises(EvaluationError, match=r"result\.json has the schema version 7, this version reads 1"):
        load_run(folder)
    (folder / "result.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"result\.json cannot be read"):
        load_run(folder)
    folder = save(tmp_path / "short", {"effovpr": RIGHT_A})
    lines = (folder / "answers.csv").read_text().splitlines()
    (folder / "answers.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(EvaluationError, match=r"has 4 answers of effovpr, result\.json 5 queries"):
        load_run(folder)
    (folder / "answers.csv").write_text("\n".join(lines).replace("effovpr", "unknown"))
    with pytest.raises(EvaluationError, match=r"does not fit result\.json beside it \(KeyError: 'unknown'\)"):
        load_run(folder)
    (folder / "answers.csv").unlink()
    with pytest.raises(EvaluationError, match=r"answers\.csv is missing"):
        load_run(folder)


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = save(tmp_path / "a", {"effovpr": RIGHT_A})
    b = save(tmp_path / "b", {"strict": RIGHT_B})
    assert main(["evaluate", "compare", str(a), str(b), "--method", "effovpr", "strict"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[4].split()[:6] == ["effovpr", "/", "strict", "50.0", "75.0", "+25.0"]
    assert printed[5:] == ["  gained 2: c.png, d.png", "  lost 1: b.png"]
    assert main(["evaluate", "compare", str(a), str(a), "--json"]) == 0
    result = described("evaluate-compare", capsys.readouterr().out)
    assert result["runs"] == [str(a), str(a)]
    assert result["methods"][0]["recall_at_1_difference_interval"] == [0.0, 0.0]
    assert main(["evaluate", "compare", str(a), str(b)]) == 1
    assert "no common method" in capsys.readouterr().err
