"""DescriptorIndex: nearest global descriptors by inner product, with FAISS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.errors import DescriptorShapeError, MapFormatError
from effovpr_ros.mapping.manifest import sha256

_logger = logging.getLogger(__name__)

# Exact search of 50,000 x 384 takes about as long as one re-ranked candidate; a graph pays off beyond.
FLAT_LIMIT = 50_000
_HNSW_NEIGHBOURS = 32
_HNSW_EF_CONSTRUCTION = 80
_HNSW_EF_SEARCH = 256


class DescriptorIndex:
    """Descriptors numbered from 0 in the order they were added; exact up to `FLAT_LIMIT`, HNSW beyond.

    Attributes:
        stays_exact: no graph is built.
    """

    def __init__(self, dimension: int, *, stays_exact: bool = False) -> None:
        """Start empty.

        Args:
            dimension: D of the descriptors.
            stays_exact: build no graph at the limit, which takes a minute: for a robot that cannot wait.
        """
        self._index: Any = faiss.IndexFlatIP(dimension)
        self.stays_exact = stays_exact

    def __len__(self) -> int:
        """Number of descriptors."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """D of the descriptors."""
        return int(self._index.d)

    @property
    def is_exact(self) -> bool:
        """Whether a search compares with every descriptor."""
        return isinstance(self._index, faiss.IndexFlat)

    def add(self, descriptors: NDArray[np.float32]) -> None:
        """Append (N, D) L2-normalised descriptors.

        Raises:
            DescriptorShapeError: another D.
        """
        self._check(descriptors)
        if self.is_exact and not self.stays_exact and len(self) + len(descriptors) > FLAT_LIMIT:
            graph = faiss.IndexHNSWFlat(self.dimension, _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = _HNSW_EF_CONSTRUCTION
            graph.hnsw.efSearch = _HNSW_EF_SEARCH
            if len(self):
                graph.add(self._index.reconstruct_n(0, len(self)))
            self._index = graph
        self._index.add(np.ascontiguousarray(descriptors, np.float32))

    def search(
        self, descriptor: NDArray[np.float32], top_k: int, *, among: Sequence[int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Nearest descriptors.

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
        if isinstance(among, range):
            selector: Any = faiss.IDSelectorRange(among.start, among.stop)
        else:
            selector = None if among is None else faiss.IDSelectorBatch(np.asarray(among, np.int64))
        if self.is_exact:
            parameters: Any = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        else:
            parameters = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
                sel=selector, efSearch=max(_HNSW_EF_SEARCH, top_k)
            )
        similarity, number = self._index.search(query, top_k, params=parameters)
        found = number[0] >= 0
        number, similarity = number[0][found], similarity[0][found]
        order = np.lexsort((number, -similarity))
        return number[order].astype(np.int64), similarity[order].astype(np.float32)

    def remove(self, numbers: Collection[int]) -> None:
        """Remove descriptors; the others keep their order and are numbered anew. A graph is built again.

        Args:
            numbers: of the descriptors, each below `len`.
        """
        if self.is_exact:
            self._index.remove_ids(faiss.IDSelectorBatch(np.fromiter(numbers, np.int64)))
            return
        kept = np.delete(self._index.reconstruct_n(0, len(self)), np.fromiter(numbers, np.int64), axis=0)
        self._index = faiss.IndexFlatIP(self.dimension)
        self.add(kept)

    def nearest_other(self, numbers: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """For each of some descriptors, the other one with the highest cosine.

        Args:
            numbers: (N,) of the descriptors; there are two at least.

        Returns:
            (N,) numbers and (N,) cosines.
        """
        asked = np.asarray(numbers, np.int64)
        similarity, found = self._index.search(self._index.reconstruct_batch(asked), 2)
        # Of equal descriptors the first found may be the other one.
        other = (found[:, 0] == asked).astype(np.int64)
        row = np.arange(len(asked))
        return found[row, other].astype(np.int64), similarity[row, other].astype(np.float32)

    def to_bytes(self) -> bytes:
        """FAISS's own file format."""
        return bytes(faiss.serialize_index(self._index).tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> DescriptorIndex:
        """Inverse of `to_bytes`.

        Raises:
            MapFormatError: FAISS cannot read it.
        """
        try:
            stored = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        except RuntimeError as error:
            raise MapFormatError(f"the stored index cannot be read by FAISS {faiss.__version__}: {error}") from error
        index = cls(stored.d)
        index._index = stored
        return index

    def _check(self, descriptors: NDArray[np.float32]) -> None:
        if descriptors.ndim != 2 or descriptors.shape[1] != self.dimension:
            raise DescriptorShapeError(
                f"global descriptors of shape {descriptors.shape} do not fit an index of {self.dimension} dimensions"
            )


@dataclass(frozen=True)
class StoredIndex:
    """The index file of a map, and what it must hold.

    Attributes:
        path: of the file.
        checksum: SHA-256 that the manifest knows; empty if it claims no index of all places.
        dimension: D of the descriptors.
        count: number of the map's places.
    """

    path: Path
    checksum: str
    dimension: int
    count: int

    def read(self) -> DescriptorIndex:
        """Read it.

        Raises:
            MapFormatError: missing, damaged or of other descriptors; the message goes on after the file's name.
        """
        data = self.path.read_bytes() if self.path.is_file() else b""
        if not data:
            raise MapFormatError("is missing")
        if sha256(data) != self.checksum:
            raise MapFormatError("does not fit its checksum")
        index = DescriptorIndex.from_bytes(data)
        if len(index) != self.count or index.dimension != self.dimension:
            raise MapFormatError(f"holds {len(index)} of {self.count} places")
        return index


def load_index(
    stored: StoredIndex, descriptors: Callable[[], NDArray[np.float32]], *, stays_exact: bool
) -> DescriptorIndex:
    """The index that a map stores, or where it does not fit, one that is made of the descriptors.

    Args:
        stored: the file.
        descriptors: gives (count, D) float32 of the map's places.
        stays_exact: see `DescriptorIndex`.
    """
    try:
        index = stored.read()
        index.stays_exact = stays_exact
    except MapFormatError as error:
        index = DescriptorIndex(stored.dimension, stays_exact=stays_exact)
        if stored.count:
            # A manifest that places were added after is nothing to warn of.
            level = logging.WARNING if stored.checksum else logging.INFO
            _logger.log(level, "%s %s; it is rebuilt from the map's places", stored.path, error)
            index.add(descriptors())
    return index
