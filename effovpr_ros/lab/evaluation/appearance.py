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


def imitate_season(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    """The place after snow or in another season, from another stance.

    Paler, tinted, bright patches of two sizes that thicken downwards, other gamma and uneven light, blur.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: of the change.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    pixels = _moved(image, rng)
    height, width = pixels.shape[:2]
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = (grey + (pixels - grey) * np.float32(rng.uniform(0.1, 0.6))) * np.float32(1.0 + rng.uniform(-0.2, 0.2, 3))
    coarse, fine = (
        cv2.resize(rng.random(shape).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for shape in ((12, 16), (60, 80))
    )
    down = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None] ** 1.5 * np.float32(rng.uniform(0.2, 0.9))
    snow = np.clip((0.7 * coarse + 0.5 * fine + down - 0.75) * 4.0, 0.0, 1.0) * np.float32(rng.uniform(0.4, 0.95))
    pixels = pixels * (1.0 - snow[:, :, None]) + snow[:, :, None] * np.float32(rng.uniform(0.75, 0.98))
    pixels = np.clip(pixels, 0.0, 1.0) ** np.float32(2.0 ** rng.uniform(-0.8, 0.8))
    pixels = pixels * _uneven_light(width, height, 0.7, rng)[:, :, None]
    sigma_px = rng.uniform(0.0, 1.2) * max(height, width) / 640.0
    return _as_bytes(np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_px) if sigma_px > 0.1 else pixels, np.float32))


def imitate_night(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    """The place by night under a few warm lamps, from another stance: dark, contrasty, noisy, blurred.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: of the change.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    pixels = _moved(image, rng) ** np.float32(rng.uniform(1.5, 3.0))
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    light = np.full((height, width), 0.15, np.float32)
    for _ in range(int(rng.integers(2, 6))):
        x, y, radius = rng.uniform(0.0, width), rng.uniform(0.0, 0.7 * height), rng.uniform(0.08, 0.4) * width
        lamp = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2.0 * radius**2))
        light += lamp.astype(np.float32) * np.float32(rng.uniform(0.5, 2.0))
    pixels = pixels * light[:, :, None] * np.array([1.1, 1.0, 0.75], np.float32)
    pixels *= np.float32(0.3 / max(float(pixels.mean()), 0.02) * rng.uniform(0.4, 1.0))
    pixels += np.float32(rng.uniform(0.02, 0.08)) * rng.standard_normal(pixels.shape, np.float32)
    blurred = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.5, 1.3) * max(height, width) / 640.0 + 0.1)
    return _as_bytes(np.asarray(blurred, np.float32))


def _moved(image: RgbImage, rng: np.random.Generator) -> NDArray[np.float32]:
    """(H, W, 3) in [0, 1], from another stance."""
    height, width = image.shape[:2]
    view = _other_view(width, height, 0.6, rng)
    moved = cv2.warpPerspective(image, view, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.float32) / np.float32(255.0)


def _as_bytes(pixels: NDArray[np.float32]) -> RgbImage:
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
