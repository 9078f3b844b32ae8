"""Settings of training; the options of `effovpr train` derive from their metadata."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.settings import check_limits, choice, ranged, setting
from effovpr_ros.features.extractor_config import GLOBAL_KINDS, ExtractorConfig

_MODEL = ExtractorConfig()
PRECISIONS = ("auto", "fp32", "bf16")
HEAD_STARTS = ("pca", "discriminant", "random")
STORED = ("fp16", "fp32")


@dataclass(frozen=True)
class TrainConfig:
    """How a tail learns. Rates, loss and epochs are the paper's (section 4.1) and CosPlace's where it is silent."""

    pooling: str = choice(_MODEL.global_kind, GLOBAL_KINDS, "What the descriptor is made of, as in maps; cls: paper.")
    local_block: int = ranged(
        _MODEL.local_block, -1000, 1000, "Block that regional pooling reads; later blocks are not run."
    )
    train_blocks: int = ranged(
        5, 0, 1000, "Number of blocks that learn, counted from the last one that is run; 0: only the heads learn."
    )
    dims: str = setting(
        "128,full", "Lengths of the descriptor, learned together; the tail gives the first unless another is asked for."
    )
    head_start: str = choice(
        "pca", HEAD_STARTS, "How the heads begin: principal components, linear discriminants, or random."
    )
    image_size: int = ranged(224, 1, 10000, "Side of the input in pixels.")
    epochs: int = ranged(
        25, 0, 100000, "Number of epochs, each over the active groups; 0: the heads stay as they begin."
    )
    active_groups: int = ranged(1, 0, 100000, "Number of groups that an epoch uses, in turn; 0: all.")
    iterations: int = ranged(0, 0, 10**9, "Largest number of steps of an epoch; 0: until every image was used.")
    batch_size: int = ranged(16, 1, 100000, "Images of a step, over all processes.")
    accumulate: int = ranged(
        1,
        1,
        100000,
        "Number of parts in which a process takes its images of a step through the network, to save memory.",
    )
    gradient_checkpointing: bool = setting(False, "Compute blocks twice instead of keeping them in memory.")
    precision: str = choice("auto", PRECISIONS, "auto: bf16 on CUDA, fp32 elsewhere; bf16 is mixed precision.")
    lr: float = ranged(1e-5, 0.0, 10.0, "Learning rate of the blocks (AdamW).")
    head_lr: float = ranged(1e-4, 0.0, 10.0, "Learning rate of the heads (Adam).")
    classifier_lr: float = ranged(1e-2, 0.0, 10.0, "Learning rate of the classifiers (Adam).")
    weight_decay: float = ranged(1e-2, 0.0, 10.0, "Weight decay of the blocks.")
    warmup: float = ranged(
        0.05, 0.0, 1.0, "Share of the steps in which the learning rates rise; then they fall as a cosine."
    )
    margin: float = ranged(0.4, 0.0, 0.99, "CosFace: margin that is subtracted from the cosine of the right class.")
    scale: float = ranged(30.0, 0.001, 10000.0, "CosFace: factor of the cosines.")
    views: int = ranged(
        4,
        0,
        100000,
        "Augmented views of an image, kept on disk as the frozen part of the network "
        "describes them; 0: new ones each time.",
    )
    seed: int = ranged(0, 0, 2**31, "Seed of every random choice.")
    stored: str = choice("fp16", STORED, "Precision of the tail's file.")
    save_every: int = ranged(
        200, 1, 10**9, "Steps between two saved states; the state is saved at the end of each epoch too."
    )

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata, and a run that would learn nothing."""
        check_limits(self)
        if not self.epochs and (self.head_start == "random" or self.train_blocks):
            raise ConfigError(
                f"--epochs 0 learns nothing with --head-start {self.head_start} and --train-blocks "
                f"{self.train_blocks}; use --head-start pca or discriminant with --train-blocks 0"
            )

    def uses_bf16(self, device: torch.device) -> bool:
        """Whether the network runs in mixed precision on a device."""
        return self.precision == "bf16" or (self.precision == "auto" and device.type == "cuda")
