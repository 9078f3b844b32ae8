"""Features of several settings (block, facet, centring, T1) from one forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from effovpr_ros.features.extractor import FeatureExtractor, Features
from effovpr_ros.features.preprocessing import RgbImage


@dataclass(frozen=True)
class TimedFeatures:
    """Features of a batch by one setting.

    Attributes:
        features: one an image, in order.
        extract_ms: the shared forward pass and this setting's own part.
    """

    features: Sequence[Features]
    extract_ms: float


def extract_variants(extractors: Sequence[FeatureExtractor], images: Sequence[RgbImage]) -> list[TimedFeatures]:
    """What `extract` of each extractor gives, for one forward pass of the network that they share.

    Args:
        extractors: at least one, all of one network; see `FeatureExtractor.reading`.
        images: (H, W, 3) uint8 RGB each, at least one.

    Returns:
        One `TimedFeatures` an extractor, in order.

    Raises:
        ImageError: an image of another type or shape.
    """
    started = time.perf_counter()
    blocks = frozenset().union(*(extractor.blocks for extractor in extractors))
    to_the_end = any(extractor.needs_the_end for extractor in extractors)
    output = extractors[0].run(images, blocks, to_the_end=to_the_end)
    shared_ms = (time.perf_counter() - started) * 1e3
    variants = []
    for extractor in extractors:
        started = time.perf_counter()
        features = extractor.features(output)
        variants.append(TimedFeatures(features, shared_ms + (time.perf_counter() - started) * 1e3))
    return variants
