"""Recall on real photographs with the offline weights: the figures that the package promises, for both presets.

Protocols: `rtabmap_loop` matches a frame only with frames at least 10 before it, recall over the frames that
close a loop; `corridor_walk` has two folders; `lund_walk` maps odd file numbers, queries even ones within 12 m.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import KnownFeatures

from effovpr_ros.core.images import RgbImage
from effovpr_ros.lab.evaluation.appearance import change_appearance
from effovpr_ros.lab.evaluation.ground_truth import Dataset, from_folders, from_loops
from effovpr_ros.lab.evaluation.method import EffoVPRMethod, Query
from effovpr_ros.lab.evaluation.metrics import bootstrap_interval
from effovpr_ros.lab.evaluation.runner import database_map
from effovpr_ros.recognition.presets import PRESETS
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.sources.frame import Frame

SETS = ("rtabmap_loop", "corridor_walk", "lund_walk")
CHANGE = 1.5
CONFIGS = {name: config for name, (_, config) in PRESETS.items()}
Hits = dict[tuple[str, str], list[bool]]


def open_set(name: str, data: Path, scratch: Path) -> Dataset:
    folder = data / name
    if name == "rtabmap_loop":
        return from_loops(folder / "images", folder / "loops.csv", min_gap=10)
    if name == "corridor_walk":
        return from_folders(folder / "database", folder / "queries", positives=folder / "positives.csv")
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        part = scratch / ("queries" if number % 2 else "database")
        part.mkdir(exist_ok=True)
        (part / path.name).symlink_to(path)
    return from_folders(scratch / "database", scratch / "queries", radius_m=12.0)


def changed(frames: Sequence[Frame]) -> list[Frame]:
    def load(frame: Frame, seed: int) -> RgbImage:
        return change_appearance(frame.load(), CHANGE, np.random.default_rng(seed))

    return [replace(frame, load=partial(load, frame, seed)) for seed, frame in enumerate(frames)]


def hits(dataset: Dataset, known: KnownFeatures, presets: Mapping[str, RecognizerConfig] = CONFIGS) -> Hits:
    """Whether the first candidate is right, of each query with a positive, by preset and stage."""
    asked = [known.of(frame.load(), *presets) for frame in dataset.queries]
    stored = [known.of(frame.load(), *presets) for frame in dataset.database]
    found: Hits = {}
    for number, (preset, config) in enumerate(presets.items()):
        reader = known.readers[preset]
        queries = [
            Query(frame, made[number], 0.0, among)
            for frame, made, among in zip(dataset.queries, asked, dataset.allowed, strict=True)
        ]
        features = [made[number] for made in stored]
        with database_map(dataset, queries, reader, lambda _: None, known=features) as place_map:
            for stage in ("global", "both"):
                chosen = replace(config, rerank=stage == "both")
                method = EffoVPRMethod(place_map, PlaceRecognizer(reader, place_map, chosen))
                ranked = [method.answer(query).ranked if query.allowed else [] for query in queries]
                found[preset, stage] = [
                    bool(order) and order[0] in right
                    for order, right in zip(ranked, dataset.positives, strict=True)
                    if right
                ]
    return found


def percent(found: Sequence[bool]) -> float:
    return 100.0 * sum(found) / len(found)


def report(name: str, found: Hits) -> None:
    figures = ", ".join(f"{preset} {stage} {percent(right):.1f}" for (preset, stage), right in found.items())
    print(f"\n{name}: R@1 {figures}")


@pytest.mark.parametrize(
    ("name", "paper_global", "paper_both", "least_global"),
    [("rtabmap_loop", 79.0, 93.0, 79.0), ("corridor_walk", 32.0, 86.0, 80.0), ("lund_walk", 85.0, 85.0, 85.0)],
)
def test_recall_of_both_presets(
    real_images: Path,
    known_features: KnownFeatures,
    tmp_path: Path,
    name: str,
    paper_global: float,
    paper_both: float,
    least_global: float,
) -> None:
    found = hits(open_set(name, real_images, tmp_path), known_features)
    report(name, found)
    assert percent(found["paper", "global"]) >= paper_global
    assert percent(found["paper", "both"]) >= paper_both
    assert percent(found["default", "global"]) >= least_global
    assert percent(found["default", "both"]) >= percent(found["paper", "both"])


def test_short_local_descriptors_cost_no_recall(
    real_images: Path, known_features: KnownFeatures, tmp_path: Path
) -> None:
    config = RecognizerConfig()
    right: dict[str, list[bool]] = {"default": [], "full": []}
    for name in SETS:
        found = hits(open_set(name, real_images, tmp_path), known_features, {"default": config, "full": config})
        report(f"{name}, short and full local descriptors", found)
        for codes, all_of_them in right.items():
            all_of_them += found[codes, "both"]
    assert len(right["full"]) == 169
    assert percent(right["default"]) >= percent(right["full"]) - 0.5


@pytest.mark.benchmark
def test_the_default_survives_changes_of_appearance_better(
    real_images: Path, known_features: KnownFeatures, tmp_path: Path
) -> None:
    gains: list[float] = []
    for name in SETS:
        dataset = open_set(name, real_images, tmp_path)
        frames = list(dataset.database)
        found = hits(replace(dataset, database=frames, queries=changed(dataset.queries)), known_features)
        report(f"{name}, queries changed in appearance", found)
        pairs = zip(found["default", "both"], found["paper", "both"], strict=True)
        gains += [float(ours) - float(papers) for ours, papers in pairs]
    low, high = bootstrap_interval(gains)
    print(f"default - paper over all: {percent(gains):.1f} points, 95 % [{100.0 * low:.1f}, {100.0 * high:.1f}]")
    assert low > 0.0
