"""What makes a recogniser's features: a model of this process, or one elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from effovpr_ros.core.images import RgbImage
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features


class Extracts(Protocol):
    """What a recogniser needs of a `FeatureExtractor`."""

    fingerprint: ModelFingerprint
    device: torch.device

    def extract(self, images: Sequence[RgbImage]) -> list[Features]:
        """Features of images."""
