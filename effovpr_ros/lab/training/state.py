"""What a run knows of itself, saved so that a killed one goes on as if nothing had happened.

Nothing random needs to be saved: batches and augmentations are functions of the seed and of the epoch.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effovpr_ros.core.errors import ConfigError, TrainingError
from effovpr_ros.core.files import write_atomically
from effovpr_ros.features.tail_file import TailInfo
from effovpr_ros.lab.training.validation import HeadRecall
from effovpr_ros.mapping.manifest import now

STATE_NAME = "state.pt"


@dataclass(frozen=True)
class EpochResult:
    """What an epoch reached.

    Attributes:
        epoch: from 1; 0 is the state before training.
        recalls: by head; empty without validation.
    """

    epoch: int
    recalls: tuple[HeadRecall, ...]

    @property
    def score(self) -> tuple[float, float]:
        """What chooses: R@1, then R@5, each the mean over the heads."""
        count = max(1, len(self.recalls))
        return sum(item.r1 for item in self.recalls) / count, sum(item.r5 for item in self.recalls) / count


@dataclass
class TrainingState:
    """How far a run is.

    Attributes:
        epoch: epochs that are done.
        step: steps of the current epoch that are done.
        steps: steps of all epochs that are done.
        seconds: that training took.
        history: results, of epoch 0 first.
        best: epoch whose weights are kept; 0 before the first.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    history: list[EpochResult] = field(default_factory=list)
    best: int = 0

    def add(self, result: EpochResult) -> bool:
        """Note a result; returns whether its weights are the best, the latest where nothing judges them."""
        best = self.history[self.best] if self.best else None
        self.history.append(result)
        if not result.epoch:
            return False
        if best is None or not result.recalls or result.score > best.score:
            self.best = result.epoch
            return True
        return False

    def described(self, info: TailInfo) -> TailInfo:
        """What the file of the best weights says."""
        figures = {
            f"{name} {when}, {recall.dim}-D": round(value, 2)
            for when, result in (("before", self.history[0]), ("after", self.history[self.best]))
            for recall in result.recalls
            for name, value in (("R@1", recall.r1), ("R@5", recall.r5))
        }
        return replace(info, figures=figures, epoch=self.best, seconds=round(self.seconds, 1), created=now())


def save_state(
    path: Path,
    settings: str,
    state: TrainingState,
    tensors: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    schedule: Mapping[str, Any],
) -> None:
    """Write atomically.

    Args:
        path: of the file.
        settings: of the run, a JSON object.
        state: how far it is.
        tensors: all that learns.
        optimizer: its state.
        schedule: of the learning rates, its state.

    Raises:
        MapError: the disk is full.
    """
    content = {
        "settings": settings,
        "state": asdict(state),
        "tensors": dict(tensors),
        "optimizer": dict(optimizer),
        "schedule": dict(schedule),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path, settings: str) -> tuple[TrainingState, dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Inverse of `save_state`.

    Raises:
        ConfigError: of a run with other settings.
        TrainingError: damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        values, stored = dict(content["state"]), content["settings"]
        history = [
            EpochResult(item["epoch"], tuple(HeadRecall(**recall) for recall in item["recalls"]))
            for item in values.pop("history")
        ]
        state = TrainingState(**values, history=history)
        tensors, optimizer, schedule = content["tensors"], content["optimizer"], content["schedule"]
    except Exception as error:  # torch raises many types for damaged files
        raise TrainingError(f"saved state {path} cannot be read ({error}); remove it to begin anew") from error
    if stored != settings:
        old, new = json.loads(stored), json.loads(settings)
        differences = [f"{name}: {old.get(name)} != {new.get(name)}" for name in new if old.get(name) != new.get(name)]
        raise ConfigError(
            f"{path} is of another run (saved != now): {'; '.join(differences)[:600]}; repeat its command to go on "
            "with it, or give another --out"
        )
    return state, tensors, optimizer, schedule
