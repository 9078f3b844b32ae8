"""The optimizer of a training run and the course of its learning rates."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.lab.training.training_config import TrainConfig


def make_optimizer(tail: TrainableTail, classifiers: nn.ModuleList, config: TrainConfig) -> torch.optim.AdamW:
    """One optimizer of blocks, heads and classifiers, each at a peak rate of its own; only blocks decay.

    A classifier whose group is not trained on has no gradient, so that a step leaves it and its moments alone.
    """
    groups = [
        {"params": list(tail.block_parameters().values()), "lr": config.lr, "weight_decay": config.weight_decay},
        {"params": list(tail.heads.parameters()), "lr": config.head_lr},
        {"params": list(classifiers.parameters()), "lr": config.classifier_lr},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> LambdaLR:
    """Rates as `rate` says, for a run of so many steps."""
    return LambdaLR(optimizer, lambda step: rate(step, steps, config))


def rate(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak rates: rising in the warm-up, then a cosine to 0.

    Args:
        step: steps that are done.
        steps: of the whole run.
        config: has the share of the warm-up.
    """
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
