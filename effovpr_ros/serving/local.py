"""One process that answers: the map in its memory, one thread for the network, a few for everything else."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from effovpr_ros.core.errors import MapError
from effovpr_ros.features.extractor import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.recognition.latency import StageClock
from effovpr_ros.remote.answers import Answers, answer_record
from effovpr_ros.remote.map_info import MapInfo
from effovpr_ros.serving.answering import decode_features, decode_picture, recognize
from effovpr_ros.serving.extraction import Extraction
from effovpr_ros.serving.revisions import Revision, Revisions, ServedMap
from effovpr_ros.serving.service import NotThereError, Question

_logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class LocalService:
    """Answers from one map; see `MapService`."""

    def __init__(self, served: ServedMap, *, watch_s: float = 1.0) -> None:
        """Open the map and load its model.

        Args:
            served: the map.
            watch_s: its files are looked at so often.

        Raises:
            EffoVPRError: no usable map, model or settings.
        """
        self._extraction = Extraction()
        # Several questions at a time keep the cores busy; each by one thread, since teams of threads would wait for
        # each other.
        self._pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "answer", partial(torch.set_num_threads, 1))
        with ExitStack() as undone:
            undone.callback(self._extraction.close)
            undone.callback(self._pool.shutdown)
            self.revisions = Revisions(served)
            undone.pop_all()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, args=(watch_s,), name="watch", daemon=True)
        self._watcher.start()

    async def answer(self, question: Question) -> Answers:
        """Answer a question by the revision that is the newest now."""
        clock = StageClock()
        with self.revisions.borrow() as revision:
            if question.is_features:
                query = await self._in_pool(
                    lambda: decode_features(question, revision.place_map.fingerprint, revision.info.points)
                )
                size_wh, features, found = query.image_size_wh, query.features, query.points
                points = None if found is None else lambda: found
            else:
                image = await self._in_pool(partial(decode_picture, question))
                size_wh = (image.shape[1], image.shape[0])
                with clock.stage("extract"):
                    features = await asyncio.wrap_future(self._extraction.submit(revision.extractor, image))
                points = partial(revision.points_of, image)
            recognise = partial(self._recognise, revision, question, features, size_wh, points)
            answers = await self._in_pool(recognise)
        whole = clock.latency()
        (result,) = answers.results
        latency = replace(result.latency_ms, extract=whole.extract, total=whole.total)
        return replace(answers, results=(replace(result, latency_ms=latency),))

    async def info(self) -> MapInfo:
        """The revision that is the newest now."""
        return self.revisions.current.info

    async def picture(self, place_id: int) -> bytes:
        """The JPEG that the map keeps of a place; a NotThereError without one."""
        with self.revisions.borrow() as revision:
            return await self._in_pool(partial(_picture, revision, place_id))

    async def problem(self) -> str:
        """Empty: without a map there is no server."""
        return ""

    def figures(self) -> dict[str, float]:
        """Gauges for the metrics."""
        return {
            "places": float(self.revisions.current.info.places),
            "shards": float(self.revisions.current.info.shards),
            "extractions_waiting": float(self._extraction.waiting),
            "revisions_swapped": float(self.revisions.swaps),
            "newer_revision_refused": float(bool(self.revisions.problem)),
        }

    def close(self) -> None:
        """Finish what is at hand, and close the map."""
        self._ended.set()
        self._watcher.join()
        self._pool.shutdown()
        self._extraction.close()
        self.revisions.close()

    async def _in_pool(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def _recognise(
        self,
        revision: Revision,
        question: Question,
        features: Features,
        size_wh: tuple[int, int],
        points: Callable[[], Points] | None,
    ) -> Answers:
        with revision.recognizer() as recognizer:
            found = recognize(recognizer, question, features, size_wh, points)
        return Answers(revision.info.name, revision.name, (answer_record(found, question.candidates),))

    def _watch(self, period_s: float) -> None:
        while not self._ended.wait(period_s):
            try:
                self.revisions.refresh()
            except Exception:  # the server outlives whatever a map's files hold
                _logger.exception("the files of map %s cannot be looked at", self.revisions.served.path)


def _picture(revision: Revision, place_id: int) -> bytes:
    try:
        jpeg = revision.place_map.thumbnail(place_id)
    except MapError as error:
        raise NotThereError(f"place {place_id} is not in the map") from error
    if not jpeg:
        raise NotThereError(f"the map keeps no picture of place {place_id}")
    return jpeg
