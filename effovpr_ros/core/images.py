"""Pictures in: any common layout of pixels, or bytes of a file, to RGB."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.image_headers import read_header

RgbImage = NDArray[np.uint8]
"""(H, W, 3) uint8, red first."""

MAX_PIXELS = 100_000_000
"""Pictures of more pixels are refused before they are decoded, unless more are asked for: 100 Mpx take 300 MB."""

_COMMON_BITS = (8, 10, 12, 14, 16)
# The largest pixel of a format, four channels of 16 bits, and room for what is stored beside them.
_MAX_BYTES_A_PIXEL = 8
_MAX_BYTES_BESIDE = 1 << 24


def to_rgb_uint8(array: NDArray[Any], name: str = "image") -> RgbImage:
    """Bring any common pixel layout to RGB.

    Cameras of 10, 12 or 14 bits write them into the lower bits of 16, and no encoding says how many there are. The
    brightest pixel does: a picture whose brightest pixel is below 4096 is taken to have 12 bits, below 1024 10.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; uint8, or uint16 of 8, 10, 12, 14 or 16 bits.
        name: what the error message calls the image.

    Returns:
        (H, W, 3) uint8. Alpha is dropped, mono is repeated, the upper 8 of the bits that are used are kept.

    Raises:
        ImageError: the array is empty or of another shape or type.
    """
    if array.size == 0:
        raise ImageError(f"{name} is empty (shape {array.shape}); check the camera or the file")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name} has shape {array.shape}; it must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.ndim == 3:
        # Alpha is no colour, and opaque alpha would hide that the colours have fewer bits.
        array = array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]
    if array.dtype == np.uint16:
        array = (array >> (_used_bits(int(array.max())) - 8)).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"{name} has pixel type {array.dtype}; convert it to uint8 or uint16")
    if array.ndim == 2:
        return np.ascontiguousarray(np.repeat(array[:, :, None], 3, axis=2), dtype=np.uint8)
    return np.ascontiguousarray(array, dtype=np.uint8)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """Decode JPEG, PNG, TIFF, WebP, BMP, GIF or PNM bytes; the EXIF orientation is applied.

    Args:
        data: the file.
        name: what the error message calls it.
        max_pixels: a picture whose header says more is refused before it is decoded.

    Raises:
        ImageError: the bytes are no readable image, or it is too large.
    """
    _require_size(data, name, max_pixels)
    # Asked for red first, OpenCV 5 mixes up the channels of a TIFF of 16 bits, and OpenCV 4.9 knows no such flag.
    decoded = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, name)
    return to_rgb_uint8(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), name)


def decode_mosaic(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Decode the bytes of a picture of one channel as it is, e.g. the mosaic of a Bayer sensor.

    Returns:
        (H, W) uint8 or uint16.

    Raises:
        ImageError: see `decode_image`.
    """
    _require_size(data, name, max_pixels)
    return _decode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION, name)


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """Read an image file as RGB.

    Args:
        path: of the file.
        max_pixels: see `decode_image`.

    Raises:
        ImageError: the file is missing, unreadable or too large; names it.
    """
    return decode_image(read_file(path, largest_file(max_pixels)), shown(path), max_pixels=max_pixels)


def largest_file(max_pixels: int) -> int:
    """Bytes that a picture file of so many pixels has at most."""
    return _MAX_BYTES_A_PIXEL * max_pixels + _MAX_BYTES_BESIDE


def read_file(path: str | Path, max_bytes: int, *, first: int = -1) -> bytes:
    """The bytes of a file.

    Args:
        path: of the file.
        max_bytes: a larger file is refused.
        first: read so many bytes alone; negative: all.

    Raises:
        ImageError: missing, unreadable, no ordinary file (a pipe would be waited for without end), or too large.
    """
    name = shown(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name} is no ordinary file; replace or remove it")
            if status.st_size > max_bytes:
                raise ImageError(f"{name} has {status.st_size} bytes, too many for a picture; replace or remove it")
            return file.read(first)
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder; name the pictures in it") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def shown(path: str | Path) -> str:
    """A path for people: bytes that are no UTF-8 are written as escapes, so that every terminal takes it."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _require_size(data: bytes, name: str, max_pixels: int) -> None:
    header = read_header(data, name)
    if header.num_pixels > max_pixels:
        raise ImageError(
            f"{name} has {header.width}x{header.height} pixels ({header.num_pixels / 1e6:.0f} million), the limit is "
            f"{max_pixels / 1e6:.0f} million; shrink it, or raise the limit (max_megapixels)"
        )


def _decode(data: bytes, flags: int, name: str) -> NDArray[Any]:
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise ImageError(f"{name} cannot be decoded: {' '.join(str(error).split())[:200]}") from error
    if decoded is None:
        raise ImageError(f"{name} cannot be decoded ({len(data)} bytes); replace or remove the file")
    return np.asarray(decoded)


def _used_bits(brightest: int) -> int:
    return next(bits for bits in _COMMON_BITS if brightest < 1 << bits)
