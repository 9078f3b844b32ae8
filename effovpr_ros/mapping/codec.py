"""Features of one place to bytes and back."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import DescriptorShapeError, MapError, MapFormatError
from effovpr_ros.features.codes import pack, packed_rows
from effovpr_ros.features.image_features import LocalFeatures, PackedLocal

MAX_GRID = 256
"""Columns or rows of patches, whose numbers are stored in a byte."""


@dataclass(frozen=True)
class EncodedLocal:
    """Local features as stored.

    Attributes:
        codes: two 4-bit codes a byte, keypoint by keypoint in raster order.
        cells: one bit a patch of the grid in raster order, set where there is a keypoint; empty if all are set.
    """

    codes: bytes
    cells: bytes


def encode_local(features: LocalFeatures, grid_wh: tuple[int, int]) -> EncodedLocal:
    """Encode local features; keypoints must be in raster order, as the extractor gives them.

    Raises:
        MapError: keypoints out of order or outside the grid.
    """
    columns, rows = grid_wh
    cells = features.cells_xy.astype(np.int64)
    index = cells[:, 1] * columns + cells[:, 0]
    if np.any(np.diff(index) <= 0) or np.any(cells >= (columns, rows)):
        raise MapError(f"keypoints must be in raster order within the {columns}x{rows} grid of patches")
    occupied = np.zeros(columns * rows, dtype=bool)
    occupied[index] = True
    return EncodedLocal(pack(features.codes), b"" if occupied.all() else np.packbits(occupied).tobytes())


def decode_local(encoded: EncodedLocal, grid_wh: tuple[int, int], width: int) -> PackedLocal:
    """Inverse of `encode_local`, but for codes that stay packed; `width` is C.

    Raises:
        DescriptorShapeError: the bytes are no whole number of keypoints.
        MapError: the two parts do not fit each other.
    """
    cells = _grid_cells(*grid_wh)
    if encoded.cells:
        cells = cells[np.unpackbits(np.frombuffer(encoded.cells, np.uint8), count=len(cells)).view(bool)]
    codes = packed_rows(encoded.codes, width)
    if len(codes) != len(cells):
        raise MapError(f"{len(codes)} local descriptors but {len(cells)} keypoints are stored; the map is damaged")
    return PackedLocal(codes, cells.copy())


@functools.lru_cache(maxsize=16)
def _grid_cells(columns: int, rows: int) -> NDArray[np.uint8]:
    """(columns * rows, 2) patch column and row in raster order."""
    row, column = np.divmod(np.arange(columns * rows), columns)
    return np.stack([column, row], axis=1).astype(np.uint8)


def encode_global(descriptor: NDArray[np.float32]) -> bytes:
    """A global descriptor as little-endian fp16."""
    return descriptor.astype("<f2").tobytes()


def decode_globals(blobs: list[bytes], dimension: int) -> NDArray[np.float32]:
    """Stored global descriptors to (N, D) float32, L2-normalised again after the rounding to fp16.

    Raises:
        MapFormatError: see `decode_rounded`.
    """
    stacked = decode_rounded(blobs, dimension)
    norms = np.linalg.norm(stacked, axis=1, keepdims=True)
    return np.asarray(stacked / np.maximum(norms, 1e-12), dtype=np.float32)


def decode_rounded(blobs: list[bytes], dimension: int) -> NDArray[np.float32]:
    """Stored global descriptors to (N, D) float32 as rounded to fp16, so that `encode_global` gives the same bytes.

    Raises:
        MapFormatError: a blob has another length, or holds what is no number.
    """
    if any(not isinstance(blob, bytes) or len(blob) != 2 * dimension for blob in blobs):
        raise MapFormatError(f"a stored global descriptor does not have {dimension} dimensions; the map is damaged")
    stacked = np.frombuffer(b"".join(blobs), "<f2").reshape(len(blobs), dimension).astype(np.float32)
    if not np.isfinite(stacked).all():
        raise MapFormatError("a stored global descriptor holds values that are not finite numbers; the map is damaged")
    return np.asarray(stacked, np.float32)


def as_stored(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) descriptors as a map gives them again once they were stored."""
    return decode_globals([encode_global(descriptor) for descriptor in descriptors], descriptors.shape[1])


def require_dimension(descriptor: NDArray[np.float32], dimension: int, owner: str) -> None:
    """Refuse a global descriptor of another model.

    Args:
        descriptor: that should be (D,).
        dimension: D of the map's model.
        owner: of the descriptor, for the message.

    Raises:
        DescriptorShapeError: another shape.
    """
    if descriptor.shape != (dimension,):
        raise DescriptorShapeError(
            f"{owner} has a global descriptor of shape {descriptor.shape}, the map's model gives ({dimension},)"
        )
