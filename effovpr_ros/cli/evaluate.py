"""`effovpr evaluate`: how good is a setting on a set of images?"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from effovpr_ros.cli import evaluate_compare
from effovpr_ros.cli.evaluate_ablate import add_ablate_option, run_ablation
from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_model_options,
    command,
    extractor_config,
    print_json,
)
from effovpr_ros.errors import ConfigError
from effovpr_ros.evaluation.ablation import parse_factors, plan_settings
from effovpr_ros.evaluation.ground_truth import Dataset, from_folders, from_loops
from effovpr_ros.evaluation.method import EffoVPRMethod, Method
from effovpr_ros.evaluation.orb_bow import OrbBowMethod
from effovpr_ros.evaluation.runner import database_map, extract_queries, run_methods
from effovpr_ros.evaluation.saved_run import save_run
from effovpr_ros.evaluation.summary import summarise
from effovpr_ros.evaluation.vlad import VladMethod
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.config import RecognizerConfig
from effovpr_ros.recognition.recognizer import PlaceRecognizer

PRESETS = {"default": RecognizerConfig(), "paper": RecognizerConfig(score="count")}
"""What `--preset` names; they share T1, T2, block and K, and differ in the score."""

DEFAULT_METHODS = ["effovpr", "global"]

Baseline = Callable[[PlaceMap, int], Method]
"""Makes a method of a map and the most places in an answer."""
BASELINES: dict[str, Baseline] = {"vlad": VladMethod, "orb-bow": OrbBowMethod}


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
    folders.add_argument("--radius", type=float, default=25.0, help="metres within which two images show one place")
    folders.set_defaults(
        dataset=lambda given: from_folders(
            given.database, given.queries, positives=given.positives, radius_m=given.radius
        )
    )
    loops = command(
        forms,
        "loops",
        "evaluate one drive against its own past",
        "effovpr evaluate loops images/ --loops loops.csv --min-gap 10",
    )
    loops.add_argument("images", type=Path, help="frames in natural order of their names")
    loops.add_argument("--loops", type=Path, required=True, help="CSV (image, earlier image) of right answers")
    loops.add_argument("--min-gap", type=int, default=10, help="least number of frames between a frame and its match")
    loops.set_defaults(dataset=lambda given: from_loops(given.images, given.loops, min_gap=given.min_gap))
    for form in (folders, loops):
        form.add_argument(
            "--methods",
            nargs="+",
            default=DEFAULT_METHODS,
            help="effovpr (both stages), global (stage 1 only), vlad (of the same model's local descriptors), orb-bow "
            "(classical SLAM), or NAME:key=value,... with settings of recognition",
        )
        add_ablate_option(form)
        form.add_argument("--preset", choices=tuple(PRESETS), default="default", help="paper re-ranks by count")
        form.add_argument("--top-k", type=int, default=PRESETS["default"].top_k, help="candidates to re-rank")
        form.add_argument(
            "--out", type=Path, help="folder for report.html, result.json and answers.csv, or ablation.json"
        )
        form.add_argument("--json", action="store_true", help="print one JSON object")
        add_model_options(form)
        add_device_options(form)
        form.set_defaults(run=_run)
    evaluate_compare.add_parser(forms)


def _run(options: argparse.Namespace) -> int:
    base = replace(PRESETS[options.preset], top_k=options.top_k)
    wanted = parse_methods(options.methods, base)
    factors = () if options.ablate is None else parse_factors(options.ablate)
    if factors and options.methods != DEFAULT_METHODS:
        raise ConfigError("--ablate varies settings of effovpr; give it without --methods")
    dataset: Dataset = options.dataset(options)
    extractor = FeatureExtractor(extractor_config(options))
    if factors:
        return run_ablation(options, dataset, plan_settings(factors, extractor, base), extractor)
    with tqdm(total=len(dataset.queries), unit="image", desc="queries", disable=None) as bar:
        queries = extract_queries(dataset, extractor, lambda done: bar.update(done))
    with ExitStack() as stack:
        with tqdm(total=len(dataset.database), unit="image", desc="database", disable=None) as bar:
            place_map = stack.enter_context(database_map(dataset, queries, extractor, lambda done: bar.update(done)))
        methods = {
            name: EffoVPRMethod(place_map, PlaceRecognizer(extractor, place_map, made))
            if isinstance(made, RecognizerConfig)
            else made(place_map, options.top_k)
            for name, made in tqdm(wanted.items(), unit="method", desc="set up", disable=None)
        }
        with tqdm(total=len(methods) * len(queries), unit="query", desc="methods", disable=None) as bar:
            results = run_methods(queries, methods, lambda done: bar.update(done))
        summary = summarise(dataset, results)
        if options.out:
            # Plots take half a second to import, which other commands need not wait for.
            from effovpr_ros.evaluation.report import REPORT_NAME, Run, write_report

            save_run(options.out, summary, dataset, results)
            settings = {name: made if isinstance(made, RecognizerConfig) else None for name, made in wanted.items()}
            run = Run(dataset, queries, methods, results, settings, extractor.fingerprint, options.command_line)
            write_report(options.out / REPORT_NAME, run, summary)
    if options.json:
        print_json(summary)
    else:
        print(_table(summary))
    return 0


def parse_methods(texts: Sequence[str], base: RecognizerConfig) -> dict[str, RecognizerConfig | Baseline]:
    """Methods by name.

    Args:
        texts: effovpr, global, a baseline, or NAME:key=value,... with fields of `RecognizerConfig`.
        base: what the settings change.

    Raises:
        ConfigError: an unknown method, field or value, settings of a baseline, or a name that comes twice.
    """
    methods: dict[str, RecognizerConfig | Baseline] = {}
    known = {entry.name: entry for entry in fields(RecognizerConfig)}
    for text in texts:
        name, _, settings = text.partition(":")
        values: dict[str, Any] = {}
        if name in methods:
            raise ConfigError(f"method {name!r} comes twice; give one of them another name")
        if name in BASELINES:
            if settings:
                raise ConfigError(f"method {text!r}: {name} has no settings; give settings of effovpr another name")
            methods[name] = BASELINES[name]
            continue
        if not settings:
            if name not in ("effovpr", "global"):
                known_names = ", ".join(("effovpr", "global", *BASELINES))
                raise ConfigError(f"method {name!r} is unknown; use {known_names} or NAME:key=value,...")
            values = {"rerank": name == "effovpr"}
        for setting in filter(None, settings.split(",")):
            key, _, value = setting.partition("=")
            if key not in known:
                raise ConfigError(f"method {text!r}: no setting {key!r}; use {', '.join(known)}")
            values[key] = _convert(value, known[key].default, text)
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


def _table(summary: dict[str, Any]) -> str:
    data = summary["dataset"]
    lines = [
        f"{data['name']}: {data['queries']} queries, {data['queries_with_positives']} with a positive, "
        f"{data['database']} database images; a guess has R@1 {100.0 * summary['random_recall_at_1']:.1f}",
        f"{'method':16}{'R@1':>6} {'95 %':>13}{'R@5':>7}{'R@10':>7}{'AP':>7}{'R@P=1':>7}{'MATCH':>7}{'wrong':>7}"
        f"{'ms':>8}{'KB':>7}",
    ]
    for name, method in summary["methods"].items():
        low, high = (100.0 * value for value in method["recall_at_1_interval"])
        recall = {k: 100.0 * value for k, value in method["recall"].items()}
        lines.append(
            f"{name:16}{recall['1']:6.1f} {f'[{low:.0f}, {high:.0f}]':>13}{recall['5']:7.1f}{recall['10']:7.1f}"
            f"{method['average_precision']:7.3f}{method['recall_at_precision']['1.0']:7.3f}{method['matches']:7d}"
            f"{method['wrong_matches']:7d}{method['latency_ms']['total']['p50']:8.1f}"
            f"{method['bytes_per_place'] / 1e3:7.1f}"
        )
    return "\n".join(lines)
