"""`index.faiss` of a map: written atomically, memory-mapped where it is only read, caught up or rebuilt."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.core.files import replaced_file
from effovpr_ros.mapping.index import DescriptorIndex, IndexSummary
from effovpr_ros.mapping.index_layout import check_index_layout

_logger = logging.getLogger(__name__)

# An index holds descriptors in fp32 or fp16, the store in fp16.
_LEAST_COSINE = 0.999
# A larger file is not read as a whole at opening, which is what memory-mapping is for; `map check` reads it.
_HASHED_BYTES = 2**30


@dataclass(frozen=True)
class StoredIndex:
    """The index file of a map, and what it must hold.

    Attributes:
        path: of the file.
        checksum: SHA-256 that the manifest knows; empty if it claims no index.
        dimension: D of the descriptors.
        count: number of places that it holds; the map may have more.
        summary: of what was measured on it.
    """

    path: Path
    checksum: str
    dimension: int
    count: int
    summary: IndexSummary

    def read(self, *, mapped: bool) -> DescriptorIndex:
        """Read it.

        Args:
            mapped: leave the descriptors in the file, for the operating system to read what a search needs and to
                drop it again, so that they may be larger than the memory; codes are read. Nothing can be added then.

        Raises:
            MapFormatError: missing, damaged or of other descriptors; the message goes on after the file's name.
        """
        if not self.path.is_file() or not self.path.stat().st_size:
            raise MapFormatError("is missing")
        if not self.checksum:
            raise MapFormatError("is older than the places")
        if self.path.stat().st_size <= _HASHED_BYTES and file_sha256(self.path) != self.checksum:
            raise MapFormatError("does not fit its checksum")
        check_index_layout(self.path)
        try:
            stored: Any = faiss.read_index(str(self.path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except (RuntimeError, MemoryError) as error:
            raise MapFormatError(f"cannot be read by FAISS {faiss.__version__}: {error}") from error
        if stored.d != self.dimension:
            raise MapFormatError(f"has descriptors of {stored.d} numbers, the map's have {self.dimension}")
        if stored.ntotal != self.count:
            raise MapFormatError(f"holds {stored.ntotal} of {self.count} places")
        index = DescriptorIndex(self.dimension)
        index.adopt(stored, self.summary)
        return index


def load_index(
    stored: StoredIndex,
    count: int,
    blocks: Callable[[int], Iterable[NDArray[np.float32]]],
    *,
    writable: bool,
    stays_exact: bool,
) -> DescriptorIndex:
    """The index that a map stores, with the places that were added since; where it does not fit, one made anew.

    Args:
        stored: the file.
        count: number of the map's places.
        blocks: gives (M, D) float32 descriptors of the map's places from a row on, block by block.
        writable: places will be added.
        stays_exact: see `DescriptorIndex`.
    """
    try:
        index = stored.read(mapped=not writable and stored.count == count)
    except MapFormatError as error:
        if count:
            # A manifest that places were added after is nothing to warn of.
            level = logging.WARNING if stored.checksum else logging.INFO
            _logger.log(level, "%s %s; it is rebuilt from the map's %d places", stored.path, error, count)
        return DescriptorIndex.build(stored.dimension, count, lambda: blocks(0), stays_exact=stays_exact)
    index.stays_exact = stays_exact
    if stored.count < count:
        _logger.info("%s lacks %d of %d places, which are added", stored.path, count - stored.count, count)
        for block in blocks(stored.count):
            index.add(block)
    return index


def write_index(index: DescriptorIndex, path: Path) -> str:
    """Write an index so that a kill leaves either the old or the new file.

    Returns:
        SHA-256 of the file.

    Raises:
        MapError: the disk is full or not writable; the old file is still there.
    """
    try:
        with replaced_file(path) as temporary:
            faiss.write_index(index.faiss_index, str(temporary))
            checksum = file_sha256(temporary)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "FAISS could not write all of it"
        raise MapError(f"{path} cannot be written: {reason}; free some space or choose another folder") from error
    return checksum


def index_problems(stored: StoredIndex, blocks: Iterable[NDArray[np.float32]]) -> list[str]:
    """What is wrong with an index file, row by row; nothing if it is sound.

    Args:
        stored: the file.
        blocks: (M, D) float32 descriptors of the places that it should hold, in order.
    """
    try:
        if file_sha256(stored.path) != stored.checksum:
            raise MapFormatError("does not fit its checksum")
        index = stored.read(mapped=True)
    except (MapFormatError, OSError) as error:
        return [f"{stored.path.name} {error}; it is rebuilt when the map is opened for writing"]
    row = 0
    for block in blocks:
        part = block[: len(index) - row]
        with np.errstate(invalid="ignore", over="ignore"):
            cosines = np.sum(index.descriptors(row, len(part)) * part, axis=1)
        others = np.flatnonzero(~(cosines >= _LEAST_COSINE))
        if len(others):
            return [
                f"row {row + others[0]} of {stored.path.name} is not the descriptor of its place (cosine "
                f"{cosines[others[0]]:.3f}); remove that file, and it is made anew"
            ]
        row += len(part)
    return [] if row == len(index) else [f"{stored.path.name} holds {len(index)} rows of {row} places"]


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
