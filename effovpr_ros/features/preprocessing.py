"""Images in: decoding to RGB, and the one preprocessing that map and query share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from effovpr_ros.core.errors import ImageError

RgbImage = NDArray[np.uint8]
"""(H, W, 3) uint8, red first."""

PREPROCESSING = "square-bilinear-imagenet-v1"
"""Name of this preprocessing in a map's fingerprint; it changes whenever the pixels do."""

IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)


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


def preprocess(images: Sequence[RgbImage], image_size: int) -> Tensor:
    """Resize to a square and normalise with ImageNet statistics.

    The resize is bilinear and averages over the whole area when it shrinks, as Pillow's, with which timm and
    torchvision evaluate: free of aliasing. PyTorch computes it on bytes several times as fast as Pillow, and two
    values in a thousand differ, by one grey level.

    Args:
        images: (H, W, 3) uint8 RGB, sizes may differ.
        image_size: side S in pixels, a multiple of the model's patch size.

    Returns:
        (B, 3, S, S) float32.

    Raises:
        ImageError: an image is not (H, W, 3) uint8.
    """
    mean = np.asarray(IMAGENET_MEAN_RGB, np.float32) * 255.0
    scale = 1.0 / (np.asarray(IMAGENET_STD_RGB, np.float32) * 255.0)
    batch = np.empty((len(images), 3, image_size, image_size), np.float32)
    for row, image in enumerate(images):
        resized = _resize(_pixels(row, image), image_size).numpy()
        for channel in range(3):
            np.subtract(resized[channel], mean[channel], out=batch[row, channel])
            batch[row, channel] *= scale[channel]
    return torch.from_numpy(batch)


def preprocess_on(device: torch.device, images: Sequence[RgbImage], image_size: int) -> Tensor:
    """`preprocess` on a GPU, which the camera's bytes reach through pinned memory.

    There the resize is computed in floating point, and differs by single grey levels where the one on bytes rounds
    between its two passes.

    Args:
        device: where to compute.
        images: (H, W, 3) uint8 RGB, sizes may differ.
        image_size: side S in pixels.

    Returns:
        (B, 3, S, S) float32 on the device.

    Raises:
        ImageError: an image is not (H, W, 3) uint8.
    """
    mean, std = _statistics(device)
    resized = []
    for row, image in enumerate(images):
        pixels = _pixels(row, image)
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        resized.append(_resize(pixels.to(device, non_blocking=True).float(), image_size).round_())
    return torch.stack(resized).sub_(mean).div_(std)


@functools.lru_cache(maxsize=8)
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation in grey levels, each (1, 3, 1, 1), once on a device: copies cost time."""
    values = torch.tensor([IMAGENET_MEAN_RGB, IMAGENET_STD_RGB], device=device).view(2, 1, 3, 1, 1) * 255.0
    return values[0], values[1]


def _pixels(row: int, image: RgbImage) -> Tensor:
    """(3, H, W) uint8 of an image, its memory shared where that is writable."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ImageError(f"image {row} is {image.dtype} {image.shape}; wanted uint8 (H, W, 3) that is not empty")
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)


def _resize(pixels: Tensor, side: int) -> Tensor:
    """(3, H, W) to (3, S, S) of the same type."""
    return functional.interpolate(pixels[None], (side, side), mode="bilinear", antialias=True)[0]
