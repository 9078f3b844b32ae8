"""A whole training run: from images and settings to a tail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from effovpr_ros.core.errors import ConfigError, TrainingError
from effovpr_ros.features.backbone import create_backbone
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.tail_file import TailInfo
from effovpr_ros.features.weights import LoadedWeights, load_weights
from effovpr_ros.lab.training.augmentation import AugmentationConfig
from effovpr_ros.lab.training.distributed import Processes
from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.lab.training.place_classes import (
    Places,
    PlacesConfig,
    TrainingFrame,
    Validation,
    make_places,
    make_validation,
)
from effovpr_ros.lab.training.progress import Progress
from effovpr_ros.lab.training.state import EpochResult
from effovpr_ros.lab.training.trainer import TAIL_NAME, Trainer, TrainingData
from effovpr_ros.lab.training.training_config import TrainConfig
from effovpr_ros.lab.training.views import Views, ViewsConfig

_VALIDATION_SEED = 1_000_003
"""Of the changes of validation images, so that runs with other seeds are judged alike."""
_SAME_RESULT = ("accumulate", "gradient_checkpointing", "save_every", "stored")
"""Settings that may change while a run is interrupted."""


@dataclass(frozen=True)
class TrainRequest:
    """What to train, on what.

    Attributes:
        training: images.
        validation: images that choose the weights; may be empty.
        model: as in `ExtractorConfig`.
        weights: of the base; empty for the model's own source.
        facet: that regional pooling reads.
        centered: whether it subtracts the image's mean facet.
        places: how images become classes.
        augmentation: how they are changed.
        train: how the tail learns.
        out: folder of the result and of the saved state.
        cache: folder of kept views; inside `out` if None.
        workers: threads that read images.
        command: as typed, for the tail's file.
    """

    training: tuple[TrainingFrame, ...]
    validation: tuple[TrainingFrame, ...]
    out: Path
    model: str = ExtractorConfig().model
    weights: str = ""
    facet: str = ExtractorConfig().facet
    centered: bool = ExtractorConfig().centered
    places: PlacesConfig = field(default_factory=PlacesConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    cache: Path | None = None
    workers: int = 2
    command: str = ""


@dataclass(frozen=True)
class TrainResult:
    """What came of a run.

    Attributes:
        tail: path of its file.
        epochs: results, the state before training first.
        best: epoch whose weights the file holds.
    """

    tail: Path
    epochs: tuple[EpochResult, ...]
    best: int


def train(
    request: TrainRequest,
    processes: Processes,
    report: Callable[[Progress], object],
    note: Callable[[str], object],
) -> TrainResult:
    """Train, or go on with a run of the same request in the same folder.

    Args:
        request: what to do.
        processes: that train together.
        report: called after every step.
        note: called with lines for people.

    Raises:
        ConfigError: impossible settings, or a saved run of others in the folder.
        TrainingError: nothing to train on, or out of memory or disk.
        WeightsError: no usable base.
    """
    places = make_places(request.training, request.places)
    validation = make_validation(request.validation, request.places) if request.validation else None
    _say(note, places, validation)
    base = load_weights(request.model, request.weights)
    if base.tail is not None:
        raise ConfigError(f"--weights {request.weights}: training begins at base weights, not at a tail")
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"--out {request.out} cannot be made: {error.strerror}") from error
    tail, info = _make_tail(request, base, processes.device)
    data = _make_data(request, tail, info, places, validation, processes.device)
    settings = _settings(request, info, places)
    trainer = Trainer(tail, data, request.train, info, processes, request.out, settings)
    if trainer.resumed:
        note(f"going on with the run in {request.out}")
    try:
        epochs = trainer.run(report)
    finally:
        data.views.close()
        if data.validation_views is not None:
            data.validation_views.close()
    return TrainResult(request.out / TAIL_NAME, epochs, trainer.best)


def _make_tail(request: TrainRequest, base: LoadedWeights, device: torch.device) -> tuple[TrainableTail, TailInfo]:
    config = request.train
    backbone = create_backbone(base, image_size=config.image_size).to(device)
    tail = TrainableTail(
        backbone,
        train_blocks=config.train_blocks,
        pooling=config.pooling,
        local_block=config.local_block,
        facet=request.facet,
        centered=request.centered,
        dims=[text.strip() for text in config.dims.split(",")],
        generator=torch.Generator().manual_seed(config.seed),
        gradient_checkpointing=config.gradient_checkpointing,
    ).to(device)
    info = TailInfo(
        architecture=base.timm_name.split(".")[0],
        base_sha256=base.sha256,
        train_blocks=config.train_blocks,
        pooling=config.pooling,
        block=backbone.layout.block_number(config.local_block),
        facet=request.facet,
        centered=request.centered,
        dims=tail.dims,
        image_size=config.image_size,
        command=request.command,
        seed=config.seed,
    )
    return tail, info


def _make_data(
    request: TrainRequest,
    tail: TrainableTail,
    info: TailInfo,
    places: Places,
    validation: Validation | None,
    device: torch.device,
) -> TrainingData:
    config = request.train
    bf16 = config.uses_bf16(device)

    def prefix(pixels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return tail.prefix(pixels)

    network = json.dumps([info.base_sha256, tail.frozen, bf16, str(device.type)])
    cache = request.cache or request.out / "cache"
    augmentation = request.augmentation
    views = Views(
        places.frames,
        prefix,
        ViewsConfig(config.image_size, augmentation, config.seed, config.views),
        network=network,
        cache=cache,
        device=device,
        workers=request.workers,
    )
    if validation is None:
        return TrainingData(places, views)
    validation_views = Views(
        validation.frames,
        prefix,
        ViewsConfig(config.image_size, augmentation, _VALIDATION_SEED, 2, first_is_plain=True),
        network=network,
        cache=cache,
        device=device,
        workers=request.workers,
    )
    return TrainingData(places, views, validation, validation_views)


def _settings(request: TrainRequest, info: TailInfo, places: Places) -> str:
    """Everything that the result depends on."""
    names = [f"{frame.session}/{frame.name}/{frame.stamp_ns}" for frame in places.frames]
    classes = hashlib.sha256(json.dumps([names, [asdict(group) for group in places.groups]]).encode()).hexdigest()
    held_out = [f"{item.area}/{item.frame.name}/{item.frame.stamp_ns}" for item in request.validation]
    return json.dumps(
        {
            "model": request.model,
            "base_sha256": info.base_sha256,
            "facet": request.facet,
            "centered": request.centered,
            **asdict(request.places),
            **asdict(request.augmentation),
            **{name: value for name, value in asdict(request.train).items() if name not in _SAME_RESULT},
            "images": classes,
            "validation": hashlib.sha256(json.dumps(held_out).encode()).hexdigest(),
        }
    )


def _say(note: Callable[[str], object], places: Places, validation: Validation | None) -> None:
    classes = sum(len(group.classes) for group in places.groups)
    note(f"{len(places.frames)} images of {classes} classes in {len(places.groups)} groups")
    for line in places.notes:
        note(line)
    if validation is None:
        note("nothing is held out: the last epoch's weights are kept (--hold-out or --validation would choose)")
    else:
        asked = sum(bool(right) for right in validation.positives)
        note(f"validation: {len(validation.frames)} images, {asked} with another one of their place")
