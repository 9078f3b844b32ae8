"""From a question to its answer, wherever features, search and re-ranking are computed."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from effovpr_ros.core.errors import MapError
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.recognition.latency import StageClock
from effovpr_ros.remote.answers import Answers, answer_record
from effovpr_ros.remote.map_info import MapInfo
from effovpr_ros.remote.shard_list import ShardList
from effovpr_ros.serving.answering import decode_features, recognize
from effovpr_ros.serving.revisions import Revision, Revisions
from effovpr_ros.serving.service import BusyError, NotThereError, Question
from effovpr_ros.serving.shard_files import list_shards, shard_file
from effovpr_ros.serving.sharing import SharedCores

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of a question's picture.

    Attributes:
        features: by the map's model.
        image_size_wh: pixels.
        points: gives those of the third stage; None: it does not run.
    """

    features: Features
    image_size_wh: tuple[int, int]
    points: Callable[[], Points] | None


class Pipeline(ABC):
    """Answers questions, several at a time; see `MapService`.

    Attributes:
        revisions: that answer; None before there is one.
    """

    def __init__(self, num_threads: int) -> None:
        """Start the threads.

        Args:
            num_threads: questions that are recognised at a time.
        """
        self._pool = ThreadPoolExecutor(num_threads, "answer", partial(torch.set_num_threads, 1))
        self._cores = SharedCores(os.cpu_count() or 1)
        self.revisions: Revisions | None = None

    @abstractmethod
    async def _look(self, revision: Revision, question: Question) -> Seen:
        """Find the features of a question's picture."""

    async def answer(self, question: Question) -> Answers:
        """Answer a question by the revision that is the newest now."""
        clock = StageClock()
        with self.known_revisions.borrow() as revision:
            with clock.stage("extract"):
                if question.is_features:
                    seen = await self.in_pool(partial(_given, revision, question))
                else:
                    seen = await self._look(revision, question)
            answers = await self.in_pool(partial(self._recognise, revision, question, seen))
        whole = clock.latency()
        (result,) = answers.results
        extract_ms = 0.0 if question.is_features else whole.extract
        latency = replace(result.latency_ms, extract=extract_ms, total=whole.total)
        return replace(answers, results=(replace(result, latency_ms=latency),))

    async def info(self) -> MapInfo:
        """The revision that is the newest now."""
        return self.known_revisions.current.info

    async def picture(self, place_id: int) -> bytes:
        """The JPEG that the map keeps of a place; a NotThereError without one."""
        with self.known_revisions.borrow() as revision:
            return await self.in_pool(partial(_picture, revision, place_id))

    async def shards(self) -> ShardList:
        """The parts of the map that a robot may keep."""
        with self.known_revisions.borrow() as revision:
            return await self.in_pool(partial(list_shards, revision.place_map, revision.name))

    async def shard_file(self, shard: str, file: str) -> Path:
        """A file of a part; a NotThereError where there is none."""
        with self.known_revisions.borrow() as revision:
            return await self.in_pool(partial(shard_file, revision.place_map, shard, file))

    async def problem(self) -> str:
        """Why nothing can be answered; empty where it can."""
        return "" if self.revisions is not None else "no map is open yet"

    def figures(self) -> dict[str, float]:
        """Gauges for the metrics."""
        if self.revisions is None:
            return {}
        return {
            "places": float(self.revisions.current.info.places),
            "shards": float(self.revisions.current.info.shards),
            "revisions_swapped": float(self.revisions.swaps),
            "newer_revision_refused": float(bool(self.revisions.problem)),
        }

    @property
    def known_revisions(self) -> Revisions:
        """That answer.

        Raises:
            BusyError: there is none yet.
        """
        if self.revisions is None:
            raise BusyError("no map is open yet")
        return self.revisions

    async def in_pool(self, function: Callable[[], Result]) -> Result:
        """Run a function in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def _recognise(self, revision: Revision, question: Question, seen: Seen) -> Answers:
        with self._cores.share(), revision.recognizer() as recognizer:
            found = recognize(recognizer, question, seen.features, seen.image_size_wh, seen.points)
        return Answers(revision.info.name, revision.name, (answer_record(found, question.candidates),))

    def close(self) -> None:
        """Finish what is at hand, and close the map."""
        self._pool.shutdown()
        if self.revisions is not None:
            self.revisions.current.close()


def _given(revision: Revision, question: Question) -> Seen:
    query = decode_features(question, revision.place_map.fingerprint, revision.info.points)
    found = query.points
    return Seen(query.features, query.image_size_wh, None if found is None else lambda: found)


def _picture(revision: Revision, place_id: int) -> bytes:
    try:
        jpeg = revision.place_map.thumbnail(place_id)
    except MapError as error:
        raise NotThereError(f"place {place_id} is not in the map") from error
    if not jpeg:
        raise NotThereError(f"the map keeps no picture of place {place_id}")
    return jpeg
