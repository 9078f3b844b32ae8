"""Imitated changes of appearance: what another hour, season or stance does to a picture of the same place."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.images import RgbImage


def change_appearance(image: RgbImage, strength: float, rng: np.random.Generator) -> RgbImage:
    """The place seen at another time from another stance.

    In this order: another crop and perspective, exposure and gamma, uneven light, tint and saturation, blur, noise.

    Args:
        image: (H, W, 3) uint8 RGB.
        strength: 0 changes nothing, 1 much: a crop of 70 % of the side, gamma 1/2 to 2, light from a third to twice.
        rng: of the change.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    moved = cv2.warpPerspective(
        image, _other_view(width, height, strength, rng), (width, height), borderMode=cv2.BORDER_REFLECT
    )
    pixels = moved.astype(np.float32) / 255.0
    pixels = pixels ** np.float32(2.0 ** (strength * rng.uniform(-1.0, 1.0)))
    pixels *= _uneven_light(width, height, strength, rng)[:, :, None]
    pixels *= np.float32(1.0 + strength * rng.uniform(-0.2, 0.2, 3))
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + (pixels - grey) * np.float32(1.0 + strength * rng.uniform(-0.8, 0.5))
    sigma_px = strength * rng.uniform(0.0, 1.5) * max(height, width) / 320.0
    if sigma_px > 0.1:
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma_px)
    pixels = pixels + np.float32(strength * rng.uniform(0.0, 0.04)) * rng.standard_normal(pixels.shape, np.float32)
    return np.asarray(np.rint(np.clip(pixels, 0.0, 1.0) * 255.0), dtype=np.uint8)


def _other_view(width: int, height: int, strength: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Homography from a random quadrilateral of the image to its whole."""
    side = 1.0 - strength * rng.uniform(0.0, 0.3)
    left, top = rng.uniform(0.0, 1.0 - side, 2)
    corners = np.array([[left, top], [left + side, top], [left + side, top + side], [left, top + side]])
    corners += strength * rng.uniform(-0.04, 0.04, (4, 2))
    size = np.array([width, height], np.float32)
    whole = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(corners.astype(np.float32) * size, whole * size), np.float64)


def _uneven_light(width: int, height: int, strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(H, W) smooth factors around 1."""
    exponent = strength * rng.uniform(-1.6, 1.0, (4, 4)).astype(np.float32)
    return np.asarray(2.0 ** cv2.resize(exponent, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
