"""Training of a tail: a step, an epoch, and what is kept of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from effovpr_ros.core.errors import ConfigError, TrainingError
from effovpr_ros.features.pca import fit_pca
from effovpr_ros.features.tails import TailInfo, write_tail
from effovpr_ros.lab.training.discriminant import linear_discriminants
from effovpr_ros.lab.training.distributed import Processes
from effovpr_ros.lab.training.logs import Curves
from effovpr_ros.lab.training.losses import CosFace
from effovpr_ros.lab.training.memory import out_of_memory_named, parts
from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.lab.training.place_classes import Places, Validation
from effovpr_ros.lab.training.sampler import Batch, Sample, epoch_batches
from effovpr_ros.lab.training.state import STATE_NAME, EpochResult, TrainingState, load_state, save_state
from effovpr_ros.lab.training.training_config import TrainConfig
from effovpr_ros.lab.training.validation import HeadRecall, validate
from effovpr_ros.lab.training.views import Views

TAIL_NAME = "tail.safetensors"
_PCA_IMAGES = 2048
_STORED = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Progress:
    """Where training is.

    Attributes:
        epoch: from 1; 0 before the first.
        step: of all `steps`.
        steps: of all epochs.
        loss: mean of the heads, of the last step.
        recalls: of the last validation, by head; empty without.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    recalls: tuple[HeadRecall, ...]


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
        self._optimizers = self._make_optimizers()
        self._epochs = [self._batches(epoch) for epoch in range(config.epochs)]
        self._steps = sum(len(batches) for batches in self._epochs)
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
                    curves.add("rate", self._rate(), state.steps)
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
            self._views([Sample(0, 0, 0)])
            if len(self._tail.heads) and self._config.head_start == "pca":
                self._start_with_components()
            elif len(self._tail.heads) and self._config.head_start == "discriminant":
                self._start_with_discriminants()
        self._processes.wait()
        self._processes.share(self._tail.heads.parameters())

    def _start_with_components(self) -> None:
        wanted = max(int(name) for name in self._tail.heads)
        images = range(len(self._data.places.frames))
        chosen = [Sample(image, 0, 0) for image in images[:: math.ceil(len(images) / _PCA_IMAGES)]]
        if len(chosen) < wanted:
            raise ConfigError(
                f"--head-start pca: {wanted} principal components need as many images, there are {len(chosen)}; "
                "use --head-start random, or lower --dims"
            )
        pca = fit_pca(self._pooled(chosen), wanted)
        self._tail.start_heads(pca.mean, pca.components)

    def _start_with_discriminants(self) -> None:
        """Of every view of every image: what changes between the views of a place is what must not count."""
        classes = [images for group in self._data.places.groups for images in group.classes]
        views = range(max(1, self._config.views))
        chosen = [
            Sample(image, view, place) for place, images in enumerate(classes) for image in images for view in views
        ]
        found = linear_discriminants(
            self._pooled(chosen),
            np.array([sample.label for sample in chosen]),
            max(int(name) for name in self._tail.heads),
            cls_width=self._tail.cls_width,
        )
        self._tail.start_heads(found.mean, found.components)

    def _pooled(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """(N, L) pooled vectors."""
        found = np.empty((len(samples), self._tail.length), np.float32)
        done = 0
        with torch.no_grad(), self._autocast, tqdm(total=len(samples), unit="view", desc="heads", disable=None) as bar:
            for batch in parts(samples, self._config.batch_size):
                found[done : done + len(batch)] = self._tail.pool(self._views(batch)).float().cpu().numpy()
                done += len(batch)
                bar.update(len(batch))
        return found

    def _step(self, batch: Batch, following: Batch | None) -> float:
        """One step of every optimizer concerned; returns the loss."""
        processes, config = self._processes, self._config
        own = batch.samples[processes.rank :: processes.count]
        size = math.ceil(len(own) / config.accumulate) if own else 1
        total = torch.zeros((), device=processes.device)
        for part in parts(own, size):
            prefix = self._views(part)
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
        rate = self._rate()
        for optimizer, peak in self._optimizers_of(batch.group):
            for parameters in optimizer.param_groups:
                parameters["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return processes.total(total)

    def _rate(self) -> float:
        """Share of the peak rates: rising in the warm-up, then a cosine to 0."""
        warmup = max(1, round(self._config.warmup * self._steps))
        if self._state.steps < warmup:
            return (self._state.steps + 1) / warmup
        return 0.5 * (1.0 + math.cos(math.pi * (self._state.steps - warmup) / max(1, self._steps - warmup)))

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
                [optimizer.state_dict() for optimizer, _ in self._optimizers],
            )
        self._processes.wait()

    def _load(self) -> None:
        self._state, tensors, optimizers = load_state(self._out / STATE_NAME, self._settings)
        with torch.no_grad():
            for name, parameter in self._tail.block_parameters().items():
                parameter.copy_(tensors.pop(name))
        modules = nn.ModuleDict({"heads": self._tail.heads, "classifiers": self._classifiers})
        modules.load_state_dict(tensors)
        for (optimizer, _), stored in zip(self._optimizers, optimizers, strict=True):
            optimizer.load_state_dict(stored)

    def _make_optimizers(self) -> list[tuple[torch.optim.Optimizer, float]]:
        """Optimizers with their peak rates: of the blocks, of the heads, then one a group."""
        config = self._config
        blocks, heads = list(self._tail.block_parameters().values()), list(self._tail.heads.parameters())
        found: list[tuple[torch.optim.Optimizer, float]] = []
        if blocks:
            found.append((torch.optim.AdamW(blocks, weight_decay=config.weight_decay), config.lr))
        if heads:
            found.append((torch.optim.Adam(heads), config.head_lr))
        found.extend((torch.optim.Adam(group.parameters()), config.classifier_lr) for group in self._classifiers)
        return found

    def _optimizers_of(self, group: int) -> Iterator[tuple[torch.optim.Optimizer, float]]:
        shared = len(self._optimizers) - len(self._classifiers)
        yield from (*self._optimizers[:shared], self._optimizers[shared + group])

    def _heads_of(self, group: int) -> Iterator[nn.Module]:
        found = self._classifiers[group]
        assert isinstance(found, nn.ModuleList)
        return iter(found)

    def _views(self, samples: Sequence[Sample]) -> Tensor:
        return self._data.views(samples)

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
