"""The one preprocessing that map and query share."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage

PREPROCESSING = "square-bilinear-imagenet-v1"
"""Name of this preprocessing in a map's fingerprint; it changes whenever the pixels do."""

IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)


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
        raise ImageError(f"image {row} is {image.dtype} {image.shape}; it must be uint8 (H, W, 3) and not empty")
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)


def _resize(pixels: Tensor, side: int) -> Tensor:
    """(3, H, W) to (3, S, S) of the same type."""
    return functional.interpolate(pixels[None], (side, side), mode="bilinear", antialias=True)[0]
