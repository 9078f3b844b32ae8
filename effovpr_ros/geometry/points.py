"""Points of a picture that can be matched with those of another: by XFeat, or by SIFT where XFeat cannot run."""

from __future__ import annotations

import functools
import logging
import threading
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError, ImageError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.geometry import xfeat

_logger = logging.getLogger(__name__)

XFEAT, SIFT = "xfeat", "sift"
AUTO = "auto"
KINDS = (XFEAT, SIFT)
DIMENSIONS = {XFEAT: xfeat.DIMENSION, SIFT: 128}
DESCRIPTOR_SCALE = {XFEAT: 200.0, SIFT: 220.0}
"""Entries of a descriptor of length 1 times this are rounded to 8 bits. The greatest that was seen is 0.56."""
MAX_POINTS = 1024
WORKING_SIDE = xfeat.LONGEST_SIDE
"""Longest side in pixels of the pictures in which points are looked for, and in which errors of points are counted."""

_MIN_SIDE = 16
# Corners that a threshold for large images misses are what a dim or blurred picture has.
_SIFT_CONTRAST = 0.01


@dataclass(frozen=True, eq=False)
class Points:
    """Points of one picture, strongest first.

    Attributes:
        kind: what found them, one of `KINDS`; only points of one kind can be matched.
        keypoints_xy: (N, 2) float32 pixels of a picture of `image_size_wh`; (0, 0) is the centre of the upper left one.
        descriptors: (N, C) int8, L2-normalised ones times `DESCRIPTOR_SCALE` of the kind, rounded.
        image_size_wh: pixels.
    """

    kind: str
    keypoints_xy: NDArray[np.float32]
    descriptors: NDArray[np.int8]
    image_size_wh: tuple[int, int]

    def __len__(self) -> int:
        """N."""
        return len(self.keypoints_xy)

    @property
    def working_scale(self) -> float:
        """Pixels of the picture that points are looked for in, a pixel of `image_size_wh`; at most 1."""
        return min(1.0, WORKING_SIDE / max(self.image_size_wh))

    def scaled(self, image_size_wh: tuple[int, int]) -> Points:
        """The same points of the picture in another size, such as the original of a thumbnail."""
        ratio = np.array(image_size_wh, np.float32) / np.array(self.image_size_wh, np.float32)
        keypoints = np.asarray((self.keypoints_xy + np.float32(0.5)) * ratio - np.float32(0.5), np.float32)
        return replace(self, keypoints_xy=keypoints, image_size_wh=image_size_wh)

    def strongest(self, count: int) -> Points:
        """At most so many of them."""
        return replace(self, keypoints_xy=self.keypoints_xy[:count], descriptors=self.descriptors[:count])


def no_points(kind: str, image_size_wh: tuple[int, int]) -> Points:
    """What a picture without texture has."""
    return Points(kind, np.empty((0, 2), np.float32), np.empty((0, DIMENSIONS[kind]), np.int8), image_size_wh)


def quantised(descriptors: NDArray[np.float32], kind: str) -> NDArray[np.int8]:
    """(N, C) float32, L2-normalised, as `Points` keeps them."""
    codes: NDArray[np.int8] = np.clip(np.rint(descriptors * DESCRIPTOR_SCALE[kind]), -127, 127).astype(np.int8)
    return codes


class PointExtractor:
    """Finds points. The network is loaded at the first picture, or by `load`; calls from several threads take turns.

    Attributes:
        kind: of its points.
    """

    def __init__(self, device: str = "cpu", kind: str = AUTO, max_points: int = MAX_POINTS) -> None:
        """Choose what finds points.

        Args:
            device: of the network.
            kind: xfeat; sift; or auto: XFeat where kornia and its weights are there, else SIFT, which the log says.
            max_points: of a picture.

        Raises:
            ConfigError: another kind, or XFeat was asked for and cannot run.
        """
        if kind not in (*KINDS, AUTO):
            raise ConfigError(f"kind of points {kind!r} is unknown; use one of {', '.join((*KINDS, AUTO))}")
        missing = xfeat.what_is_missing() if kind != SIFT else ""
        if kind == XFEAT and missing:
            raise ConfigError(f"points by XFeat: {missing}")
        self.kind = SIFT if kind == SIFT or missing else XFEAT
        if kind == AUTO and missing:
            _say_once(f"points are found by SIFT, which does much worse across seasons: {missing}")
        self._device = device
        self._max_points = max_points
        self._lock = threading.Lock()

    def load(self) -> None:
        """Load the network now rather than with the first picture, which would wait for it.

        Raises:
            WeightsError: the weights are not those that are known.
        """
        if self.kind == XFEAT:
            with self._lock:
                self._network  # noqa: B018

    def extract(self, image: RgbImage) -> Points:
        """Points of a picture; none in one without texture or smaller than 16 pixels.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            ImageError: an image of another type or shape.
            WeightsError: the weights are not those that are known.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ImageError(f"points need an image of shape (H, W, 3) and type uint8, not {image.shape} {image.dtype}")
        size_wh = (image.shape[1], image.shape[0])
        if min(size_wh) < _MIN_SIDE:
            return no_points(self.kind, size_wh)
        if self.kind == SIFT:
            return _sift(image, self._max_points)
        with self._lock:
            found = self._network.detect(image, self._max_points)
        return Points(XFEAT, found.keypoints_xy, quantised(found.descriptors, XFEAT), size_wh)

    @functools.cached_property
    def _network(self) -> xfeat.XFeatNetwork:
        network = xfeat.XFeatNetwork(self._device)
        _logger.info("points by XFeat, run by %s", network.engine)
        return network


def _sift(image: RgbImage, max_points: int) -> Points:
    """RootSIFT (Arandjelovic and Zisserman, CVPR 2012), whose cosine is Hellinger's kernel of SIFT's descriptors."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, WORKING_SIDE / max(height, width))
    if scale < 1.0:
        size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA)
    keypoints, descriptors = cv2.SIFT.create(max_points, contrastThreshold=_SIFT_CONTRAST).detectAndCompute(grey, None)
    if not keypoints:
        return no_points(SIFT, (width, height))
    order = sorted(range(len(keypoints)), key=lambda number: -keypoints[number].response)[:max_points]
    xy = np.array([keypoints[number].pt for number in order], np.float32)
    roots = np.sqrt(np.maximum(descriptors[order], 0.0))
    roots /= np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-12)
    found = Points(SIFT, xy, quantised(roots.astype(np.float32), SIFT), (grey.shape[1], grey.shape[0]))
    return found.scaled((width, height))


@functools.cache
def _say_once(text: str) -> None:
    _logger.warning("%s", text)
