"""The Vision Transformer: [CLS], and the query, key and value of chosen blocks, in one forward pass."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from effovpr_ros.core.errors import ConfigError, WeightsError
from effovpr_ros.features.names import FACETS
from effovpr_ros.features.torchvision_guard import ensure_timm_imports
from effovpr_ros.features.weights import LoadedWeights

_MOST = 2**16


class BlockReading(NamedTuple):
    """What one block holds of B images of P = rows * columns patches, T tokens and width C = heads * d.

    Attributes:
        cls: (B, C) [CLS] as it enters the block, after the network's final norm, not normalised.
        query: (B, heads, T, d).
        key: (B, heads, T, d).
        value: (B, heads, T, d).
    """

    cls: Tensor
    query: Tensor
    key: Tensor
    value: Tensor


class BackboneOutput(NamedTuple):
    """Output of one forward pass.

    Attributes:
        blocks: query, key and value of each requested block.
        cls: (B, C) [CLS] after the final norm, not normalised; None if the last blocks were not run.
    """

    blocks: dict[int, BlockReading]
    cls: Tensor | None


@dataclass(frozen=True)
class Layout:
    """What is known of a network without its weights, and what is read of its forward passes.

    Attributes:
        grid_hw: rows and columns of patches.
        patch_size: side of a patch in pixels.
        width: C, the length of a token.
        num_prefix_tokens: tokens before the patches', [CLS] first.
        other_blocks: kind of each block that cannot be read, empty for those that can.
    """

    grid_hw: tuple[int, int]
    patch_size: int
    width: int
    num_prefix_tokens: int
    other_blocks: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.other_blocks)

    def block_number(self, block: int) -> int:
        """Number of a block from 0; negative ones count from the last.

        Raises:
            ConfigError: no such block, or none that can be read.
        """
        if not -self.depth <= block < self.depth:
            raise ConfigError(f"local_block {block} does not exist; the model has blocks 0 to {self.depth - 1}")
        if self.other_blocks[block]:
            raise ConfigError(f"block {block} is a {self.other_blocks[block]}; only standard pre-norm blocks are read")
        return block % self.depth

    def facet(self, reading: BlockReading, facet: str) -> Tensor:
        """(B, P, C) a facet of every patch in raster order, heads concatenated, not normalised.

        Raises:
            ConfigError: no such facet.
        """
        if facet not in FACETS:
            raise ConfigError(f"facet {facet!r} is unknown; use one of {', '.join(FACETS)}")
        chosen: Tensor = getattr(reading, facet)[:, :, self.num_prefix_tokens :]
        return chosen.transpose(1, 2).flatten(2)

    def read_facet(self, reading: BlockReading, facet: str, *, centered: bool) -> Tensor:
        """(B, P, C) float32: a facet, see `facet`; with the mean over the image's patches subtracted if `centered`."""
        facets = self.facet(reading, facet).float()
        return facets - facets.mean(dim=1, keepdim=True) if centered else facets

    def attention_to_cls(self, reading: BlockReading) -> Tensor:
        """(B, P) float32, see `cls_attention`."""
        query = reading.query[:, :, self.num_prefix_tokens :]
        return cls_attention(query, reading.key, query.shape[-1] ** -0.5)

    @classmethod
    def from_record(cls, values: object) -> Layout | None:
        """From the fields as JSON keeps them; None where they are anything else."""
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            return None
        grid_hw, others = values["grid_hw"], values["other_blocks"]
        lists = isinstance(grid_hw, list) and len(grid_hw) == 2 and isinstance(others, list) and others
        if not lists or not all(isinstance(kind, str) for kind in others):
            return None
        sizes = (values["patch_size"], values["width"], values["num_prefix_tokens"])
        if not all(isinstance(number, int) and 0 <= number < _MOST for number in (*grid_hw, *sizes)):
            return None
        return cls((grid_hw[0], grid_hw[1]), *sizes, tuple(others))


