"""`effovpr bench`: speed, size and accuracy on this machine, side by side in one run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_model_options,
    add_preset_option,
    command,
    extractor_config,
    preset,
    print_json,
)
from effovpr_ros.cli.replaying import ROS_REMEDY, run_replay
from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.version import version
from effovpr_ros.engines.catalogue import AUTO, OPENVINO_INT8, what_is_missing
from effovpr_ros.engines.quantisation_images import QuantisationImages
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.lab.benchmarks.accuracy import AccuracyFigures, engines_to_compare, measure_accuracy
from effovpr_ros.lab.benchmarks.datasets import open_dataset, rendered_drives
from effovpr_ros.lab.benchmarks.earlier import EarlierRun, compare, keep, kept_of, stored_runs
from effovpr_ros.lab.benchmarks.machine import describe_machine
from effovpr_ros.lab.benchmarks.map_size import measure_map
from effovpr_ros.lab.benchmarks.network import measure_network
from effovpr_ros.lab.benchmarks.node import NodeFigures
from effovpr_ros.lab.benchmarks.query import measure_query, measure_reranking
from effovpr_ros.lab.benchmarks.report import Report
from effovpr_ros.lab.benchmarks.search import SHORT_DIM, SearchFigures, measure_search
from effovpr_ros.lab.benchmarks.synthetic import jpeg_of, pictures
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.mapping.quantisation_sources import frames_quantisation_images

PARTS = ("network", "search", "query", "rerank", "node", "accuracy")
PLACES = 10_000
"""Of the map that a query, re-ranking and the node are measured on."""

_ON_MAP = {"query", "rerank", "node"}
_PICTURES = 100
_COUNTS = (10, 20, 50, 100)
Figures = TypeVar("Figures")


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(
        commands,
        "bench",
        summary,
        "effovpr bench --quick",
    )
    parser.add_argument(
        "parts", nargs="*", type=_part, metavar="PART", help=f"{', '.join(PARTS)}; all where none is named"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller maps, within three minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--data",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="data sets for accuracy: database/ and queries/ (with positives.csv, or positions in the images), images/ "
        "with loops.csv, or images/ with GPS tags, whose every second is a query; else two rendered drives",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="add this run's ratios to a file, with which later releases are compared",
    )
    add_preset_option(parser)
    add_model_options(parser)
    add_device_options(parser)
    parser.set_defaults(run=_run, engine=AUTO)


def _part(name: str) -> str:
    # argparse compares an empty list with `choices`, too.
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return name


def _run(options: argparse.Namespace) -> int:
    parts = options.parts or list(PARTS)
    report = Bench(options).run(parts)
    if options.json:
        print_json(report)
    else:
        print(report)
    run = kept_of(report, version())
    if run is None:
        return 0
    code = _compare(run)
    if options.keep is not None:
        keep(run, options.keep)
    return code


def _compare(run: EarlierRun) -> int:
    """Say how the default path compares with that of an earlier release; 1 where it became slower."""
    found = compare(run, stored_runs())
    if found is None:
        print(f"no earlier run of a {run.machine} with {run.model} to compare with", file=sys.stderr)
        return 0
    before, changes = found
    print(f"beside version {before.version} of {before.started} (load {before.load}):", file=sys.stderr)
    for change in changes:
        print(f"  {change}", file=sys.stderr)
    worse = [str(change) for change in changes if change.is_worse]
    if worse:
        print(
            f"effovpr: SLOWER than version {before.version}: {'; '.join(worse)}; repeat it on a machine that does "
            f"nothing else (load before this run: {run.load})",
            file=sys.stderr,
        )
    return int(bool(worse))


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Keep what was asked for.

        Args:
            options: of the command.
        """
        self._quick: bool = options.quick
        self._config: ExtractorConfig = extractor_config(options)
        self._recognition = preset(options)[1]
        self._command: str = options.command_line
        self._data: Sequence[Path] = options.data
        self._notes: list[str] = []
        self._images = pictures(_PICTURES)
        self._datasets: list[Dataset] = []

    def run(self, parts: Sequence[str]) -> Report:
        """Measure the parts in the order of `PARTS`.

        Raises:
            EffoVPRError: a data set cannot be read, the model cannot be loaded, or the node failed.
        """
        machine, started = describe_machine(), time.monotonic()
        begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._datasets = [open_dataset(folder) for folder in self._data]
        measured: dict[str, Any] = {}
        if "network" in parts:
            measured["network"] = self._step("network", self._network)
        extractor = FeatureExtractor(self._config, self._calibration())
        if self._config.engine == AUTO and extractor.engine.choice is None:
            self._config = replace(self._config, engine=extractor.choose_engine().engine)
            extractor = FeatureExtractor(self._config, self._calibration())
        if "search" in parts:
            measured["search"] = self._step("search", lambda: self._search(extractor.fingerprint.global_dim))
        if _ON_MAP & set(parts):
            measured |= self._on_map(extractor, parts)
        if "accuracy" in parts:
            measured["accuracy"] = self._step("accuracy", lambda: self._accuracy(extractor.engine.name))
        return Report(
            self._command,
            begun,
            round(time.monotonic() - started, 1),
            machine,
            extractor.fingerprint,
            tuple(self._notes),
            **measured,
        )

    def _network(self) -> Any:
        figures = measure_network(self._config, self._images[0], self._calibration(), quick=self._quick)
        if self._config.engine == AUTO:
            self._config = replace(self._config, engine=figures.best)
        return figures

    def _search(self, own_dim: int) -> list[SearchFigures]:
        largest = {SHORT_DIM: 6, own_dim: 5 if self._quick else 6}
        return [measure_search(10**power, dim) for dim, most in largest.items() for power in range(3, most + 1)]

    def _on_map(self, extractor: FeatureExtractor, parts: Sequence[str]) -> dict[str, Any]:
        measured: dict[str, Any] = {}
        jpegs = [jpeg_of(image) for image in self._images]
        rounds = 20 if self._quick else 60
        with tempfile.TemporaryDirectory(prefix="effovpr_bench_") as scratch:
            path = Path(scratch) / "map"
            measured["map"] = self._step("map", lambda: measure_map(path, extractor, PLACES, self._images))
            if "query" in parts:
                measured["query"] = self._step(
                    "query", lambda: measure_query(extractor, path, jpegs, self._recognition, rounds)
                )
            if "rerank" in parts:
                counts = (_COUNTS[0], _COUNTS[-1]) if self._quick else _COUNTS
                query = extractor.extract([self._images[0]])[0]
                measured["rerank"] = self._step(
                    "rerank",
                    lambda: measure_reranking(
                        extractor, path, query, self._recognition, counts, rounds, 1 if self._quick else 3
                    ),
                )
            if "node" in parts:
                folder = Path(scratch) / "images"
                folder.mkdir()
                for number, jpeg in enumerate(jpegs):
                    (folder / f"{number:03}.jpg").write_bytes(jpeg)
                node = self._step("node", lambda: self._node(path, folder, extractor))
                measured |= {"node": node} if node else {}
        return measured

    def _node(self, map_path: Path, images: Path, extractor: FeatureExtractor) -> NodeFigures | None:
        out = map_path.with_name("node.json")
        arguments = {
            "--map": map_path,
            "--images": images,
            "--out": out,
            "--rounds": 30 if self._quick else 100,
            "--starts": 2 if self._quick else 5,
            "--weights": self._config.weights,
            "--device": self._config.device,
            "--precision": self._config.precision,
            "--engine": extractor.engine.name,
        }
        code = run_replay("node_benchmark", arguments, ["--settle"])
        if code:
            self._notes.append(f"the node was not measured (exit code {code}; its log says why); {ROS_REMEDY}")
            return None
        return NodeFigures.of(json.loads(out.read_text(encoding="utf-8")), extractor.engine.name, PLACES)

    def _accuracy(self, engine: str) -> list[AccuracyFigures]:
        datasets = self._datasets
        if not datasets:
            try:
                datasets = [rendered_drives()]
            except SimulationError as error:
                self._notes.append(f"accuracy was not measured without --data: {error}")
        engines = [engine]
        if not self._quick:
            engines = engines_to_compare(engine, [] if what_is_missing(OPENVINO_INT8) else [OPENVINO_INT8])
        elif len(datasets) > 1:
            self._notes.append(f"accuracy on {datasets[0].name} alone, and of {engine} alone (--quick)")
        return [
            row
            for dataset in (datasets[:1] if self._quick else datasets)
            for row in measure_accuracy(dataset, self._config, engines, self._recognition, self._notes.append)
        ]

    def _calibration(self) -> QuantisationImages:
        """Images for an 8-bit engine: of the first data set, else drawn ones."""
        if self._datasets:
            return frames_quantisation_images(self._datasets[0].database)
        return QuantisationImages(f"{_PICTURES} drawn pictures", lambda: self._images)

    @staticmethod
    def _step(name: str, measure: Callable[[], Figures]) -> Figures:
        started = time.monotonic()
        figures = measure()
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        return figures
