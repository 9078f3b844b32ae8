"""Training of a tail: a step, an epoch, and what is kept of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from effovpr_ros.core.errors import ConfigError, TrainingError
from effovpr_ros.features.tail_file import TailInfo, write_tail
from effovpr_ros.lab.training.distributed import Processes
from effovpr_ros.lab.training.head_start import start_heads
from effovpr_ros.lab.training.losses import CosFace
from effovpr_ros.lab.training.memory import out_of_memory_named, parts
from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.lab.training.optimization import make_optimizer, make_schedule, rate
from effovpr_ros.lab.training.place_classes import Places, Validation
from effovpr_ros.lab.training.progress import Curves, Progress
from effovpr_ros.lab.training.sampler import Batch, Sample, epoch_batches
from effovpr_ros.lab.training.state import STATE_NAME, EpochResult, TrainingState, load_state, save_state
from effovpr_ros.lab.training.training_config import TrainConfig
from effovpr_ros.lab.training.validation import HeadRecall, validate
from effovpr_ros.lab.training.views import Views

TAIL_NAME = "tail.safetensors"
_STORED = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class TrainingData:
    """What is trained and judged on, with views of the images.

    Attributes:
        places: classes and groups.
        views: of their images.
        validation: what chooses the weights; None: those of the last epoch are kept.
        validation_views: of its images, plain and changed.
    """

    places: Places
    views: Views
    validation: Validation | None = None
    validation_views: Views | None = None


class Trainer:
    """Trains one tail; repeated in the same folder, it goes on where it was."""

    def __init__(
        self,
        tail: TrainableTail,
        data: TrainingData,
        config: TrainConfig,
        info: TailInfo,
        processes: Processes,
        out: Path,
        settings: str,
    ) -> None:
        """Prepare, and load the saved state if there is one.

        Args:
            tail: on its device.
            data: to train and judge on.
            config: how.
            info: of the tail's file; what only training tells is filled in.
            processes: that train together.
            out: folder of state, curves and result.
            settings: everything that the run depends on; a saved state of other settings is refused.

        Raises:
            ConfigError: batches that the processes cannot share, or a state of other settings.
            TrainingError: a damaged state.
        """
        if config.batch_size % processes.count:
            raise ConfigError(f"--batch-size {config.batch_size} is no multiple of the {processes.count} processes")
        self._tail, self._data, self._config, self._info = tail, data, config, info
        self._processes, self._out, self._settings = processes, out, settings
        device = processes.device
        generator = torch.Generator().manual_seed(config.seed)
        self._classifiers = nn.ModuleList(
            nn.ModuleList(
                CosFace(len(group.classes), dim, margin=config.margin, scale=config.scale, generator=generator)
                for dim in tail.dims
            )
            for group in data.places.groups
        ).to(device)
        self._learning = [*tail.block_parameters().values(), *tail.heads.parameters()]
        self._optimizer = make_optimizer(tail, self._classifiers, config)
        self._epochs = [self._batches(epoch) for epoch in range(config.epochs)]
        self._steps = sum(len(batches) for batches in self._epochs)
        self._schedule = make_schedule(self._optimizer, config, self._steps)
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.uses_bf16(device))
        self._state = TrainingState()
        if (out / STATE_NAME).is_file():
            self._load()

    @property
    def resumed(self) -> bool:
        """Whether a saved state is gone on from."""
        return bool(self._state.history)

    @property
    def best(self) -> int:
        """Epoch whose weights are kept."""
        return self._state.best

    def run(self, report: Callable[[Progress], object]) -> tuple[EpochResult, ...]:
        """Train to the end; returns what each epoch reached, the state before the first one being epoch 0.

        Raises:
            TrainingError: out of memory or disk; names what to lower. The last saved state stays.
            ImageError: an image cannot be read.
        """
        curves = Curves(self._out / "logs") if self._processes.is_first else None
        try:
            with out_of_memory_named(self._config):
                self._run(report, curves)
        finally:
            if curves is not None:
                curves.close()
        return tuple(self._state.history)

    def _run(self, report: Callable[[Progress], object], curves: Curves | None) -> None:
        state, started = self._state, time.monotonic() - self._state.seconds
        if not state.history:
            self._begin()
            self._judge(0, started)
        while state.epoch < self._config.epochs:
            batches = self._epochs[state.epoch]
            for batch in islice(batches, state.step, None):
                following = batches[state.step + 1] if state.step + 1 < len(batches) else None
                loss = self._step(batch, following)
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss became {loss} in epoch {state.epoch + 1}; lower --lr, --head-lr or --classifier-lr"
                    )
                state.step += 1
                state.steps += 1
                state.seconds = time.monotonic() - started
                recalls = state.history[-1].recalls if state.history else ()
                report(Progress(state.epoch + 1, state.steps, self._steps, loss, recalls))
                if curves is not None:
                    curves.add("loss", loss, state.steps)
                    curves.add("rate", rate(state.steps, self._steps, self._config), state.steps)
                if state.steps % self._config.save_every == 0:
                    self._save()
            state.epoch, state.step = state.epoch + 1, 0
            self._judge(state.epoch, started)
            if curves is not None:
                for recall in state.history[-1].recalls:
                    curves.add(f"R@1/{recall.dim}", recall.r1, state.steps)
                    curves.add(f"R@5/{recall.dim}", recall.r5, state.steps)
            self._save()

    def _begin(self) -> None:
        """Make the file of kept views, and the heads' first values, in the first process."""
        if self._processes.is_first:
            self._data.views([Sample(0, 0, 0)])
            start_heads(self._tail, self._data.places, self._data.views, self._config, self._autocast)
        self._processes.wait()
        self._processes.share(self._tail.heads.parameters())

    def _step(self, batch: Batch, following: Batch | None) -> float:
        """One step; returns the loss."""
        processes, config = self._processes, self._config
        own = batch.samples[processes.rank :: processes.count]
        size = math.ceil(len(own) / config.accumulate) if own else 1
        total = torch.zeros((), device=processes.device)
        for part in parts(own, size):
            prefix = self._data.views(part)
            labels = torch.tensor([sample.label for sample in part], device=processes.device)
            with self._autocast:
                descriptors = self._tail(prefix)
            losses = [
                classifier(described, labels)
                for classifier, described in zip(self._heads_of(batch.group), descriptors, strict=True)
            ]
            # Parts and processes may differ in size; the sum over all of them is the mean over the batch.
            loss = torch.stack(losses).mean() * (len(part) / len(batch.samples))
            torch.autograd.backward(loss)
            total += loss.detach()
        if following is not None:
            self._data.views.prefetch(following.samples[processes.rank :: processes.count])
        processes.sum_gradients([*self._learning, *self._classifiers[batch.group].parameters()])
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        return processes.total(total)

    def _judge(self, epoch: int, started: float) -> None:
        """Validate in the first process, and write the tail where it is the best so far."""
        if self._processes.is_first:
            recalls: tuple[HeadRecall, ...] = ()
            if self._data.validation is not None and self._data.validation_views is not None:
                with self._autocast:
                    recalls = validate(
                        self._tail, self._data.validation, self._data.validation_views, self._config.batch_size
                    )
            self._state.seconds = time.monotonic() - started
            is_best = self._state.add(EpochResult(epoch, recalls))
            if is_best or not self._config.epochs:
                tail = self._tail.export(self._state.described(self._info))
                write_tail(self._out / TAIL_NAME, tail, precision=_STORED[self._config.stored])
        self._processes.wait()

    def _save(self) -> None:
        if self._processes.is_first:
            modules = nn.ModuleDict({"heads": self._tail.heads, "classifiers": self._classifiers})
            save_state(
                self._out / STATE_NAME,
                self._settings,
                self._state,
                {**modules.state_dict(), **{k: p.detach() for k, p in self._tail.block_parameters().items()}},
                self._optimizer.state_dict(),
                self._schedule.state_dict(),
            )
        self._processes.wait()

    def _load(self) -> None:
        self._state, tensors, optimizer, schedule = load_state(self._out / STATE_NAME, self._settings)
        with torch.no_grad():
            for name, parameter in self._tail.block_parameters().items():
                parameter.copy_(tensors.pop(name))
        modules = nn.ModuleDict({"heads": self._tail.heads, "classifiers": self._classifiers})
        modules.load_state_dict(tensors)
        self._optimizer.load_state_dict(optimizer)
        self._schedule.load_state_dict(schedule)

    def _heads_of(self, group: int) -> Iterator[nn.Module]:
        found = self._classifiers[group]
        assert isinstance(found, nn.ModuleList)
        return iter(found)

    def _batches(self, epoch: int) -> list[Batch]:
        config = self._config
        return epoch_batches(
            self._data.places.groups,
            epoch,
            batch_size=config.batch_size,
            seed=config.seed,
            active_groups=config.active_groups,
            views=config.views,
            iterations=config.iterations,
        )
