"""Whether an engine's descriptors are PyTorch's, so that both may use one map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from effovpr_ros.core.errors import EngineError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.backbone import BackboneOutput
from effovpr_ros.features.preprocessing import preprocess

MIN_MEAN, MIN_WORST = 0.999, 0.99
"""Least cosine of global descriptors to PyTorch's, on average and of the worst image."""
MIN_LOCAL_MEAN = 0.99
"""Least mean cosine of local descriptors; the 4-bit codes of a map alone are 0.994 from what they stand for."""

_NUM_SCENES = 6
_SCENE_WH = (320, 240)
_SEED = 20240518


@dataclass(frozen=True)
class DenseFeatures:
    """Descriptors of B images before any quantisation.

    Attributes:
        global_descriptors: (B, D) float32, L2-normalised.
        facets: (B, P, C) float32, of every patch, not normalised.
    """

    global_descriptors: Tensor
    facets: Tensor


@dataclass(frozen=True)
class Agreement:
    """Cosines of an engine's descriptors to PyTorch's.

    Attributes:
        mean: of global descriptors, over images.
        worst: of global descriptors.
        local_mean: of local descriptors, over all patches.
        local_worst: of local descriptors.
    """

    mean: float
    worst: float
    local_mean: float
    local_worst: float

    @property
    def shares_maps(self) -> bool:
        """Whether both may use one map. NaN never does."""
        return self.mean >= MIN_MEAN and self.worst >= MIN_WORST and self.local_mean >= MIN_LOCAL_MEAN

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)

    @classmethod
    def from_record(cls, values: object) -> Agreement | None:
        """Inverse of `to_dict`; None where a record holds anything else, so that it is measured again."""
        names = [entry.name for entry in fields(cls)]
        if not isinstance(values, dict) or set(values) != set(names):
            return None
        if not all(isinstance(values[name], float) and -1.01 <= values[name] <= 1.01 for name in names):
            return None
        return cls(**values)

    def __str__(self) -> str:
        """For people."""
        return (
            f"global descriptors agree with PyTorch's to cosine {self.mean:.6f} (worst {self.worst:.6f}), "
            f"local ones to {self.local_mean:.6f}"
        )


def compare(found: DenseFeatures, expected: DenseFeatures) -> Agreement:
    """Cosines between two descriptions of the same images."""
    whole = functional.cosine_similarity(found.global_descriptors.cpu(), expected.global_descriptors.cpu(), dim=-1)
    local = functional.cosine_similarity(found.facets.cpu().float(), expected.facets.cpu().float(), dim=-1)
    return Agreement(float(whole.mean()), float(whole.min()), float(local.mean()), float(local.min()))


@torch.inference_mode()
def verify(
    network: Callable[[Tensor], BackboneOutput],
    reference: Callable[[Tensor], BackboneOutput],
    describe: Callable[[BackboneOutput], DenseFeatures],
    images: Sequence[RgbImage],
    image_size: int,
) -> Agreement:
    """Compare a network with its reference, one image at a time.

    Args:
        network: (1, 3, S, S) float32 normalised pixels on the CPU to a forward pass.
        reference: PyTorch's.
        describe: what is read in it.
        images: to compare on.
        image_size: S.
    """
    found, expected = [], []
    for image in images:
        pixels = preprocess([image], image_size)
        found.append(describe(network(pixels)))
        expected.append(describe(reference(pixels)))
    return compare(_joined(found), _joined(expected))


def require_agreement(name: str, agreement: Agreement) -> None:
    """Refuse an engine whose descriptors are others than PyTorch's.

    Raises:
        EngineError: names the cosines found and required.
    """
    if not agreement.shares_maps:
        raise EngineError(
            f"engine {name} is refused for every map: its {agreement}; required are {MIN_MEAN} (worst {MIN_WORST}) and "
            f"{MIN_LOCAL_MEAN}. Use another engine, or, for an 8-bit one, quantise with more images of the kind that "
            "the robot sees"
        )


def scenes() -> list[RgbImage]:
    """Six pictures that are the same on every machine: shaded walls and boxes, lines, and a sensor's noise."""
    return [scene(number, _SCENE_WH) for number in range(_NUM_SCENES)]


def scene(number: int, size_wh: tuple[int, int]) -> RgbImage:
    """One such picture.

    Args:
        number: another picture for each, from 0.
        size_wh: pixels.

    Returns:
        (H, W, 3) uint8.
    """
    # RandomState, since NumPy promises that its numbers never change.
    rng = np.random.RandomState(_SEED + number)
    width, height = size_wh
    corners = rng.uniform(40, 215, (2, 2, 3)).astype(np.float32)
    picture = np.asarray(cv2.resize(corners, size_wh, interpolation=cv2.INTER_LINEAR), np.float32)
    for _ in range(30):
        left, top = rng.randint(0, width), rng.randint(0, height)
        wide, high = rng.randint(8, width // 3), rng.randint(8, height // 3)
        color, lean = rng.uniform(0, 255, 3), rng.uniform(-60, 60)
        box = picture[top : top + high, left : left + wide]
        box[:] = 0.2 * box + 0.8 * (color + lean * np.linspace(-1, 1, box.shape[1])[None, :, None])
    for _ in range(15):
        start, end = (tuple(int(value) for value in rng.randint(0, height, 2)) for _ in range(2))
        cv2.line(picture, start, end, rng.uniform(0, 255, 3).tolist(), int(rng.randint(1, 4)))
    return np.clip(cv2.GaussianBlur(picture, (3, 3), 0) + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def _joined(parts: Sequence[DenseFeatures]) -> DenseFeatures:
    return DenseFeatures(
        torch.cat([part.global_descriptors for part in parts]), torch.cat([part.facets for part in parts])
    )