class Backbone(nn.Module):
    """A timm Vision Transformer that also returns the query, key and value of blocks (EffoVPR, section 3.2).

    Attributes:
        layout: of it.
    """

    def __init__(self, vit: nn.Module) -> None:
        """Wrap a `timm.models.vision_transformer.VisionTransformer` without a classifier.

        Raises:
            ConfigError: another architecture.
        """
        super().__init__()
        ensure_timm_imports()
        from timm.models.vision_transformer import Block, VisionTransformer

        if not isinstance(vit, VisionTransformer):
            raise ConfigError(
                f"{type(vit).__name__} is not a timm VisionTransformer; choose a plain ViT such as DINOv2's"
            )
        self.vit: Any = vit
        rows, columns = self.vit.patch_embed.grid_size
        self.layout = Layout(
            (int(rows), int(columns)),
            int(self.vit.patch_embed.patch_size[0]),
            int(self.vit.embed_dim),
            int(self.vit.num_prefix_tokens),
            tuple(
                "" if isinstance(block, Block) and block.attn.gate is None else type(block).__name__
                for block in self.vit.blocks
            ),
        )

    def forward(self, pixels: Tensor, blocks: Collection[int], *, to_the_end: bool = False) -> BackboneOutput:
        """Run the network, no further than is needed.

        Args:
            pixels: (B, 3, S, S), normalised.
            blocks: numbers of the blocks to read, from 0.
            to_the_end: run all blocks, for the final [CLS].
        """
        vit = self.vit
        tokens = self.embed(pixels)
        readings: dict[int, BlockReading] = {}
        for number, block in enumerate(vit.blocks):
            if number in blocks:
                reading = readings[number] = self.read_block(number, tokens)
                if not to_the_end and len(readings) == len(blocks):
                    return BackboneOutput(readings, None)
                tokens = self._run(block, tokens, reading.query, reading.key, reading.value)
            else:
                tokens = block(tokens)
        return BackboneOutput(readings, vit.norm(tokens[:, 0]))

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens that enter the first block: (B, 3, S, S) normalised pixels to (B, T, C)."""
        vit = self.vit
        tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(pixels))))
        return tokens

    def read_block(self, number: int, tokens: Tensor) -> BlockReading:
        """What a block holds of the tokens (B, T, C) that enter it."""
        query, key, value = self.read_qkv(self.vit.blocks[number], tokens)
        return BlockReading(self.vit.norm(tokens[:, 0]), query, key, value)

    def read_qkv(self, block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of all tokens of one block, each (B, heads, T, head width)."""
        attn = block.attn
        batch, count, _ = tokens.shape
        qkv = attn.qkv(block.norm1(tokens)).reshape(batch, count, 3, attn.num_heads, attn.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return attn.q_norm(query), attn.k_norm(key), value

    def _run(self, block: Any, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The rest of a block whose query, key and value are known; returns its output."""
        attn = block.attn
        batch, count, _ = tokens.shape
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = attn.proj(attn.norm(mixed.transpose(1, 2).reshape(batch, count, attn.attn_dim)))
        tokens = tokens + block.drop_path1(block.ls1(mixed))
        grown: Tensor = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
        return grown


def cls_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Attention of each patch to the [CLS] key: the softmax runs over all keys, heads are averaged.

    Args:
        query: (B, heads, P, d) of the patches.
        key: (B, heads, T, d) of all tokens, [CLS] first.
        scale: 1 / sqrt(d).

    Returns:
        (B, P) float32 in [0, 1].
    """
    logits = (query * scale) @ key.transpose(-2, -1)
    logits = logits.float()
    return torch.exp(logits[..., 0] - torch.logsumexp(logits, dim=-1)).mean(dim=1)


def create_backbone(weights: LoadedWeights, *, image_size: int) -> Backbone:
    """Create the architecture for one input size and load its weights strictly.

    Positions are resampled once, here (antialiased bicubic, timm's `resample_abs_pos_embed`).

    Args:
        weights: under timm's names.
        image_size: side S in pixels.

    Raises:
        ConfigError: unknown architecture, or S is no multiple of its patch size.
        WeightsError: the weights do not fit the architecture.
    """
    ensure_timm_imports()
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    name = weights.timm_name.split(".")[0]
    if not timm.is_model(name):
        raise ConfigError(f"model {name!r} is unknown to timm {timm.__version__}")
    patch = _patch_size(weights)
    if image_size <= 0 or image_size % patch:
        nearest = max(patch, round(image_size / patch) * patch)
        raise ConfigError(f"image_size {image_size} is no multiple of the patch size {patch}; use {nearest}")
    vit = timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size)
    try:
        vit.load_state_dict(checkpoint_filter_fn(dict(weights.state_dict), cast(Any, vit)), strict=True)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"the weights from {weights.source} do not fit {name}: {str(error)[:400]}") from error
    return Backbone(vit).eval().requires_grad_(False)


def _patch_size(weights: LoadedWeights) -> int:
    projection = weights.state_dict.get("patch_embed.proj.weight")
    if projection is None:
        raise WeightsError(f"the weights from {weights.source} have no patch embedding; they are no ViT's")
    return int(projection.shape[-1])
