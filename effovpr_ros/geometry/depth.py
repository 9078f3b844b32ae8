"""Depth images: metres of an encoding, and the depth at points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import CameraError

# A point whose 3x3 surroundings span more of its depth lies on an edge: near or far is a matter of one pixel.
_MAX_SPREAD = 0.15


def depth_metres(depth: NDArray[Any]) -> NDArray[np.float32]:
    """A depth image to metres (REP 118).

    Args:
        depth: (H, W) float32 or float64 metres, or uint16 millimetres.

    Returns:
        (H, W) float32 metres; NaN where not known (0, negative, infinite or NaN).

    Raises:
        CameraError: of another shape or type.
    """
    if depth.ndim != 2 or depth.size == 0:
        raise CameraError(f"depth image has shape {depth.shape}; it must be (H, W)")
    if depth.dtype == np.uint16:
        metres = depth.astype(np.float32) / 1000.0
    elif depth.dtype in (np.float32, np.float64):
        metres = depth.astype(np.float32)
    else:
        raise CameraError(
            f"depth image has type {depth.dtype}; it must be float32 metres or uint16 millimetres (REP 118)"
        )
    return np.where(np.isfinite(metres) & (metres > 0.0), metres, np.float32(np.nan))


def depth_at(
    depth_m: NDArray[np.float32], points_xy: NDArray[np.float64], image_size_wh: tuple[int, int]
) -> NDArray[np.float64]:
    """Depth at points of the image that a depth image is registered to; sizes may differ.

    Args:
        depth_m: (h, w) metres, NaN where not known.
        points_xy: (N, 2) pixels of the image.
        image_size_wh: of the image.

    Returns:
        (N,) metres: the median of the known ones of the nearest 3x3 pixels. NaN where the middle one is not known or
        an edge runs through them.
    """
    rows, columns = depth_m.shape
    scale = np.array([columns, rows]) / image_size_wh
    column, row = np.rint((points_xy.reshape(-1, 2) + 0.5) * scale - 0.5).astype(int).T
    padded = np.pad(depth_m.astype(np.float64), 1, constant_values=np.nan)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    column, row = np.clip(column, 0, columns - 1), np.clip(row, 0, rows - 1)
    around = np.stack([padded[row + down, column + right] for down in range(3) for right in range(3)], axis=1)
    usable = inside & np.isfinite(around[:, 4])
    # Rows without any known depth would make NumPy warn.
    around[~usable] = 1.0
    middle = np.nanmedian(around, axis=1)
    spread = np.nanmax(around, axis=1) - np.nanmin(around, axis=1)
    return np.where(usable & (spread <= _MAX_SPREAD * middle), middle, np.nan)
