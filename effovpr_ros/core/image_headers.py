"""What the first bytes of a picture say, before anything of it is decoded: its format and its size."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from effovpr_ros.core.errors import ImageError

READABLE_FORMATS = "JPEG, PNG, TIFF, WebP, BMP, GIF or PNM"

_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_PNM_NUMBER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,10})(?=[\s#])")


@dataclass(frozen=True)
class PictureHeader:
    """Format and size of a picture in pixels, as it is stored: an EXIF orientation is not applied."""

    format: str
    width: int
    height: int

    @property
    def num_pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def read_header(data: bytes, name: str) -> PictureHeader:
    """Format and size of a picture from its first bytes.

    Raises:
        ImageError: of none of the formats that are read, or cut off within its header.
    """
    for magic, read in _READERS:
        if magic.match(data):
            try:
                header = read(data)
            except (struct.error, IndexError, ValueError) as error:
                raise ImageError(
                    f"{name} cannot be decoded: its header is damaged ({len(data)} bytes); replace or remove it"
                ) from error
            if header.width < 1 or header.height < 1:
                raise ImageError(f"{name} has {header.width}x{header.height} pixels; replace or remove it")
            return header
    raise ImageError(
        f"{name} cannot be decoded ({len(data)} bytes): it is no {READABLE_FORMATS}; convert, replace or remove it"
    )


def jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, start, end) of what each segment of a JPEG holds, up to its first scan or the end of the bytes."""
    segments, at = [], 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            at += 2
        elif marker == _JPEG_SCAN:
            break
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            segments.append((marker, at + 4, at + 2 + length))
            at += 2 + max(length, 2)
    return segments


def _jpeg(data: bytes) -> PictureHeader:
    starts = [start for marker, start, _ in jpeg_segments(data) if marker in _JPEG_SIZES]
    if not starts:
        raise ValueError("no frame")
    start = starts[0]
    height, width = struct.unpack_from(">HH", data, start + 1)
    return PictureHeader("JPEG", width, height)


def _png(data: bytes) -> PictureHeader:
    if data[12:16] != b"IHDR":
        raise ValueError("the first chunk is no IHDR")
    return PictureHeader("PNG", *struct.unpack_from(">II", data, 16))


def _bmp(data: bytes) -> PictureHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return PictureHeader("BMP", width, abs(height))


def _gif(data: bytes) -> PictureHeader:
    return PictureHeader("GIF", *struct.unpack_from("<HH", data, 6))


def _pnm(data: bytes) -> PictureHeader:
    first = _PNM_NUMBER.match(data, 2)
    second = _PNM_NUMBER.match(data, first.end()) if first else None
    if first is None or second is None:
        raise ValueError("no size")
    return PictureHeader("PNM", int(first[1]), int(second[1]))


def _webp(data: bytes) -> PictureHeader:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("no WebP chunk")
    if len(data) < 30:
        raise ValueError("cut off")
    return PictureHeader("WebP", width, height)


def _tiff(data: bytes) -> PictureHeader:
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    is_big = version == 43
    (at,) = struct.unpack_from(f"{order}Q", data, 8) if is_big else struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, at)
    at, size = at + (8 if is_big else 2), 20 if is_big else 12
    sides = {}
    for entry in range(at, at + size * min(count, 4096), size):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT) and kind in _TIFF_NUMBERS:
            (sides[tag],) = struct.unpack_from(f"{order}{_TIFF_NUMBERS[kind]}", data, entry + (12 if is_big else 8))
    if len(sides) < 2:
        raise ValueError("no size")
    return PictureHeader("TIFF", sides[_TIFF_WIDTH], sides[_TIFF_HEIGHT])


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], PictureHeader]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"P[1-6][\s#]"), _pnm),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]"), _tiff),
)
