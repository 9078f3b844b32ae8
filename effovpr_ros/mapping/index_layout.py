"""Checks an index file as bytes before FAISS reads it.

FAISS ends the process on some files that were cut short or made up: it maps what is not there, or trusts lengths that
do not fit each other. A map makes only two kinds of index, so all that their files may say is known beforehand.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from effovpr_ros.core.errors import MapFormatError

_FLAT, _CODES = b"IxFI", b"IxRF"
_INNER_PRODUCT = 0
_FP16 = 4
_BITS = 4
_CENTROIDS = 2**_BITS
_BLOCK = 32


def check_index_layout(path: Path) -> None:
    """Refuse a file that is not, from its first byte to its last, an index as `DescriptorIndex` writes it.

    Args:
        path: of the file.

    Raises:
        MapFormatError: another kind of index, damaged or cut short; the message goes on after the file's name.
    """
    with path.open("rb") as file:
        kind = file.read(4)
        if kind not in (_FLAT, _CODES):
            raise MapFormatError(f"is an index of kind {kind!r}, as this version makes none")
        try:
            (_check_flat if kind == _FLAT else _check_codes)(file)
            end = file.tell()
        except (struct.error, OverflowError):
            raise MapFormatError("is cut short") from None
        size = os.fstat(file.fileno()).st_size
    if end != size:
        raise MapFormatError(f"has {size} bytes and should have {end}")


def _check_flat(file: BinaryIO) -> None:
    """Header, number of float32, float32."""
    dimension, count = _header(file)
    _array(file, 4, dimension * count)


def _check_codes(file: BinaryIO) -> None:
    """An `IndexRefine` of a rotation with an `IndexPQFastScan`, and of an `IndexScalarQuantizer` of fp16."""
    described = _header(file)
    dimension, count = described

    def part(kind: bytes) -> None:
        _must(file.read(4) == kind and _header(file) == described)

    part(b"IxPT")
    _must(_numbers(file, "i") == (1,))
    _must(file.read(4) == b"rrot" and _numbers(file, "?") == (False,))
    _array(file, 4, dimension * dimension)
    _array(file, 4, 0)
    _must(_numbers(file, "ii?") == (dimension, dimension, True))
    part(b"IPfs")
    width, subspaces, bits = _numbers(file, "QQQ")
    _must(width == dimension and bits == _BITS and 0 < subspaces <= dimension and dimension % subspaces == 0)
    _array(file, 4, _CENTROIDS * dimension)
    _must(_numbers(file, "iii") == (0, _BLOCK, 0))
    padded, even_subspaces = _numbers(file, "QQ")
    _must(padded == -(-count // _BLOCK) * _BLOCK and even_subspaces == subspaces + subspaces % 2)
    _array(file, 1, padded * even_subspaces // 2)
    part(b"IxSQ")
    quantiser, _, _, width, code_size = _numbers(file, "iifQQ")
    _must((quantiser, width, code_size) == (_FP16, dimension, 2 * dimension))
    _array(file, 4, 0)
    _array(file, 1, 2 * dimension * count)
    _must(_numbers(file, "f")[0] >= 1.0)


def _header(file: BinaryIO) -> tuple[int, int]:
    """Dimension and number of descriptors, of an index that is trained and compares inner products."""
    dimension, count, _, _, is_trained, metric = _numbers(file, "iqqqBi")
    _must(dimension > 0 and count >= 0 and is_trained == 1 and metric == _INNER_PRODUCT)
    return dimension, count


def _array(file: BinaryIO, item_bytes: int, expected: int) -> None:
    """Pass over an array that must have so many items."""
    _must(_numbers(file, "Q") == (expected,))
    file.seek(item_bytes * expected, os.SEEK_CUR)


def _numbers(file: BinaryIO, kinds: str) -> tuple[Any, ...]:
    layout = struct.Struct(f"<{kinds}")
    return layout.unpack(file.read(layout.size))


def _must(fits: bool) -> None:
    if not fits:
        raise MapFormatError("has parts that do not fit each other")
