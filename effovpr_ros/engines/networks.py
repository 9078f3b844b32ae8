"""Ways to run a network: image by image for sessions that take one, in bf16 for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from effovpr_ros.engines.graph import FlatNetwork, RequestedOutputs
from effovpr_ros.features.backbone import BackboneOutput

Session = Callable[[Tensor], Sequence[Tensor]]
"""(1, 3, S, S) normalised pixels to the outputs that `RequestedOutputs.names` lists."""
Network = Callable[[Tensor], BackboneOutput]
"""(B, 3, S, S) normalised pixels to a forward pass."""


def in_bf16(network: FlatNetwork, requested: RequestedOutputs) -> Network:
    """The network with its products in bf16 and its norms in fp32, as PyTorch's autocast has it."""

    def run(pixels: Tensor) -> BackboneOutput:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(pixels)
        return requested.gather([output.float() for output in outputs])

    return run


def one_by_one(session: Session, requested: RequestedOutputs) -> Network:
    """A session of single images as a network of batches."""

    def run(pixels: Tensor) -> BackboneOutput:
        if len(pixels) == 1:
            return requested.gather(session(pixels))
        outputs = [session(pixels[number : number + 1]) for number in range(len(pixels))]
        return requested.gather([torch.cat(parts) for parts in zip(*outputs, strict=True)])

    return run
