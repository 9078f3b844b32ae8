"""DescriptorIndex: nearest global descriptors by inner product, with FAISS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
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
    """Descriptors numbered from 0 in the order they were added; exact up to `FLAT_LIMIT`, HNSW beyond."""

    def __init__(self, dimension: int) -> None:
        """Start empty.

        Args:
            dimension: D of the descriptors.
        """
        self._index: Any = faiss.IndexFlatIP(dimension)

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
        if self.is_exact and len(self) + len(descriptors) > FLAT_LIMIT:
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
            among: numbers that may be returned; None for all.

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


def read_or_build_index(
    path: Path, checksum: str, *, dimension: int, count: int, descriptors: Callable[[], NDArray[np.float32]]
) -> DescriptorIndex:
    """The index that a map stores, see `read_index`; where it is missing or stale, one built of its descriptors."""
    try:
        return read_index(path, checksum, dimension=dimension, count=count)
    except MapFormatError as error:
        index = DescriptorIndex(dimension)
        if count:
            _logger.warning("%s %s; it is rebuilt from the descriptors of the places", path, error)
            index.add(descriptors())
        return index


def read_index(path: Path, checksum: str, *, dimension: int, count: int) -> DescriptorIndex:
    """The index that a map stores.

    Args:
        path: of the file.
        checksum: SHA-256 that the manifest knows.
        dimension: D of the descriptors that are wanted.
        count: number of the map's places.

    Raises:
        MapFormatError: missing, damaged or of other descriptors; the message goes on after the file's name.
    """
    data = path.read_bytes() if path.is_file() else b""
    if not data:
        raise MapFormatError("is missing")
    if sha256(data) != checksum:
        raise MapFormatError("does not fit its checksum")
    index = DescriptorIndex.from_bytes(data)
    if len(index) != count or index.dimension != dimension:
        raise MapFormatError(f"holds {len(index)} of {count} places")
    return index
