"""What another hour, season, camera or stance does to a picture, drawn anew for every sample from its own seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.settings import check_limits, ranged

_Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class AugmentationConfig:
    """How much images are changed; 0 leaves a kind of change out."""

    light: float = ranged(
        0.6, 0.0, 1.0, "Augmentation: strength of exposure, contrast, gamma, colour and uneven light."
    )
    night: float = ranged(0.15, 0.0, 1.0, "Augmentation: share of samples turned to a night-like view.")
    grey: float = ranged(0.1, 0.0, 1.0, "Augmentation: share of samples without colour.")
    blur: float = ranged(0.3, 0.0, 1.0, "Augmentation: share of samples blurred, noisy or compressed, each.")
    crop: float = ranged(0.4, 0.0, 1.0, "Augmentation: largest share of the image's side that a random crop cuts off.")
    warp: float = ranged(0.5, 0.0, 1.0, "Augmentation: strength of perspective, rotation and shift.")
    erase: float = ranged(0.3, 0.0, 1.0, "Augmentation: share of samples of which a part is covered.")

    def __post_init__(self) -> None:
        """Refuse values outside [0, 1]."""
        check_limits(self)


def augment(image: RgbImage, config: AugmentationConfig, rng: np.random.Generator, side: int) -> RgbImage:
    """One changed view of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        config: how much.
        rng: of the sample; the same one gives the same view.
        side: of the result in pixels; the image is squeezed to a square, as the network's input is.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    shrinks = max(height, width) > 2 * side
    if shrinks:
        # Averages over the area, so that the warp below, which samples points, does not alias.
        width, height = min(width, 2 * side), min(height, 2 * side)
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    view = other_view(width, height, config, rng, side)
    moved = cv2.warpPerspective(image, view, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    pixels = moved.astype(np.float32) / np.float32(255.0)
    if rng.random() < config.erase:
        pixels = _occlude(pixels, rng)
    if config.light:
        pixels = _other_light(pixels, config.light, rng)
    if rng.random() < config.night:
        pixels = _night(pixels, rng)
    if rng.random() < config.grey:
        pixels = np.repeat(pixels @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
    pixels = _other_camera(np.clip(pixels, 0.0, 1.0), config.blur, rng)
    changed = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    if rng.random() < config.blur:
        quality = int(rng.integers(25, 90))
        coded = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        changed = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(changed, np.uint8)


def other_view(
    width: int, height: int, config: AugmentationConfig, rng: np.random.Generator, side: int
) -> NDArray[np.float64]:
    """(3, 3) homography from a random quadrilateral of the image to a square of `side` pixels."""
    area = 1.0 - config.crop * rng.uniform(0.0, 1.0)
    stretch = np.exp(config.crop * rng.uniform(-0.25, 0.25))
    across, down = min(1.0, area * stretch), min(1.0, area / stretch)
    left, top = rng.uniform(0.0, 1.0 - across), rng.uniform(0.0, 1.0 - down)
    # Robots mostly pass a place to the left or right of where they were, so images shift sideways most.
    left += config.warp * rng.uniform(-0.15, 0.15)
    corners = np.array([[left, top], [left + across, top], [left + across, top + down], [left, top + down]])
    angle = config.warp * rng.uniform(-0.12, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = corners.mean(axis=0)
    corners = (corners - middle) @ turn.T + middle + config.warp * rng.uniform(-0.06, 0.06, (4, 2))
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * np.float32(side)
    found = corners.astype(np.float32) * np.array([width, height], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(found, square), np.float64)


def _occlude(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """One to three boxes of one colour with grain, as people, cars and doors stand in the way."""
    pixels = pixels.copy()
    side = len(pixels)
    for _ in range(int(rng.integers(1, 4))):
        height, width = (rng.uniform((0.15, 0.08), (0.6, 0.3)) * side).astype(int)
        top, left = int(rng.integers(0, side - height + 1)), int(rng.integers(0, side - width + 1))
        grain = rng.normal(0.0, rng.uniform(0.0, 0.15), (height, width, 1))
        pixels[top : top + height, left : left + width] = (rng.random(3) + grain).astype(np.float32)
    return np.asarray(np.clip(pixels, 0.0, 1.0), np.float32)


def _other_light(pixels: _Pixels, strength: float, rng: np.random.Generator) -> _Pixels:
    """Gamma, hue, saturation, uneven light with shadows, colour cast, contrast and brightness."""
    pixels = pixels ** np.float32(2.0 ** (strength * rng.uniform(-1.2, 1.2)))
    hsv = cv2.cvtColor(np.clip(pixels, 0.0, 1.0), cv2.COLOR_RGB2HSV)
    hsv[:, :, 0] = (hsv[:, :, 0] + np.float32(strength * rng.uniform(-25.0, 25.0))) % 360.0
    hsv[:, :, 1] = np.clip(hsv[:, :, 1] * np.float32(1.0 + strength * rng.uniform(-0.8, 0.8)), 0.0, 1.0)
    pixels = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)
    side = len(pixels)
    patches = int(rng.integers(2, 6))
    exponent = (strength * rng.uniform(-1.6, 1.0, (patches, patches))).astype(np.float32)
    uneven = 2.0 ** cv2.resize(exponent, (side, side), interpolation=cv2.INTER_CUBIC)
    pixels = pixels * np.asarray(uneven, np.float32)[:, :, None]
    if rng.random() < 0.3 * strength:
        pixels = pixels * _shadow(side, rng)[:, :, None]
    pixels = pixels * (1.0 + strength * rng.uniform(-0.25, 0.25, 3)).astype(np.float32)
    mean = pixels.mean()
    pixels = mean + (pixels - mean) * np.float32(1.0 + strength * rng.uniform(-0.5, 0.5))
    return np.asarray(np.clip(pixels + np.float32(strength * rng.uniform(-0.2, 0.2)), 0.0, 1.0), np.float32)


def _shadow(side: int, rng: np.random.Generator) -> _Pixels:
    """(S, S) factors: a quadrilateral in the shade."""
    factors = np.ones((side, side), np.float32)
    corners = cv2.convexHull((rng.uniform(-0.2, 1.2, (4, 2)) * side).astype(np.int32))
    cv2.fillConvexPoly(factors, corners, float(rng.uniform(0.25, 0.7)))
    return np.asarray(cv2.GaussianBlur(factors, (0, 0), side * rng.uniform(0.002, 0.02)), np.float32)


def _night(pixels: _Pixels, rng: np.random.Generator) -> _Pixels:
    """Dark, steep in gamma, with lamps of a warm colour and the noise of a high gain."""
    side = len(pixels)
    dark = pixels ** np.float32(rng.uniform(1.3, 2.2)) * np.float32(rng.uniform(0.15, 0.5))
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    for _ in range(int(rng.integers(0, 4))):
        row, column = rng.uniform(0.0, 1.0, 2)
        distance = (rows - row) ** 2 + (columns - column) ** 2
        glow = np.exp(-distance / rng.uniform(0.005, 0.08)) * rng.uniform(0.2, 0.9)
        dark = dark + (pixels + 0.2) * glow.astype(np.float32)[:, :, None] * np.array([1.0, 0.85, 0.6], np.float32)
    grain = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0.01, 0.06))
    return np.asarray(np.clip(dark + grain, 0.0, 1.0), np.float32)


def _other_camera(pixels: _Pixels, share: float, rng: np.random.Generator) -> _Pixels:
    """Out of focus or in motion, and grain."""
    side = len(pixels)
    if rng.random() < share:
        if rng.random() < 0.5:
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), side / 224.0 * rng.uniform(0.3, 1.8)), np.float32)
        else:
            length = max(3, round(side / 224.0 * rng.uniform(3.0, 9.0)))
            pixels = np.asarray(cv2.blur(pixels, (length, 1)), np.float32)
    if rng.random() < share:
        grain = rng.standard_normal(pixels.shape, np.float32)
        pixels = pixels + grain * np.float32(rng.uniform(0.005, 0.05))
    return np.asarray(pixels, np.float32)
