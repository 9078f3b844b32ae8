"""Features of several settings (block, facet, centring, T1) from one forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from effovpr_ros.core.images import RgbImage
from effovpr_ros.engines.catalogue import TORCH
from effovpr_ros.engines.graph import RequestedOutputs
from effovpr_ros.features.devices import wait_for
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features


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
    """Features of each extractor, from as few forward passes as the engine allows: one with PyTorch.

    Args:
        extractors: at least one, all of one network; see `FeatureExtractor.reading`.
        images: (H, W, 3) uint8 RGB each, at least one.

    Returns:
        One `TimedFeatures` an extractor, in order.

    Raises:
        ImageError: an image of another type or shape.
    """
    variants: dict[int, TimedFeatures] = {}
    for requested, numbers in _passes(extractors).items():
        started = time.perf_counter()
        output = extractors[numbers[0]].run(images, requested)
        wait_for(extractors[numbers[0]].device)
        shared_ms = (time.perf_counter() - started) * 1e3
        for number in numbers:
            started = time.perf_counter()
            features = extractors[number].features(output)
            variants[number] = TimedFeatures(features, shared_ms + (time.perf_counter() - started) * 1e3)
    return [variants[number] for number in range(len(extractors))]


def _passes(extractors: Sequence[FeatureExtractor]) -> dict[RequestedOutputs, list[int]]:
    """Extractors by the forward pass that serves them; other engines than PyTorch give what they were made for."""
    if extractors[0].engine.name == TORCH:
        blocks = frozenset().union(*(extractor.requested_outputs.blocks for extractor in extractors))
        to_the_end = any(extractor.requested_outputs.to_the_end for extractor in extractors)
        return {RequestedOutputs(blocks, to_the_end): list(range(len(extractors)))}
    passes: dict[RequestedOutputs, list[int]] = {}
    for number, extractor in enumerate(extractors):
        passes.setdefault(extractor.requested_outputs, []).append(number)
    return passes
