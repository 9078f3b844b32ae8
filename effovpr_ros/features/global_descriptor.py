"""What the global descriptor is read from: the frozen network, or a trained tail."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from effovpr_ros.core.errors import ConfigError, WeightsError
from effovpr_ros.features.backbone import BackboneOutput, Layout
from effovpr_ros.features.regional import REGIONAL_DIM, RegionalPooling, pooled_length, regional_descriptor
from effovpr_ros.features.tail_file import Tail


class GlobalDescriptor:
    """Of the network as it is.

    Attributes:
        kind: as in `ExtractorConfig`.
        dimension: D.
        blocks: numbers of the blocks that it reads; none where it reads the last [CLS].
    """

    def __init__(self, layout: Layout, device: torch.device, kind: str, block: int, facet: str, centered: bool) -> None:
        """Prepare; see `choose_descriptor`."""
        self.kind = kind
        self._layout, self._facet, self._centered = layout, facet, centered
        self._regional = None
        self.blocks: frozenset[int] = frozenset()
        self.dimension = layout.width
        if kind == "regional":
            self._regional = regional_descriptor(layout.grid_hw, layout.width, device)
            self.blocks, self.dimension = frozenset({block}), REGIONAL_DIM

    def __call__(self, output: BackboneOutput) -> Tensor:
        """(B, D) float32, L2-normalised."""
        if self._regional is None:
            return functional.normalize(cast(Tensor, output.cls).float(), dim=-1)
        reading = output.blocks[next(iter(self.blocks))]
        facets = self._layout.read_facet(reading, self._facet, centered=self._centered)
        return self._regional(reading.cls, facets)


class TailDescriptor:
    """Of one head of a trained tail; attributes as `GlobalDescriptor`."""

    def __init__(self, layout: Layout, device: torch.device, tail: Tail, dim: int) -> None:
        """Prepare.

        Raises:
            ConfigError: the tail has no head of that length.
        """
        self._layout, self._info = layout, tail.info
        self.kind = tail.info.pooling
        self.dimension = tail.dimension(dim)
        self.blocks = frozenset({tail.info.block}) if self.kind == "regional" else frozenset()
        self._pool = RegionalPooling(layout.grid_hw, device)
        # A head is some megabytes, which do not travel to a GPU with every image. None is the pooled vector itself.
        head = tail.heads.get(self.dimension)
        length = pooled_length(layout.width) if self.blocks else layout.width
        if (head[0].shape[1] if head else self.dimension) != length:
            raise WeightsError(
                f"head {self.dimension} of tail {tail.source} does not fit: {self.kind} pooling gives {length} numbers"
            )
        if self.blocks:
            layout.block_number(tail.info.block)
        self._head = (head[0].to(device), head[1].to(device)) if head else None

    def __call__(self, output: BackboneOutput) -> Tensor:
        """(B, D) float32, L2-normalised."""
        pooled = functional.normalize(self._pooled(output).float(), dim=-1)
        return functional.normalize(functional.linear(pooled, *self._head), dim=-1) if self._head else pooled

    def _pooled(self, output: BackboneOutput) -> Tensor:
        if not self.blocks:
            return cast(Tensor, output.cls)
        reading = output.blocks[self._info.block]
        facets = self._layout.read_facet(reading, self._info.facet, centered=self._info.centered)
        return self._pool(reading.cls, facets)


def choose_descriptor(
    layout: Layout,
    device: torch.device,
    tail: Tail | None,
    *,
    kind: str,
    dim: int,
    block: int,
    facet: str,
    centered: bool,
) -> GlobalDescriptor | TailDescriptor:
    """The tail's where there is one, else what the settings say.

    Args:
        layout: of the network.
        device: that it runs on.
        tail: trained on top of it, if any.
        kind: cls or regional.
        dim: of the tail's head; 0 for its default.
        block: that `regional` reads, from 0.
        facet: that `regional` reads.
        centered: whether the image's mean facet is subtracted first.

    Raises:
        ConfigError: no such head, or a length is wanted of a network without a tail.
    """
    if tail is not None:
        return TailDescriptor(layout, device, tail, dim)
    descriptor = GlobalDescriptor(layout, device, kind, block, facet, centered)
    if dim not in (0, descriptor.dimension):
        raise ConfigError(
            f"global_dim {dim}: without a trained tail the {kind} descriptor has {descriptor.dimension} dimensions; "
            "name a tail with --weights, or build the map with --pca"
        )
    return descriptor
