"""Settings of training; the options of `effovpr train` derive from their metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from effovpr_ros.errors import ConfigError
from effovpr_ros.features.extractor import GLOBAL_KINDS, ExtractorConfig

_MODEL = ExtractorConfig()
PRECISIONS = ("auto", "fp32", "bf16")
HEAD_STARTS = ("pca", "discriminant", "random")
STORED = ("fp16", "fp32")


def _number(default: float, low: float, high: float, description: str) -> Any:
    return field(default=default, metadata={"description": description, "min": low, "max": high})


def _choice(default: str, choices: tuple[str, ...], description: str) -> Any:
    return field(default=default, metadata={"description": description, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """How a tail learns. Rates, loss and epochs are the paper's (section 4.1) and CosPlace's where it is silent."""

    pooling: str = _choice(_MODEL.global_kind, GLOBAL_KINDS, "What the descriptor is made of, as in maps; cls: paper.")
    local_block: int = _number(_MODEL.local_block, -1000, 1000, "Block that regional pooling reads; it ends the run.")
    train_blocks: int = _number(5, 0, 1000, "So many of the last blocks that are run learn; 0: the heads only.")
    dims: str = field(
        default="128,full",
        metadata={"description": "Lengths of the descriptor, learned together; the first is default."},
    )
    head_start: str = _choice(
        "pca", HEAD_STARTS, "First values of the heads: principal components, linear discriminants, or random."
    )
    image_size: int = _number(224, 1, 10000, "Side of the input in pixels.")
    epochs: int = _number(25, 0, 100000, "Epochs, each over the active groups; 0: heads stay as they begin.")
    active_groups: int = _number(1, 0, 100000, "Groups of an epoch, in turn; 0: all.")
    iterations: int = _number(0, 0, 10**9, "Most steps of an epoch; 0: until every image was seen.")
    batch_size: int = _number(16, 1, 100000, "Images of a step, over all processes.")
    accumulate: int = _number(1, 1, 100000, "Parts in which a process takes its images through the network.")
    gradient_checkpointing: bool = field(
        default=False, metadata={"description": "Compute blocks twice instead of keeping them in memory."}
    )
    precision: str = _choice("auto", PRECISIONS, "auto: bf16 on CUDA, fp32 elsewhere; bf16 is mixed precision.")
    lr: float = _number(1e-5, 0.0, 10.0, "Learning rate of the blocks (AdamW).")
    head_lr: float = _number(1e-4, 0.0, 10.0, "Learning rate of the heads (Adam).")
    classifier_lr: float = _number(1e-2, 0.0, 10.0, "Learning rate of the classifiers (Adam).")
    weight_decay: float = _number(1e-2, 0.0, 10.0, "Of the blocks.")
    warmup: float = _number(0.05, 0.0, 1.0, "Share of the steps in which rates rise; then they fall as a cosine.")
    margin: float = _number(0.4, 0.0, 0.99, "CosFace: taken from the cosine of the own class.")
    scale: float = _number(30.0, 0.001, 10000.0, "CosFace: of the cosines.")
    views: int = _number(4, 0, 100000, "Augmentations of an image, kept on disk behind the frozen part; 0: ever new.")
    seed: int = _number(0, 0, 2**31, "Of every random choice.")
    stored: str = _choice("fp16", STORED, "Precision of the tail's file.")
    save_every: int = _number(200, 1, 10**9, "Steps between two saved states; each epoch ends with one too.")

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata, and a run that would learn nothing."""
        check_ranges(self)
        if not self.epochs and (self.head_start == "random" or self.train_blocks):
            raise ConfigError(
                f"--epochs 0 learns nothing with --head-start {self.head_start} and --train-blocks "
                f"{self.train_blocks}; use --head-start pca or discriminant with --train-blocks 0"
            )

    def uses_bf16(self, device: torch.device) -> bool:
        """Whether the network runs in mixed precision on a device."""
        return self.precision == "bf16" or (self.precision == "auto" and device.type == "cuda")


def check_ranges(config: Any) -> None:
    """Refuse values of a dataclass outside the ranges and choices in its metadata.

    Raises:
        ConfigError: names the field.
    """
    for name, entry in type(config).__dataclass_fields__.items():
        value, metadata = getattr(config, name), entry.metadata
        if "choices" in metadata and value not in metadata["choices"]:
            raise ConfigError(f"{name} {value!r} is unknown; use {', '.join(metadata['choices'])}")
        # Written so that NaN is refused too.
        if "min" in metadata and not metadata["min"] <= value <= metadata["max"]:
            raise ConfigError(f"{name} {value!r} is outside [{metadata['min']}, {metadata['max']}]")
