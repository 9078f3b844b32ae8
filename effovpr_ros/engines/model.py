"""What engines run: a network, and what is read of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from effovpr_ros.engines.agreement import DenseFeatures
from effovpr_ros.engines.graph import RequestedOutputs
from effovpr_ros.features.backbone import Backbone, BackboneOutput


class LoadableBackbone(Protocol):
    """A network that is read once something needs it."""

    def __call__(self) -> Backbone:
        """The network."""

    def release(self) -> None:
        """Keep no weights beyond those that others use."""


@dataclass(frozen=True)
class Model:
    """A network and what it is known by; fields as in `ModelFingerprint`.

    Attributes:
        load: gives the network on its device; only where it is needed, since that may read its weights.
        device: of it.
        dtype: of its weights there.
    """

    load: LoadableBackbone
    device: torch.device
    dtype: torch.dtype
    architecture: str
    weights_sha256: str
    tail_sha256: str
    image_size: int


@dataclass(frozen=True)
class FeatureHead:
    """What is computed from a forward pass of a network.

    Attributes:
        requested: outputs of a forward pass.
        describe: its descriptors.
        fingerprint: equal for two heads whose descriptors may be compared.
    """

    requested: RequestedOutputs
    describe: Callable[[BackboneOutput], DenseFeatures]
    fingerprint: str
