"""Recall on real photographs with the offline weights: the figures that the package promises.

Protocols: `rtabmap_loop` matches a frame only with frames at least 10 before it, recall over the frames that
close a loop; `corridor_walk` has two folders; `lund_walk` maps odd file numbers, queries even ones within 12 m.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effovpr_ros.features.extractor import FeatureExtractor, Features
from effovpr_ros.features.preprocessing import read_image
from effovpr_ros.mapping.geodesy import Datum
from effovpr_ros.matching.reranking import RerankConfig, Reranker
from effovpr_ros.sources.images import open_image_folder

TOP_K = 100
LOOP_MIN_GAP = 10
LUND_RADIUS_M = 12.0


def extract(extractor: FeatureExtractor, paths: Sequence[Path]) -> list[Features]:
    features: list[Features] = []
    for start in range(0, len(paths), 8):
        features += extractor.extract([read_image(path) for path in paths[start : start + 8]])
    return features


def first_choices(
    queries: Sequence[Features], database: Sequence[Features], allowed: Sequence[Sequence[int]]
) -> dict[str, list[int]]:
    """Best database index of every query by stage 1 alone and by each score (-1 where nothing is allowed)."""
    rerankers = {score: Reranker(RerankConfig(score=score)) for score in ("count", "weighted")}
    globals_ = np.stack([item.global_descriptor for item in database])
    choices: dict[str, list[int]] = {"stage 1": [], **{score: [] for score in rerankers}}
    for query, indices in zip(queries, allowed, strict=True):
        if not len(indices):
            for chosen in choices.values():
                chosen.append(-1)
            continue
        similarity = globals_[np.asarray(indices)] @ query.global_descriptor
        order = np.asarray(indices)[np.argsort(-similarity, kind="stable")[:TOP_K]]
        choices["stage 1"].append(int(order[0]))
        for name, reranker in rerankers.items():
            scores = np.array([s.score for s in reranker.score(query.local, [database[i].local for i in order])])
            choices[name].append(int(order[np.argsort(-scores, kind="stable")[0]]))
    return choices


def recall_at_1(choices: Sequence[int], positives: Sequence[set[int]]) -> float:
    scored = [choice in truth for choice, truth in zip(choices, positives, strict=True) if truth]
    return 100.0 * sum(scored) / len(scored)


def require(name: str, choices: dict[str, list[int]], positives: Sequence[set[int]], least: dict[str, float]) -> None:
    recall = {stage: recall_at_1(chosen, positives) for stage, chosen in choices.items()}
    print(f"\n{name}: R@1 " + ", ".join(f"{stage} {value:.1f}" for stage, value in recall.items()))
    for stage, value in least.items():
        assert recall[stage] >= value, stage


def test_rtabmap_loop(real_images: Path, offline_extractor: FeatureExtractor) -> None:
    folder = real_images / "rtabmap_loop"
    rows = list(csv.reader((folder / "loops.csv").open()))[1:]
    paths = sorted((folder / "images").iterdir(), key=lambda path: int("".join(filter(str.isdigit, path.stem))))
    index = {path.name: i for i, path in enumerate(paths)}
    positives: dict[int, set[int]] = defaultdict(set)
    for image, earlier, *_ in rows:
        positives[index[Path(image).name]].add(index[Path(earlier).name])
    features = extract(offline_extractor, paths)
    allowed = [range(max(0, i - LOOP_MIN_GAP + 1)) for i in range(len(paths))]
    choices = first_choices(features, features, allowed)
    truth = [positives[i] for i in range(len(paths))]
    require("rtabmap_loop", choices, truth, {"stage 1": 79.0, "count": 93.0, "weighted": 93.0})


def test_corridor_walk(real_images: Path, offline_extractor: FeatureExtractor) -> None:
    folder = real_images / "corridor_walk"
    database = sorted((folder / "database").iterdir())
    queries = sorted((folder / "queries").iterdir())
    index = {path.name: i for i, path in enumerate(database)}
    positives: dict[str, set[int]] = defaultdict(set)
    for query, place, *_ in list(csv.reader((folder / "positives.csv").open()))[1:]:
        positives[Path(query).name].add(index[Path(place).name])
    allowed = [range(len(database))] * len(queries)
    choices = first_choices(extract(offline_extractor, queries), extract(offline_extractor, database), allowed)
    truth = [positives[path.name] for path in queries]
    require("corridor_walk", choices, truth, {"stage 1": 32.0, "count": 86.0, "weighted": 86.0})


def test_lund_walk(real_images: Path, offline_extractor: FeatureExtractor) -> None:
    frames = list(open_image_folder(real_images / "lund_walk" / "images", kind="exif").frames)
    geos = [frame.geo for frame in frames if frame.geo is not None]
    assert len(geos) == len(frames) == 29
    datum = Datum(geos[0])
    positions = np.array([datum.to_enu(geo)[:2] for geo in geos])
    database, queries = list(range(0, 29, 2)), list(range(1, 29, 2))
    features: list[Features] = []
    for frame in frames:
        features += offline_extractor.extract([frame.load()])
    distance = np.linalg.norm(positions[queries][:, None] - positions[database][None], axis=2)
    truth = [set(np.flatnonzero(row <= LUND_RADIUS_M).tolist()) for row in distance]
    allowed = [range(len(database))] * len(queries)
    choices = first_choices([features[i] for i in queries], [features[i] for i in database], allowed)
    require("lund_walk", choices, truth, {"stage 1": 85.0, "count": 85.0, "weighted": 85.0})
