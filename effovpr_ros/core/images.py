"""Pictures in: any common layout of pixels, or bytes of a file, to RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ImageError

RgbImage = NDArray[np.uint8]
"""(H, W, 3) uint8, red first."""


def to_rgb_uint8(array: NDArray[Any], name: str = "image") -> RgbImage:
    """Bring any common pixel layout to RGB.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; uint8, or uint16 over its full range.
        name: what the error message calls the image.

    Returns:
        (H, W, 3) uint8. Alpha is dropped, mono is repeated, 16 bits keep their upper 8.

    Raises:
        ImageError: the array is empty or of another shape or type.
    """
    if array.size == 0:
        raise ImageError(f"{name} is empty (shape {array.shape}); check the camera or the file")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"{name} has pixel type {array.dtype}; convert it to uint8 or uint16")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        return np.ascontiguousarray(np.repeat(array[:, :, None], 3, axis=2), dtype=np.uint8)
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return np.ascontiguousarray(array[:, :, :3], dtype=np.uint8)
    raise ImageError(f"{name} has shape {array.shape}; wanted (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")


def decode_image(data: bytes, name: str) -> RgbImage:
    """Decode JPEG, PNG, TIFF, WebP or BMP bytes; the EXIF orientation is applied.

    Raises:
        ImageError: the bytes are no readable image.
    """
    raw = np.frombuffer(data, dtype=np.uint8)
    decoded = cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH) if raw.size else None
    if decoded is None:
        raise ImageError(f"{name} cannot be decoded ({len(data)} bytes); replace or remove the file")
    return to_rgb_uint8(decoded, name)


def read_image(path: str | Path) -> RgbImage:
    """Read an image file as RGB.

    Raises:
        ImageError: the file is missing or unreadable; names it.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    return decode_image(data, str(path))
