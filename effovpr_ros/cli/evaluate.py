"""`effovpr evaluate`: how good is a setting on a set of images?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.cli import evaluate_compare
from effovpr_ros.cli.evaluate_ablate import run_ablation
from effovpr_ros.cli.evaluate_forms import (
    LIVE_METHOD,
    add_bag_form,
    add_folders_form,
    add_live_form,
    add_loops_form,
    extractor_for,
    judge_live,
    quantisation_images_for,
)
from effovpr_ros.cli.evaluate_methods import (
    add_method_options,
    base_config,
    fit_methods,
    make_methods,
    parse_methods,
    verifies,
)
from effovpr_ros.cli.evaluate_table import summary_table
from effovpr_ros.cli.evaluate_variants import parse_variants, run_variants, split_variants
from effovpr_ros.cli.options import Subparsers, add_device_options, add_model_options, print_json
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.lab.evaluation.ablation import parse_factors, plan_settings
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.runner import Run, database_map, extract_queries, run_methods
from effovpr_ros.lab.evaluation.saved_run import save_run
from effovpr_ros.lab.evaluation.summary import summarise
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = commands.add_parser("evaluate", help=summary)
    forms = parser.add_subparsers(metavar="FORM", required=True)
    folders, loops, bag, live = (
        add_form(forms) for add_form in (add_folders_form, add_loops_form, add_bag_form, add_live_form)
    )
    for form in (folders, loops, bag, live):
        form.add_argument("--out", type=Path, help="folder for report.html and the files beside it")
        form.add_argument("--json", action="store_true", help="print one JSON object")
    for form in (folders, loops):
        add_model_options(form)
    for form in (folders, loops, bag):
        # The descriptors of an existing map are what they are.
        add_method_options(form, builds_map=form is not bag)
        add_device_options(form)
        form.set_defaults(run=_run)
    live.set_defaults(run=_run_live)
    evaluate_compare.add_parser(forms)


def _run(options: argparse.Namespace) -> int:
    base = base_config(options, getattr(options, "map", None))
    # Variants of the network and ablations are about the stages that the network feeds.
    two_stages = replace(base, verify="off")
    own, others = split_variants(options.methods)
    settings = parse_methods(own, base)
    factors = parse_factors(options.ablate) if options.ablate is not None else ()
    _require_one_camera(options, [*(name for name, made in settings.items() if callable(made)), *others])
    dataset: Dataset = options.dataset(options)
    _print_notes(dataset)
    config = extractor_for(options, dataset)
    if others and not factors:
        return run_variants(
            options, dataset, config, settings, parse_variants(others, two_stages, config), _finish, top_k=base.top_k
        )
    extractor = FeatureExtractor(config, quantisation_images_for(dataset))
    if factors:
        return run_ablation(options, dataset, plan_settings(factors, extractor, two_stages), extractor)
    extractor.seek_faster_engine(len(dataset.queries) + len(dataset.database))
    with tqdm(total=len(dataset.queries), unit="image", desc="queries", disable=None) as bar:
        queries = extract_queries(dataset, extractor, lambda done: bar.update(done))
    with ExitStack() as stack:
        with tqdm(total=len(dataset.database), unit="image", desc="database", disable=None) as bar:
            made = database_map(
                dataset,
                queries,
                extractor,
                lambda done: bar.update(done),
                with_points=any(verifies(config) for config in settings.values()),
            )
            place_map = stack.enter_context(made)
        if options.calibrate:
            for note in fit_methods(settings, extractor, place_map):
                print(f"note: {note}", file=sys.stderr)
        methods = make_methods(
            settings,
            extractor,
            place_map,
            base.top_k,
            asks_map=dataset.map_path is None and dataset.database is not dataset.queries,
        )
        with tqdm(total=len(methods) * len(queries), unit="query", desc="methods", disable=None) as bar:
            results = run_methods(queries, methods, lambda done: bar.update(done))
        configs = {name: made for name, made in settings.items() if isinstance(made, RecognizerConfig)}
        run = Run(dataset, results, options.command_line, queries, methods, configs, extractor.fingerprint)
        return _finish(options, run)


def _require_one_camera(options: argparse.Namespace, methods: Sequence[str]) -> None:
    """Refuse methods that look at one image, where several cameras ask."""
    topics = getattr(options, "image_topic", "")
    if isinstance(topics, list) and len(topics) > 1 and methods:
        raise ConfigError(
            f"{' and '.join(methods)} cannot ask with several cameras; leave them out, or name one --image-topic"
        )


def _run_live(options: argparse.Namespace) -> int:
    live = judge_live(options)
    _print_notes(live.dataset)
    return _finish(options, Run(live.dataset, {LIVE_METHOD: live.result}, options.command_line))


def _print_notes(dataset: Dataset) -> None:
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)


def _finish(options: argparse.Namespace, run: Run) -> int:
    """Print the result, and save it with a report where --out says."""
    summary = summarise(run.dataset, run.results)
    if options.out:
        # Plots take half a second to import, which other commands need not wait for.
        from effovpr_ros.lab.evaluation.report import REPORT_NAME, write_report

        save_run(options.out, summary, run.dataset, run.results)
        write_report(options.out / REPORT_NAME, run, summary)
    if options.json:
        print_json(summary)
    else:
        print(summary_table(summary))
    return 0
