"""An evaluation on disk: result.json and answers.csv (docs/evaluation.md), written and read back."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.runner import MethodResult
from effovpr_ros.lab.evaluation.summary import ANSWER_COLUMNS, answer_rows
from effovpr_ros.lab.evaluation.summary_records import SCHEMA_VERSION

RESULT_NAME = "result.json"
ANSWERS_NAME = "answers.csv"


@dataclass(frozen=True)
class SavedAnswer:
    """One row of answers.csv.

    Attributes:
        query: name of the image.
        right: whether the first candidate is a positive; None where the query has none.
    """

    query: str
    right: bool | None


@dataclass(frozen=True)
class SavedRun:
    """A run that was read back.

    Attributes:
        folder: where it lies.
        summary: what `summarise` gave.
        answers: of each method, in the order of the queries.
    """

    folder: Path
    summary: Mapping[str, Any]
    answers: Mapping[str, tuple[SavedAnswer, ...]]


def save_run(folder: Path, summary: Mapping[str, Any], dataset: Dataset, results: Mapping[str, MethodResult]) -> None:
    """Write result.json and answers.csv.

    Raises:
        EvaluationError: the folder cannot be written.
    """
    save_json(folder / RESULT_NAME, summary)
    try:
        with (folder / ANSWERS_NAME).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ANSWER_COLUMNS)
            table.writeheader()
            table.writerows(answer_rows(dataset, results))
    except OSError as error:
        raise _not_saved(folder, error) from error


def save_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object, and the folder that it lies in.

    Raises:
        EvaluationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _not_saved(path.parent, error) from error


def load_run(folder: Path) -> SavedRun:
    """Read what `save_run` wrote.

    Raises:
        EvaluationError: no run there, one of another schema version, or a damaged one.
    """
    result, answers = folder / RESULT_NAME, folder / ANSWERS_NAME
    for path in (result, answers):
        if not path.is_file():
            raise EvaluationError(
                f"{folder} holds no run: {path.name} is missing; give a folder that `effovpr evaluate ... --out` wrote"
            )
    try:
        summary = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{result} cannot be read: {error}; evaluate again") from error
    version = summary.get("schema_version") if isinstance(summary, dict) else None
    if version != SCHEMA_VERSION:
        raise EvaluationError(
            f"{result} has the schema version {version}, this version reads {SCHEMA_VERSION}; evaluate again"
        )
    return SavedRun(folder, summary, _read_answers(answers, summary))


def _read_answers(path: Path, summary: Mapping[str, Any]) -> dict[str, tuple[SavedAnswer, ...]]:
    rights = {"1": True, "0": False, "": None}
    found: dict[str, list[SavedAnswer]] = {name: [] for name in summary["methods"]}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[row["method"]].append(SavedAnswer(row["query"], rights[row["right"]]))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise EvaluationError(
            f"{path} does not fit {RESULT_NAME} beside it ({type(error).__name__}: {error}); evaluate again"
        ) from error
    for name, answers in found.items():
        if len(answers) != summary["dataset"]["queries"]:
            raise EvaluationError(
                f"{path} has {len(answers)} answers of {name}, {RESULT_NAME} {summary['dataset']['queries']} queries; "
                "evaluate again"
            )
    return {name: tuple(answers) for name, answers in found.items()}


def _not_saved(folder: Path, error: OSError) -> EvaluationError:
    return EvaluationError(f"the run cannot be saved in {folder}: {error.strerror}; choose another --out")
