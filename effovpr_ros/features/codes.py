"""Local descriptors as 4-bit codes: what a map stores and what re-ranking compares.

A facet is scaled by its own root mean square and rounded to 15 uniform levels. Their step is that of the uniform
quantiser with the least mean squared error for a Gaussian (J. Max, "Quantizing for minimum distortion", 1960:
for 15 levels the outermost lies near 2.5 standard deviations). No scale is stored, since the cosine of two codes
needs none; and as codes are small integers, cosines are computed from exact integer dot products, equal on every
machine. A code takes a quarter of the bytes of fp16.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.core.errors import DescriptorShapeError

LOCAL_CODES = "int4-rms2.5-v1"
"""Name of this quantisation in a map's fingerprint; it changes whenever the codes do."""

MAX_CODE = 7
_OUTERMOST_LEVEL_RMS = 2.5


def encode(facets: NDArray[np.float32]) -> NDArray[np.int8]:
    """Quantise facets.

    Args:
        facets: (N, C) float32 of any norm.

    Returns:
        (N, C) int8 in [-7, 7]; a row of zeros stays zero.
    """
    codes: NDArray[np.int8] = encode_tensor(torch.from_numpy(np.ascontiguousarray(facets, np.float32))).numpy()
    return codes


def encode_tensor(facets: Tensor) -> Tensor:
    """`encode` on the device of the facets: (..., C) float32 to (..., C) int8."""
    rms = facets.square().mean(dim=-1, keepdim=True).sqrt()
    scaled = facets * (MAX_CODE / _OUTERMOST_LEVEL_RMS / rms.clamp(min=1e-12))
    return scaled.round().clamp(-MAX_CODE, MAX_CODE).to(torch.int8)


def decode(codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """The descriptors that codes stand for.

    Args:
        codes: (N, C) int8.

    Returns:
        (N, C) float32, L2-normalised; a row of zeros stays zero.
    """
    values = codes.astype(np.float32)
    return values * inverse_norms(codes)[:, None]


def inverse_norms(codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """1 / L2 norm of each row of codes, 0 for a row of zeros: (N, C) int8 to (N,) float32."""
    # Sums of small integers are exact in float32, whose products are vectorised.
    values = codes.astype(np.float32)
    squares = np.einsum("nc,nc->n", values, values).astype(np.float64)
    return np.where(squares > 0, 1.0 / np.sqrt(np.maximum(squares, 1.0)), 0.0).astype(np.float32)


def pack(codes: NDArray[np.int8]) -> bytes:
    """Two codes a byte, the even column in the low half: (N, C) int8 with even C to N * C / 2 bytes.

    Raises:
        DescriptorShapeError: C is odd.
    """
    if codes.shape[1] % 2:
        raise DescriptorShapeError(f"local descriptors of odd length {codes.shape[1]} cannot be packed in pairs")
    halves = (codes + 8).astype(np.uint8)
    return (halves[:, ::2] | (halves[:, 1::2] << 4)).tobytes()


def unpack(data: bytes | NDArray[np.uint8], width: int) -> NDArray[np.int8]:
    """Inverse of `pack`.

    Args:
        data: packed codes.
        width: C.

    Returns:
        (N, C) int8.

    Raises:
        DescriptorShapeError: the bytes are no whole number of rows.
    """
    packed = packed_rows(data, width)
    # Two codes at once, each in a byte of its own: low byte and even column first. Whole arrays without gaps are fast.
    pairs = packed.astype("<u2")
    pairs |= pairs << 4
    pairs &= 0x0F0F
    codes = pairs.view(np.int8)
    codes -= 8
    return codes.reshape(-1, width)


def packed_rows(data: bytes | NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Packed codes keypoint by keypoint: (N, C / 2) uint8, `width` is C.

    Raises:
        DescriptorShapeError: the bytes are no whole number of rows.
    """
    packed = np.frombuffer(data, np.uint8)
    if width <= 0 or width % 2 or packed.size % (width // 2):
        raise DescriptorShapeError(f"{packed.size} bytes are no whole number of packed codes of length {width}")
    return packed.reshape(-1, width // 2)
