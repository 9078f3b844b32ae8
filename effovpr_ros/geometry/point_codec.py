"""Points of one place to bytes and back: what a map keeps of a picture for matching it in detail.

A descriptor has 4 bits an entry as local descriptors have (`features.codes`), a position 16 bits a coordinate as a part
of the picture's side, a hundredth of a pixel. docs/verification.md says how many points are kept, and why so.
"""

from __future__ import annotations

import struct

import numpy as np

from effovpr_ros.core.errors import MapError
from effovpr_ros.features.codes import decode, encode, pack, unpack
from effovpr_ros.geometry.points import DIMENSIONS, KINDS, Points, quantised

STORED_POINTS = 1024
"""Points of a place that are kept, the strongest."""

_VERSION = 1
_HEADER = struct.Struct("<BBH")
_STEPS = 65535.0


def encode_points(points: Points, max_points: int = STORED_POINTS) -> bytes:
    """Bytes of the strongest points: 4, and 36 for each point by XFeat."""
    kept = points.strongest(max_points)
    parts = (kept.keypoints_xy + np.float32(0.5)) / np.array(kept.image_size_wh, np.float32)
    positions = np.rint(np.clip(parts, 0.0, 1.0) * _STEPS).astype("<u2")
    codes = pack(encode(kept.descriptors.astype(np.float32)))
    return _HEADER.pack(_VERSION, KINDS.index(kept.kind), len(kept)) + positions.tobytes() + codes


def decode_points(blob: bytes, image_size_wh: tuple[int, int]) -> Points:
    """Inverse of `encode_points`.

    Args:
        blob: as stored.
        image_size_wh: pixels of the place's picture.

    Raises:
        MapError: damaged, or written by a newer version.
    """
    if len(blob) < _HEADER.size:
        raise MapError(f"stored points have {len(blob)} bytes; the map is damaged")
    version, kind_number, count = _HEADER.unpack_from(blob)
    if version != _VERSION or kind_number >= len(KINDS):
        raise MapError(f"stored points are of version {version}, kind {kind_number}; update this package")
    kind = KINDS[kind_number]
    width = DIMENSIONS[kind]
    end = _HEADER.size + 4 * count
    if len(blob) != end + count * width // 2:
        raise MapError(f"stored points have {len(blob)} bytes, which do not fit {count} points; the map is damaged")
    positions = np.frombuffer(blob, "<u2", 2 * count, _HEADER.size).reshape(count, 2)
    keypoints = positions.astype(np.float32) * (np.array(image_size_wh, np.float32) / np.float32(_STEPS))
    descriptors = quantised(decode(unpack(blob[end:], width)), kind)
    return Points(kind, keypoints - np.float32(0.5), descriptors, image_size_wh)
