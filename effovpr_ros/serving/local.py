"""One process that answers: the map in its memory, one thread for the network, a few for everything else."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import ExitStack
from functools import partial

from effovpr_ros.recognition.third_stage import point_extractor
from effovpr_ros.serving.answering import decode_picture
from effovpr_ros.serving.extraction import Extraction
from effovpr_ros.serving.pipeline import Pipeline, Seen
from effovpr_ros.serving.revisions import LocalRevision, Revision, Revisions, ServedMap, Watch, refresh
from effovpr_ros.serving.service import Question

_logger = logging.getLogger(__name__)


class LocalService(Pipeline):
    """Answers from one map of this process."""

    def __init__(self, served: ServedMap, *, watch_s: float = 1.0) -> None:
        """Open the map and load its model.

        Args:
            served: the map.
            watch_s: its files are looked at so often.

        Raises:
            EffoVPRError: no usable map, model or settings.
        """
        # Before the pool, whose threads set how many later ones have.
        self._extraction = Extraction()
        super().__init__(max(2, os.cpu_count() or 1))
        self._served, self._watch = served, Watch(served)
        with ExitStack() as undone:
            undone.callback(self._extraction.close)
            undone.callback(super().close)
            first = LocalRevision(served)
            first.extractor.seek_faster_engine()
            self.revisions = Revisions(first)
            undone.pop_all()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._look_at_files, args=(watch_s,), name="watch", daemon=True)
        self._watcher.start()

    async def _look(self, revision: Revision, question: Question) -> Seen:
        assert isinstance(revision, LocalRevision)
        image = await self.in_pool(partial(decode_picture, question))
        features = await asyncio.wrap_future(self._extraction.submit(revision.extractor, image))
        # Calls from several threads take turns.
        points = partial(point_extractor(str(revision.extractor.device)).extract, image)
        return Seen(features, (image.shape[1], image.shape[0]), points)

    def figures(self) -> dict[str, float]:
        """Gauges for the metrics."""
        return {**super().figures(), "extractions_waiting": float(self._extraction.waiting)}

    def close(self) -> None:
        """Finish what is at hand, and close the map."""
        self._ended.set()
        self._watcher.join()
        self._extraction.close()
        current = self.known_revisions.current
        if isinstance(current, LocalRevision):
            current.extractor.close()
        super().close()

    def _look_at_files(self, period_s: float) -> None:
        while not self._ended.wait(period_s):
            try:
                former = refresh(self.known_revisions, self._served, self._watch)
                if former is not None:
                    former.close()
            except Exception:  # the server outlives whatever a map's files hold
                _logger.exception("the files of map %s cannot be looked at", self._served.path)
