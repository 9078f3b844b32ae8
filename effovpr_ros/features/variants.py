"""Local features of several settings (block, facet, T1) from one forward pass."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from effovpr_ros.features.backbone import Backbone, cls_attention
from effovpr_ros.features.extractor import FeatureExtractor, Features
from effovpr_ros.features.preprocessing import RgbImage, preprocess


@dataclass(frozen=True)
class TimedFeatures:
    """Features of a batch by one setting.

    Attributes:
        features: one an image, in order.
        extract_ms: the forward pass and this setting's own part, as if it ran alone.
    """

    features: Sequence[Features]
    extract_ms: float


@torch.inference_mode()
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
    network = extractors[0]
    started = time.perf_counter()
    with _inputs_of_blocks(network.backbone, {e.backbone.local_block for e in extractors}) as tokens:
        output = network.backbone(preprocess(images, network.config.image_size).to(network.device, network.dtype))
    global_descriptors = functional.normalize(output.cls.float(), dim=-1).cpu().numpy()
    columns, rows = network.backbone.grid_hw[1], network.backbone.grid_hw[0]
    shared_ms = (time.perf_counter() - started) * 1e3
    variants = []
    for extractor in extractors:
        started = time.perf_counter()
        facets, attention = _read(extractor.backbone, tokens)
        facets_array, attention_array = facets.float().cpu().numpy(), attention.cpu().numpy()
        features = [
            Features(global_descriptor, extractor.select(facet, weight, columns), (columns, rows))
            for global_descriptor, facet, weight in zip(global_descriptors, facets_array, attention_array, strict=True)
        ]
        variants.append(TimedFeatures(features, shared_ms + (time.perf_counter() - started) * 1e3))
    return variants


def _read(backbone: Backbone, tokens: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Facet (B, P, C) and attention to [CLS] (B, P) of a backbone's block from the (B, T, C) tokens that enter it."""
    block = backbone.vit.blocks[backbone.local_block]
    prefix = int(backbone.vit.num_prefix_tokens)
    query, key, value = backbone.read_qkv(block, tokens[backbone.local_block])
    chosen = {"query": query, "key": key, "value": value}[backbone.facet][:, :, prefix:]
    facet = chosen.transpose(1, 2).flatten(2)
    return facet, cls_attention(query[:, :, prefix:], key, float(block.attn.scale))


@contextmanager
def _inputs_of_blocks(backbone: Backbone, blocks: set[int]) -> Iterator[dict[int, Tensor]]:
    """Collects the tokens that enter each block while the network runs; a block's first norm sees them."""
    tokens: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        def hook(_: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            tokens[index] = given[0]

        return hook

    handles = [backbone.vit.blocks[index].norm1.register_forward_pre_hook(keep(index)) for index in blocks]
    try:
        yield tokens
    finally:
        for handle in handles:
            handle.remove()
