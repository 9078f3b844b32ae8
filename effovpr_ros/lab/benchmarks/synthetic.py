"""Descriptors, places and maps of any size, made up so that searching and reading them costs what real ones do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.engines.agreement import scene
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.mapping.index_codes import turned
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.third_stage import describe_points

IMAGE_WH = (640, 480)

_DRIVE = 1000
_DRIVES = 50
# As measured on real drives: cosines of neighbours are 0.5 to 0.95.
_STEP = 0.5
_BATCH = 500


def drives(count: int, dimension: int, *, shared: float = 0.0) -> Iterator[NDArray[np.float32]]:
    """Descriptors of drives, 50 at a time: a random walk each, with variance 1/i along axis i.

    Args:
        count: N.
        dimension: D.
        shared: length of the direction that all descriptors share.

    Yields:
        (M, D) float32, L2-normalised and rounded to fp16 as a map keeps them.
    """
    rng = np.random.default_rng(0)
    scale = np.arange(1, dimension + 1, dtype=np.float32) ** -0.5
    direction = rng.standard_normal(dimension).astype(np.float32)
    direction *= shared / np.linalg.norm(direction)
    for start in range(0, count, _DRIVES * _DRIVE):
        walk = np.empty((_DRIVES, min(_DRIVE, -(-count // _DRIVES)), dimension), np.float32)
        walk[:, 0] = rng.standard_normal((_DRIVES, dimension), dtype=np.float32) * scale
        for number in range(1, walk.shape[1]):
            turn = rng.standard_normal((_DRIVES, dimension), dtype=np.float32) * scale
            walk[:, number] = np.sqrt(1.0 - _STEP**2) * walk[:, number - 1] + _STEP * turn
        block = walk.reshape(-1, dimension)[: count - start]
        block *= np.sqrt(1.0 - shared**2) / np.linalg.norm(block, axis=1, keepdims=True)
        block += direction
        yield (block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def second_visits(descriptors: NDArray[np.float32], count: int, *, cosine: float = 0.8) -> NDArray[np.float32]:
    """Queries that have a cosine with a place, the same places for the same descriptors.

    Args:
        descriptors: (N, D) of places.
        count: M queries.
        cosine: of a query with the place that it shows.

    Returns:
        (M, D) float32, L2-normalised.
    """
    rng = np.random.default_rng(1)
    shown, other, third = (descriptors[rng.integers(0, len(descriptors), count)] for _ in range(3))
    return turned(shown, other - third, cosine)


def pictures(count: int) -> list[RgbImage]:
    """Drawn scenes of 640 x 480 pixels, the same on every machine."""
    return [scene(number, IMAGE_WH) for number in range(count)]


def fill_map(folder: Path, extractor: FeatureExtractor, count: int, images: Sequence[RgbImage]) -> float:
    """Make a map of many places in a row, one metre apart.

    Local descriptors, thumbnails and points are those of the images in turn, so that a place is compared at full cost;
    global descriptors are those of drives, but for the first places, which the images show.

    Args:
        folder: of the new map.
        extractor: of its features.
        count: N places.
        images: that the places look like.

    Returns:
        Seconds, without those that features and descriptors took.

    Raises:
        MapError: the folder is in use, or the disk is full.
    """
    shown = [extractor.extract([image])[0] for image in images]
    thumbnails = [make_thumbnail(image, BuildConfig().thumbnail_side) for image in images]
    points = [*map(describe_points(str(extractor.device)), images)]
    descriptors = np.concatenate(list(drives(count, extractor.fingerprint.global_dim)))
    for number, features in enumerate(shown[:count]):
        descriptors[number] = features.global_descriptor
    started = time.perf_counter()
    with PlaceMap.create(folder, fingerprint=extractor.fingerprint) as place_map:
        places = (_place(number, descriptors[number], shown, thumbnails, points) for number in range(count))
        while batch := list(islice(places, _BATCH)):
            place_map.add(batch)
        place_map.flush()
    return time.perf_counter() - started


def jpeg_of(image: RgbImage) -> bytes:
    """An image as a camera sends it."""
    return make_thumbnail(image, max(image.shape))


def _place(
    number: int,
    descriptor: NDArray[np.float32],
    shown: Sequence[Features],
    thumbnails: Sequence[bytes],
    points: Sequence[bytes],
) -> NewPlace:
    like = shown[number % len(shown)]
    # Turned by some columns, no two places are the same though they look alike.
    codes = np.roll(like.local.codes, number // len(shown), axis=0)
    features = Features(descriptor, LocalFeatures(codes, like.local.cells_xy), like.grid_wh)
    pose = Pose.from_yaw(float(number), 0.0, 0.0)
    thumbnail = thumbnails[number % len(thumbnails)]
    stored = points[number % len(points)]
    return NewPlace("drive", number, f"{number}.jpg", pose, None, IMAGE_WH, thumbnail, features, stored)
