"""`effovpr evaluate`: how good is a setting on a set of images?"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from effovpr_ros.cli.evaluate_forms import add_bag_form, add_live_form, extractor_for, loops_dataset
from effovpr_ros.cli.evaluate_table import summary_table
from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_model_options,
    add_pose_options,
    command,
    print_json,
)
from effovpr_ros.errors import ConfigError
from effovpr_ros.evaluation.ground_truth import RADIUS_M, Dataset, from_folders
from effovpr_ros.evaluation.method import EffoVPRMethod
from effovpr_ros.evaluation.runner import MethodResult, database_map, extract_queries, run_methods
from effovpr_ros.evaluation.summary import ANSWER_COLUMNS, answer_rows, summarise
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.recognition.config import RecognizerConfig
from effovpr_ros.recognition.recognizer import PlaceRecognizer

PRESETS = {"default": RecognizerConfig(), "paper": RecognizerConfig(score="count")}
"""What `--preset` names; they share T1, T2, block and K, and differ in the score."""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("evaluate", help="measure recall, precision and speed on images with ground truth")
    forms = parser.add_subparsers(metavar="FORM", required=True)
    folders = command(
        forms,
        "folders",
        "evaluate a database folder and a query folder",
        "effovpr evaluate folders database/ queries/ --radius 25 --methods effovpr global",
    )
    folders.add_argument("database", type=Path, help="images named @utm_east@utm_north@...@.jpg or with EXIF GPS")
    folders.add_argument("queries", type=Path, help="likewise")
    folders.add_argument("--positives", type=Path, help="CSV (query, database) of right answers instead of positions")
    folders.add_argument("--table", type=Path, help="CSV of the database: image, x, y or image, latitude, longitude")
    folders.add_argument("--query-table", type=Path, help="CSV of the queries, likewise")
    folders.add_argument("--radius", type=float, default=RADIUS_M, help="metres within which two images show one place")
    folders.set_defaults(
        dataset=lambda given: from_folders(
            given.database,
            given.queries,
            positives=given.positives,
            table=given.table,
            query_table=given.query_table,
            radius_m=given.radius,
        )
    )
    loops = command(
        forms,
        "loops",
        "evaluate one drive against its own past",
        "effovpr evaluate loops images/ --loops loops.csv --min-gap 10",
    )
    loops.add_argument("images", type=Path, help="folder of frames in natural order of their names, or a bag")
    loops.add_argument("--loops", type=Path, help="of a folder: CSV (image, earlier image) of right answers")
    loops.add_argument("--min-gap", type=int, default=10, help="least number of frames between a frame and its match")
    loops.add_argument("--spacing-m", type=float, default=0.0, help="of a bag: metres between frames; 0: every frame")
    add_pose_options(loops)
    loops.set_defaults(dataset=lambda given: loops_dataset(given, loops.error))
    bag = add_bag_form(forms)
    live = add_live_form(forms, _finish)
    for form in (folders, loops, bag, live):
        form.add_argument("--out", type=Path, help="folder for result.json and answers.csv")
        form.add_argument("--json", action="store_true", help="print one JSON object")
    for form in (folders, loops):
        add_model_options(form)
    for form in (folders, loops, bag):
        form.add_argument(
            "--methods",
            nargs="+",
            default=["effovpr", "global"],
            help="effovpr (both stages), global (stage 1 only), or NAME:key=value,... with settings of recognition",
        )
        form.add_argument("--preset", choices=tuple(PRESETS), default="default", help="paper re-ranks by count")
        form.add_argument("--top-k", type=int, default=PRESETS["default"].top_k, help="candidates to re-rank")
        add_device_options(form)
        form.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    configs = parse_methods(options.methods, replace(PRESETS[options.preset], top_k=options.top_k))
    dataset: Dataset = options.dataset(options)
    extractor = FeatureExtractor(extractor_for(options, dataset))
    with tqdm(total=len(dataset.queries), unit="image", desc="queries", disable=None) as bar:
        queries = extract_queries(dataset, extractor, lambda done: bar.update(done))
    with ExitStack() as stack:
        with tqdm(total=len(dataset.database), unit="image", desc="database", disable=None) as bar:
            place_map = stack.enter_context(database_map(dataset, queries, extractor, lambda done: bar.update(done)))
        methods = {
            name: EffoVPRMethod(place_map, PlaceRecognizer(extractor, place_map, config))
            for name, config in configs.items()
        }
        with tqdm(total=len(methods) * len(queries), unit="query", desc="methods", disable=None) as bar:
            results = run_methods(queries, methods, lambda done: bar.update(done))
    return _finish(options, dataset, results)


def _finish(options: argparse.Namespace, dataset: Dataset, results: Mapping[str, MethodResult]) -> int:
    """Print the summary, and write it where --out says."""
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)
    summary = summarise(dataset, results)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "result.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        with (options.out / "answers.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ANSWER_COLUMNS)
            table.writeheader()
            table.writerows(answer_rows(dataset, results))
    if options.json:
        print_json(summary)
    else:
        print(summary_table(summary))
    return 0


def parse_methods(texts: Sequence[str], base: RecognizerConfig) -> dict[str, RecognizerConfig]:
    """Methods by name.

    Args:
        texts: effovpr, global, or NAME:key=value,... with fields of `RecognizerConfig`.
        base: what the settings change.

    Raises:
        ConfigError: an unknown method, field or value, or a name that comes twice.
    """
    methods: dict[str, RecognizerConfig] = {}
    known = {entry.name: entry for entry in fields(RecognizerConfig)}
    for text in texts:
        name, _, settings = text.partition(":")
        values: dict[str, Any] = {}
        if not settings:
            if name not in ("effovpr", "global"):
                raise ConfigError(f"method {name!r} is unknown; use effovpr, global or NAME:key=value,...")
            values = {"rerank": name == "effovpr"}
        for setting in filter(None, settings.split(",")):
            key, _, value = setting.partition("=")
            if key not in known:
                raise ConfigError(f"method {text!r}: no setting {key!r}; use {', '.join(known)}")
            values[key] = _convert(value, known[key].default, text)
        if name in methods:
            raise ConfigError(f"method {name!r} comes twice; give one of them another name")
        methods[name] = replace(base, **values)
    return methods


def _convert(value: str, default: object, text: str) -> object:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"method {text!r}: {value!r} is neither true nor false")
        return value.lower() == "true"
    try:
        return type(default)(value)  # type: ignore[call-arg]
    except ValueError as error:
        raise ConfigError(f"method {text!r}: {value!r} is no {type(default).__name__}") from error
