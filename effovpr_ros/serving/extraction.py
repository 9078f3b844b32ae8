"""The one thread that runs the network: what waits together is computed together, where that pays."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features

# On a CPU a batch takes as long as its pictures one by one; on a GPU a few take as long as one.
_BATCH_ON_GPU = 16


@dataclass(frozen=True, eq=False)
class _Job:
    extractor: FeatureExtractor
    image: RgbImage
    features: Future[Features]


class Extraction:
    """Extracts features in a thread of its own, in the order of `submit`."""

    def __init__(self, num_threads: int = 0) -> None:
        """Start the thread.

        Args:
            num_threads: CPU threads of the network; 0: as torch decides.
        """
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._num_threads = num_threads or torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="extraction", daemon=True)
        self._thread.start()

    def submit(self, extractor: FeatureExtractor, image: RgbImage) -> Future[Features]:
        """Features of a picture, or the ImageError that it raised."""
        job = _Job(extractor, image, Future())
        self._jobs.put(job)
        return job.features

    @property
    def waiting(self) -> int:
        """Pictures that wait."""
        return self._jobs.qsize()

    def close(self) -> None:
        """End the thread once what waits is done."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._num_threads)
        job = self._jobs.get()
        while job is not None:
            batch, following = self._batch(job)
            alive = [item for item in batch if item.features.set_running_or_notify_cancel()]
            try:
                found = job.extractor.extract([item.image for item in alive])
            except BaseException as error:  # handed to whoever asked
                for item in alive:
                    item.features.set_exception(error)
            else:
                for item, features in zip(alive, found, strict=True):
                    item.features.set_result(features)
            job = following if following is not None else self._jobs.get()

    def _batch(self, first: _Job) -> tuple[list[_Job], _Job | None]:
        """Jobs that run as one, and the next one if it was taken already and is for another model."""
        batch = [first]
        largest = _BATCH_ON_GPU if first.extractor.device.type == "cuda" else 1
        while len(batch) < largest:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            if job.extractor is not first.extractor:
                return batch, job
            batch.append(job)
        return batch, None
