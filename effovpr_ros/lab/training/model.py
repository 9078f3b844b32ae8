"""The part of the network that learns, and the frozen part before it whose output can be kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.backbone import Backbone
from effovpr_ros.features.regional import RegionalPooling, pooled_length
from effovpr_ros.features.tail_file import Tail, TailInfo

FULL = "full"
"""Name of the head without a layer: the pooled vector itself."""


class TrainableTail(nn.Module):
    """The last blocks that are run, the final norm and a linear layer for each length of descriptor.

    Attributes:
        dims: lengths of the descriptors, in the order of the heads.
        length: L, of the pooled vector.
        cls_width: so many first values of it are [CLS], beside others.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        train_blocks: int,
        pooling: str,
        local_block: int,
        facet: str,
        centered: bool,
        dims: Sequence[str],
        generator: torch.Generator,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Mark what learns.

        Args:
            backbone: frozen, on its device; it is changed in place as the tail learns.
            train_blocks: so many of the last blocks that are run learn, with the final norm; 0: only the heads.
            pooling: cls, [CLS] of the last block; or regional, which reads `local_block` and does not run beyond it.
            local_block: that `regional` reads; negative counts from the last.
            facet: that `regional` pools.
            centered: whether the image's mean facet is subtracted first.
            dims: whole numbers, or `full` for the pooled vector itself; the first is the default of the tail.
            generator: of the heads' first values.
            gradient_checkpointing: compute the blocks again in the backward pass instead of keeping them in memory.

        Raises:
            ConfigError: an impossible number of blocks or length, or nothing that could learn.
        """
        super().__init__()
        self.backbone = backbone
        self._pooling, self._facet, self._centered = pooling, facet, centered
        self._checkpointing = gradient_checkpointing
        self._end = backbone.layout.block_number(local_block) if pooling == "regional" else backbone.layout.depth
        run = self._end + 1 if pooling == "regional" else self._end
        if not 0 <= train_blocks <= run:
            raise ConfigError(f"--train-blocks {train_blocks}: {pooling} runs {run} blocks; use 0 to {run}")
        self._train_blocks, self._first = train_blocks, run - train_blocks
        self._pool = RegionalPooling(backbone.layout.grid_hw, next(backbone.parameters()).device)
        self.length = backbone.layout.width if pooling == "cls" else pooled_length(backbone.layout.width)
        self.cls_width = backbone.layout.width if pooling == "regional" else 0
        self.dims = tuple(self._dimension(text) for text in dims)
        if not self.dims or len(set(self.dims)) < len(self.dims):
            raise ConfigError(f"--dims {','.join(dims)}: name each length once, as 128,{FULL}")
        if not train_blocks and self.dims == (self.length,):
            raise ConfigError("--train-blocks 0 leaves nothing to learn without a head; add a length to --dims")
        self.heads = nn.ModuleDict()
        for dim in self.dims:
            if dim != self.length:
                layer = nn.Linear(self.length, dim)
                nn.init.orthogonal_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)
                self.heads[str(dim)] = layer
        for parameter in self.block_parameters().values():
            parameter.requires_grad_(True)

    @property
    def frozen(self) -> str:
        """What `prefix` depends on beside the base."""
        if self._train_blocks:
            return f"tokens before block {self._first}"
        return f"{self._pooling} of block {self._end}, {self._facet}, {'centred' if self._centered else 'plain'}"

    def block_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the network that learn, under timm's names; only those that the descriptor depends on."""
        return dict(self._learning()) if self._train_blocks else {}

    def prefix(self, pixels: Tensor) -> Tensor:
        """The frozen part.

        Args:
            pixels: (B, 3, S, S), normalised.

        Returns:
            (B, T, C) tokens that enter the first block that learns; (B, L) the pooled vector where none does.
        """
        with torch.no_grad():
            tokens = self.backbone.embed(pixels)
            for block in self.backbone.vit.blocks[: min(self._first, self._end)]:
                tokens = block(tokens)
            return tokens if self._train_blocks else self._pooled(tokens)

    def forward(self, prefix: Tensor) -> tuple[Tensor, ...]:
        """The part that learns.

        Args:
            prefix: from `prefix`.

        Returns:
            (B, D) float32, L2-normalised, for each of `dims`.
        """
        pooled = self.pool(prefix)
        # The last step is cheap, and descriptors are compared to the last digits.
        with torch.autocast(pooled.device.type, enabled=False):
            return tuple(
                functional.normalize(self.heads[str(dim)](pooled), dim=-1) if str(dim) in self.heads else pooled
                for dim in self.dims
            )

    @torch.no_grad()
    def describe(self, prefix: Tensor) -> tuple[Tensor, ...]:
        """As `forward`, on the CPU and without gradients."""
        return tuple(descriptors.cpu() for descriptors in self(prefix))

    def pool(self, prefix: Tensor) -> Tensor:
        """(B, L) float32, L2-normalised, from what `prefix` gives."""
        if not self._train_blocks:
            return functional.normalize(prefix.float(), dim=-1)
        tokens = prefix
        for block in self.backbone.vit.blocks[self._first : self._end]:
            tokens = checkpoint(block, tokens, use_reentrant=False) if self._keeps_little() else block(tokens)
        return functional.normalize(self._pooled(tokens), dim=-1)

    def start_heads(self, mean: NDArray[np.float32], components: NDArray[np.float32]) -> None:
        """Begin each head as a linear projection.

        Args:
            mean: (L,) of pooled vectors.
            components: (D, L), the most important first; as many as the longest head has.
        """
        with torch.no_grad():
            for dim, layer in self._layers().items():
                first = torch.from_numpy(components[:dim])
                layer.weight.copy_(first)
                layer.bias.copy_(-first @ torch.from_numpy(mean))

    def export(self, info: TailInfo) -> Tail:
        """What was learned, as a file holds it."""
        weights = {
            name: parameter.detach().float().cpu().clone() for name, parameter in self.block_parameters().items()
        }
        heads = {
            dim: (layer.weight.detach().float().cpu().clone(), layer.bias.detach().float().cpu().clone())
            for dim, layer in self._layers().items()
        }
        return Tail(info, weights, heads, "the trained tail")

    def _layers(self) -> dict[int, nn.Linear]:
        return {int(name): layer for name, layer in self.heads.items() if isinstance(layer, nn.Linear)}

    def _dimension(self, text: str) -> int:
        if text == FULL:
            return self.length
        if not text.isdigit() or not 1 <= int(text) <= self.length:
            raise ConfigError(f"--dims {text!r} is neither {FULL} nor a number from 1 to {self.length}")
        return int(text)

    def _keeps_little(self) -> bool:
        return self._checkpointing and torch.is_grad_enabled()

    def _learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        whole = tuple(f"blocks.{number}." for number in range(self._first, self._end))
        read = f"blocks.{self._end}."
        # Of the block that is read, only what leads to its query, key and value.
        partly = tuple(read + name for name in ("norm1.", "attn.qkv.", "attn.q_norm.", "attn.k_norm."))
        for name, parameter in self.backbone.vit.named_parameters():
            if name.startswith(("norm.", *whole, *partly)):
                yield name, parameter

    def _pooled(self, tokens: Tensor) -> Tensor:
        """(B, L) from the tokens that leave the blocks before the end."""
        if self._pooling == "cls":
            pooled: Tensor = self.backbone.vit.norm(tokens[:, 0]).float()
            return pooled
        reading = self.backbone.read_block(self._end, tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            facets = self.backbone.layout.read_facet(reading, self._facet, centered=self._centered)
            return self._pool(reading.cls, facets)
