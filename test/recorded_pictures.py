"""Pictures as cameras and phones write them, made in memory: every format, damaged and oversized ones."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from synthetic import picture


def encoded(format: str, image: Any = None, **options: Any) -> bytes:
    """A picture of 96 x 72 pixels, or the one given, as bytes of a file by Pillow."""
    out = io.BytesIO()
    pixels = picture(1) if image is None else image
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(out, format, **options)
    return out.getvalue()


def png_header(width: int, height: int, *, rows: bytes = b"") -> bytes:
    """A PNG that says a size and holds next to nothing: 69 bytes that take 10 GB where they are believed."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header says a size that its data do not hold."""
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_of_size(width: int, height: int) -> bytes:
    """A TIFF whose directory says a size that its data do not hold."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 4)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(8)


def webp_of_size(width: int, height: int) -> bytes:
    """A WebP whose extended header says a canvas that its data do not hold."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def bmp_of_size(width: int, height: int) -> bytes:
    """A BMP whose header says a size that its data do not hold."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff_16(rgb: NDArray[np.uint8]) -> bytes:
    """A TIFF of 16 bits a colour, the 8 given in the upper half."""
    import cv2

    deep = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    return cv2.imencode(".tiff", deep)[1].tobytes()


def png_16(pixels: NDArray[np.uint16]) -> bytes:
    """A grey or RGB PNG of 16 bits."""
    import cv2

    stored = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", stored)[1].tobytes()
