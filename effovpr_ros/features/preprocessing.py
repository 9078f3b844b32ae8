"""Images in: decoding to RGB, and the one preprocessing that map and query share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from effovpr_ros.errors import ImageError

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

    The resize is Pillow's bilinear one, which averages over the whole area when it shrinks: the same that timm and
    torchvision evaluate with, free of aliasing, and equal on every machine.

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
    batch = np.empty((len(images), image_size, image_size, 3), np.float32)
    for row, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ImageError(f"image {row} is {image.dtype} {image.shape}; wanted uint8 (H, W, 3) that is not empty")
        resized = Image.fromarray(image).resize((image_size, image_size), Image.Resampling.BILINEAR)
        batch[row] = np.asarray(resized)
    batch -= mean
    batch *= scale
    return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()
