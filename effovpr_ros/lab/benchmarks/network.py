"""The network alone: bare forward pass, engines, and what comes before and after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from effovpr_ros.core.errors import EngineError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.engines.catalogue import ENGINES, TORCH, TORCH_COMPILE, what_is_missing
from effovpr_ros.engines.quantisation_images import QuantisationImages
from effovpr_ros.features.devices import resolve_device, wait_for
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.lab.benchmarks.timing import Timing, side_by_side


@dataclass(frozen=True)
class EngineFigures:
    """An engine, or why it was not measured.

    Attributes:
        name: of the engine.
        time: of the network on one image, as far as the features read it; None where it was not measured.
        times_as_fast: as PyTorch, by medians of this run.
        agreement: cosines to PyTorch's descriptors, see `engines.agreement.Agreement`; None for PyTorch.
        opened_s: loading the weights and opening the engine, with what earlier runs left in the cache.
        skipped: why it was not measured; empty if it was.
    """

    name: str
    time: Timing | None
    times_as_fast: float | None
    agreement: dict[str, float] | None
    opened_s: float | None
    skipped: str


@dataclass(frozen=True)
class NetworkFigures:
    """Of one image.

    Attributes:
        image_size: side of the input in pixels.
        whole_network: bare forward pass of all blocks in PyTorch: what a model that reads the last block cannot beat.
        engines: as the catalogue lists them.
        best: the fastest engine whose descriptors `auto` accepts.
    """

    image_size: int
    whole_network: Timing
    engines: list[EngineFigures]
    best: str


def measure_network(
    config: ExtractorConfig, image: RgbImage, quantisation_images: QuantisationImages, *, quick: bool
) -> NetworkFigures:
    """Run every engine that this machine has, in turn.

    Args:
        config: of the features; its engine plays no part.
        image: to run on.
        quantisation_images: images for an 8-bit engine.
        quick: fewer rounds, and no engine that compiles at each start.
    """
    device = resolve_device(config.device).type
    opened: dict[str, tuple[FeatureExtractor, float]] = {}
    skipped: dict[str, str] = {}
    for name in ENGINES:
        if quick and name == TORCH_COMPILE:
            skipped[name] = "compiles for a minute and more; left out by --quick"
            continue
        skipped[name] = what_is_missing(name) or _of_another_device(name, device)
        if not skipped[name]:
            started = time.perf_counter()
            try:
                extractor = FeatureExtractor(replace(config, engine=name), quantisation_images)
                opened[name] = extractor, time.perf_counter() - started
            except EngineError as error:
                skipped[name] = str(error)
    reference = opened[TORCH][0]
    pixels = reference.pixels([image])
    whole = _finished(reference, lambda: reference.backbone.vit.forward_features(pixels))
    runs = [_finished(extractor, _run(extractor, image)) for extractor, _ in opened.values()]
    with torch.inference_mode():
        bare, *times = side_by_side([whole, *runs], 7 if quick else 21)
    timed = dict(zip(opened, times, strict=True))
    rows = [
        EngineFigures(
            name,
            timed[name],
            round(timed[TORCH].median_ms / timed[name].median_ms, 3),
            _agreement(opened[name][0]),
            round(opened[name][1], 3),
            "",
        )
        if name in opened
        else EngineFigures(name, None, None, None, None, skipped[name])
        for name in ENGINES
    ]
    accepted = [name for name, (extractor, _) in opened.items() if _accepted(name, extractor)]
    best = min(accepted, key=lambda name: timed[name].median_ms)
    return NetworkFigures(config.image_size, bare, rows, best)


def _run(extractor: FeatureExtractor, image: RgbImage) -> Callable[[], object]:
    pixels = extractor.pixels([image])
    return lambda: extractor.engine.run(pixels)


def _finished(extractor: FeatureExtractor, run: Callable[[], object]) -> Callable[[], None]:
    def finish() -> None:
        run()
        wait_for(extractor.device)

    return finish


def _of_another_device(name: str, device: str) -> str:
    runs_on = ENGINES[name].device
    return "" if runs_on in ("any", device) else f"for {runs_on} only"


def _agreement(extractor: FeatureExtractor) -> dict[str, Any] | None:
    return extractor.engine.agreement.to_dict() if extractor.engine.agreement else None


def _accepted(name: str, extractor: FeatureExtractor) -> bool:
    return ENGINES[name].automatic and extractor.engine.keeps_accuracy
