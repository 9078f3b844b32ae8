"""The large-margin cosine loss by which places are told apart (CosFace, Wang et al., CVPR 2018, equation 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from effovpr_ros.core.errors import ConfigError


class CosFace(nn.Module):
    """A classifier of unit descriptors whose own class must win by a margin.

    Attributes:
        weight: (classes, D) prototypes, normalised when they are used.
    """

    def __init__(
        self, classes: int, dim: int, *, margin: float = 0.4, scale: float = 30.0, generator: torch.Generator
    ) -> None:
        """Draw the prototypes.

        Args:
            classes: at least 2.
            dim: D.
            margin: that is taken from the cosine of the own class.
            scale: of the cosines before the softmax.
            generator: of the draw.

        Raises:
            ConfigError: fewer than two classes, or an impossible margin or scale.
        """
        super().__init__()
        if classes < 2 or not 0.0 <= margin < 1.0 or not scale > 0.0:
            raise ConfigError(
                f"CosFace with {classes} classes, margin {margin} and scale {scale}; it takes at least 2 classes, "
                "a margin in [0, 1) and a positive scale"
            )
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, dim), generator=generator))

    def logits(self, descriptors: Tensor, labels: Tensor) -> Tensor:
        """Scaled cosines, the margin taken from that of the own class.

        Args:
            descriptors: (B, D), L2-normalised.
            labels: (B,) int64.

        Returns:
            (B, classes) float32.
        """
        cosines = functional.linear(descriptors.float(), functional.normalize(self.weight, dim=-1))
        own = functional.one_hot(labels, cosines.shape[1]).to(cosines.dtype)
        return self.scale * (cosines - self.margin * own)

    def forward(self, descriptors: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch; arguments as `logits`."""
        return functional.cross_entropy(self.logits(descriptors, labels), labels)
