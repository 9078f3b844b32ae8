"""Views of images and what the frozen part of the network makes of them, kept on disk where views repeat."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.core.errors import TrainingError
from effovpr_ros.features.preprocessing import preprocess
from effovpr_ros.lab.training.augmentation import AugmentationConfig, augment
from effovpr_ros.lab.training.sampler import Sample
from effovpr_ros.sources.frame import Frame

Prefix = Callable[[Tensor], Tensor]
"""(B, 3, S, S) normalised pixels on the device to what the part that learns starts from."""


@dataclass(frozen=True)
class ViewsConfig:
    """What a view depends on.

    Attributes:
        image_size: side of the input in pixels.
        augmentation: how images are changed.
        seed: of the changes.
        views: kept on disk, an image; 0: none are kept.
        first_is_plain: view 0 is the image as it is.
    """

    image_size: int
    augmentation: AugmentationConfig
    seed: int
    views: int
    first_is_plain: bool = False


class Views:
    """Gives the frozen part's output of samples."""

    def __init__(
        self,
        frames: Sequence[Frame],
        prefix: Prefix,
        config: ViewsConfig,
        *,
        network: str,
        cache: Path,
        device: torch.device,
        workers: int,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            frames: images by number.
            prefix: the frozen part.
            config: of the views.
            network: what the frozen part depends on; names the kept views with all else that they depend on.
            cache: folder of the kept views; made where it is missing.
            device: of the network.
            workers: threads that read and change images.
        """
        self._frames, self._prefix, self._config, self._device = frames, prefix, config, device
        self._threads = ThreadPoolExecutor(max_workers=max(1, workers))
        self._started: dict[tuple[int, int], Future[Tensor]] = {}
        self._kept: NDArray[np.float16] | None = None
        self._known: NDArray[np.bool_] | None = None
        names = [f"{frame.session}/{frame.name}/{frame.stamp_ns}" for frame in frames]
        meaning = json.dumps([network, asdict(config), names])
        self._folder = cache / hashlib.sha256(meaning.encode()).hexdigest()[:16]

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """Begin to read images that will be asked for."""
        for sample in samples:
            key = sample.image, sample.view
            if not self._is_kept(sample) and key not in self._started:
                self._started[key] = self._threads.submit(self._pixels, *key)

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """What the frozen part makes of samples, float32 on the device; at least one.

        Raises:
            ImageError: an image cannot be read; names it.
            TrainingError: the disk is too small for the views.
        """
        self.prefetch(samples)
        if not self._config.views:
            return self._run([self._take(sample) for sample in samples]).float()
        missing = [sample for sample in samples if not self._is_kept(sample)]
        if missing:
            # One by one on a CPU, where it costs nothing: no digit depends on what else a batch misses.
            step = len(missing) if self._device.type == "cuda" else 1
            for start in range(0, len(missing), step):
                part = missing[start : start + step]
                self._keep(part, self._run([self._take(sample) for sample in part]))
        kept, _ = self._files(())
        found = np.stack([kept[self._row(sample)] for sample in samples])
        return torch.from_numpy(found).to(self._device).float()

    def close(self) -> None:
        """Stop reading."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, pixels: Sequence[Tensor]) -> Tensor:
        return self._prefix(torch.stack(list(pixels)).to(self._device))

    def _take(self, sample: Sample) -> Tensor:
        return self._started.pop((sample.image, sample.view)).result()

    def _pixels(self, image: int, view: int) -> Tensor:
        """(3, S, S) normalised."""
        config = self._config
        pixels = self._frames[image].load()
        if not (config.first_is_plain and view == 0):
            rng = np.random.default_rng([config.seed, 2, image, view])
            pixels = augment(pixels, config.augmentation, rng, config.image_size)
        return preprocess([pixels], config.image_size)[0]

    def _row(self, sample: Sample) -> int:
        return sample.image * self._config.views + sample.view

    def _is_kept(self, sample: Sample) -> bool:
        if not self._config.views:
            return False
        if self._known is None and (self._folder / "known.npy").is_file():
            self._open()
        return self._known is not None and bool(self._known[self._row(sample)])

    def _keep(self, samples: Sequence[Sample], values: Tensor) -> None:
        kept, known = self._files(values.shape[1:])
        rows = [self._row(sample) for sample in samples]
        kept[rows] = values.half().cpu().numpy()
        # Set once the values are there: a killed run leaves no half row that counts as known.
        known[rows] = True

    def _files(self, shape: Sequence[int]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        if self._kept is None or self._known is None:
            if not (self._folder / "known.npy").is_file():
                self._make(shape)
            self._open()
        assert self._kept is not None and self._known is not None
        return self._kept, self._known

    def _open(self) -> None:
        self._kept = np.load(self._folder / "prefix.npy", mmap_mode="r+")
        self._known = np.load(self._folder / "known.npy", mmap_mode="r+")

    def _make(self, shape: Sequence[int]) -> None:
        rows = len(self._frames) * self._config.views
        wanted = rows * math.prod(shape) * 2
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if wanted > free:
            raise TrainingError(
                f"{self._config.views} views of {len(self._frames)} images take {wanted / 2**30:.1f} GiB in "
                f"{self._folder}, which has {free / 2**30:.1f} GiB free; lower --views, --size or --train-blocks, use "
                "--views 0 (nothing is kept), or name another folder with --cache"
            )
        np.lib.format.open_memmap(self._folder / "prefix.npy", "w+", np.float16, (rows, *shape)).flush()
        partial = self._folder / "known.partial.npy"
        np.save(partial, np.zeros(rows, np.bool_))
        partial.replace(self._folder / "known.npy")
