"""DescriptorIndex: nearest global descriptors by inner product, with FAISS."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import DescriptorShapeError
from effovpr_ros.mapping.index_codes import (
    TRAINING_SAMPLE,
    WANTED_RECALL,
    choose_rescored,
    descriptor_blocks,
    make_codes,
    remove_codes,
    search_codes,
    search_whole,
)

_logger = logging.getLogger(__name__)

# Numbers that an exact search may compare, 64 MiB: a few milliseconds. 131,072 descriptors of 128 dimensions, 32,768 of
# 512. docs/maps.md has the measurements.
FLAT_FLOATS = 2**24
# Until it is measured.
_RESCORED = 1600
_PROGRESS_S = 5.0

DescriptorBlocks = Callable[[], Iterable[NDArray[np.float32]]]
"""Gives (M, D) descriptors, block by block in the order of their numbers; called again for another pass."""


@dataclass(frozen=True)
class IndexSummary:
    """How descriptors are searched.

    Attributes:
        kind: `flat` compares all descriptors, `codes` all their codes and then the most promising descriptors.
        rescored: of how many descriptors these are; 0 if flat.
        recall_at_10: of a search against an exact one, measured on changed places; 1 if flat, None if not measured.
    """

    kind: str = "flat"
    rescored: int = 0
    recall_at_10: float | None = 1.0


class DescriptorIndex:
    """Descriptors numbered from 0 in the order they were added; compared with all up to `flat_limit`, by codes beyond.

    Attributes:
        stays_exact: no codes are made.
    """

    def __init__(self, dimension: int, *, stays_exact: bool = False) -> None:
        """Start empty.

        Args:
            dimension: D of the descriptors.
            stays_exact: make no codes at the limit, which takes a second: for a robot that cannot wait.
        """
        self._index: Any = faiss.IndexFlatIP(dimension)
        self._rescored = _RESCORED
        self._recall_at_10: float | None = None
        self.stays_exact = stays_exact

    @classmethod
    def build(
        cls,
        dimension: int,
        count: int,
        blocks: DescriptorBlocks,
        *,
        stays_exact: bool = False,
        limit: int | None = None,
    ) -> DescriptorIndex:
        """An index of many descriptors that are never in memory as a whole; codes are learned from all of them.

        Args:
            dimension: D of the descriptors.
            count: of the descriptors.
            blocks: gives them.
            stays_exact: make no codes.
            limit: make codes for more descriptors than this; None: `flat_limit`.
        """
        index = cls(dimension, stays_exact=stays_exact)
        if count > (flat_limit(dimension) if limit is None else limit) and not stays_exact:
            index._make_codes(blocks, count)
            index.measure()
        else:
            for block in blocks():
                index.add(block)
        return index

    def __len__(self) -> int:
        """Number of descriptors."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """D of the descriptors."""
        return int(self._index.d)

    @property
    def is_exact(self) -> bool:
        """Whether every search compares with every descriptor."""
        return isinstance(self._index, faiss.IndexFlat)

    @property
    def summary(self) -> IndexSummary:
        """How it searches, and what it finds."""
        return IndexSummary() if self.is_exact else IndexSummary("codes", self._rescored, self._recall_at_10)

    @property
    def faiss_index(self) -> Any:
        """What FAISS reads and writes."""
        return self._index

    def adopt(self, stored: Any, summary: IndexSummary) -> None:
        """Take the descriptors of a stored index, and what was measured on it."""
        self._index = stored
        if not self.is_exact:
            self._rescored = summary.rescored or _RESCORED
            self._recall_at_10 = summary.recall_at_10

    def add(self, descriptors: NDArray[np.float32]) -> None:
        """Append (N, D) L2-normalised descriptors.

        Raises:
            DescriptorShapeError: another D.
        """
        self._check(descriptors)
        count = len(self) + len(descriptors)
        if self.is_exact and not self.stays_exact and count > flat_limit(self.dimension):
            flat = self._index
            self._make_codes(lambda: [*descriptor_blocks(flat), descriptors], count)
        else:
            self._index.add(np.ascontiguousarray(descriptors, np.float32))
            self._recall_at_10 = None

    def search(
        self, descriptor: NDArray[np.float32], top_k: int, *, among: Sequence[int] | NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Nearest descriptors.

        Exact where the index is, and at every size where `among` restricts it; else with the recall that `summary`
        names.

        Args:
            descriptor: (D,) L2-normalised query.
            top_k: at most so many results.
            among: numbers that may be returned, as a range from 0 on where possible, which costs nothing; None for all.

        Returns:
            (K,) numbers and (K,) cosines, highest first, equal cosines by number; K <= top_k.

        Raises:
            DescriptorShapeError: another D.
        """
        query = np.ascontiguousarray(descriptor.reshape(1, -1), np.float32)
        self._check(query)
        top_k = min(top_k, len(self) if among is None else len(among))
        if top_k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if self.is_exact or among is not None:
            similarity, number = search_whole(self._whole, query, top_k, among)
        else:
            similarity, number = search_codes(self._index, query, top_k, self._rescored)
        found = number[0] >= 0
        number, similarity = number[0][found], similarity[0][found]
        order = np.lexsort((number, -similarity))
        return number[order].astype(np.int64), similarity[order].astype(np.float32)

    def descriptors(self, first: int, count: int) -> NDArray[np.float32]:
        """(count, D) descriptors from a number on, as they are compared in the end."""
        return np.asarray(self._whole.reconstruct_n(first, count), np.float32).reshape(count, self.dimension)

    def measure(self) -> None:
        """Choose how many descriptors a search compares and measure what it then finds, where that is not known."""
        if self.is_exact or self._recall_at_10 is not None:
            return
        self._rescored, self._recall_at_10 = choose_rescored(self._index)
        # The choice was made on other queries than the measurement.
        level = logging.INFO if self._recall_at_10 >= WANTED_RECALL - 0.01 else logging.WARNING
        _logger.log(level, "index of %d places: recall@10 %.3f against exact search", len(self), self._recall_at_10)

    def remove(self, numbers: Collection[int]) -> None:
        """Remove descriptors; the others keep their order and are numbered anew.

        Args:
            numbers: of the descriptors, each below `len`.
        """
        if self.is_exact:
            self._index.remove_ids(faiss.IDSelectorBatch(np.fromiter(numbers, np.int64)))
            return
        remove_codes(self._index, numbers)
        self._recall_at_10 = None
        if len(self) <= flat_limit(self.dimension):
            flat = faiss.IndexFlatIP(self.dimension)
            for block in descriptor_blocks(self._whole):
                flat.add(block)
            self._index = flat

    def nearest_other(self, numbers: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """For each of some descriptors, the other one with the highest cosine.

        Args:
            numbers: (N,) of the descriptors; there are two at least.

        Returns:
            (N,) numbers and (N,) cosines.
        """
        asked = np.asarray(numbers, np.int64)
        similarity, found = search_whole(self._whole, self._whole.reconstruct_batch(asked), 2, None)
        # Of equal descriptors the first found may be the other one.
        other = (found[:, 0] == asked).astype(np.int64)
        row = np.arange(len(asked))
        return found[row, other].astype(np.int64), similarity[row, other].astype(np.float32)

    @property
    def _whole(self) -> Any:
        """The descriptors without codes."""
        return self._index if self.is_exact else self._index.refine_index

    def _make_codes(self, blocks: DescriptorBlocks, count: int) -> None:
        """Replace the index by codes of these descriptors, learned from a sample of all of them."""
        stride = max(1, count // TRAINING_SAMPLE)
        index = make_codes(np.concatenate([block[::stride] for block in blocks()]))
        reported = time.monotonic()
        for block in blocks():
            self._check(block)
            index.add(np.ascontiguousarray(block, np.float32))
            if time.monotonic() - reported > _PROGRESS_S:
                reported = time.monotonic()
                _logger.info("index: %d of %d places", index.ntotal, count)
        self._index = index
        self._recall_at_10 = None

    def _check(self, descriptors: NDArray[np.float32]) -> None:
        if descriptors.ndim != 2 or descriptors.shape[1] != self.dimension:
            raise DescriptorShapeError(
                f"global descriptors of shape {descriptors.shape} do not fit an index of {self.dimension} dimensions"
            )


def flat_limit(dimension: int) -> int:
    """How many descriptors of this dimension are compared as they are."""
    return FLAT_FLOATS // dimension
