"""Bytes of a large map, and how long it takes to write and to open it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.lab.benchmarks.synthetic import fill_map
from effovpr_ros.mapping.place_map import PlaceMap


@dataclass(frozen=True)
class MapFigures:
    """A large map.

    Attributes:
        places: in it.
        keypoints: of the first place.
        bytes_per_place: on disk, by part.
        all_patches_fp16_bytes: what fp16 of all patches in full length would take a place.
        written_s: making it of features that are there already.
        opened_ms: opening it once more.
    """

    places: int
    keypoints: int
    bytes_per_place: dict[str, float]
    all_patches_fp16_bytes: int
    written_s: float
    opened_ms: float


def measure_map(path: Path, extractor: FeatureExtractor, places: int, images: Sequence[RgbImage]) -> MapFigures:
    """Make a map and open it.

    Args:
        path: of the new map, which stays.
        extractor: of its features.
        places: N.
        images: that they look like.

    Raises:
        MapError: the folder is in use, or the disk is full.
    """
    spent_s = fill_map(path, extractor, places, images)
    started = time.perf_counter()
    with PlaceMap.open(path) as place_map:
        opened_ms = (time.perf_counter() - started) * 1e3
        parts = {name: round(size / places, 1) for name, size in place_map.bytes_by_part().items()}
        keypoints = len(place_map.local_features([0])[0])
    rows, columns = extractor.layout.grid_hw
    whole = rows * columns * extractor.layout.width * np.dtype(np.float16).itemsize
    return MapFigures(places, keypoints, parts, whole, round(spent_s, 1), round(opened_ms, 1))
