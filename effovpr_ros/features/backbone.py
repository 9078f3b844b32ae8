"""The Vision Transformer: [CLS], one block's facet and its attention to [CLS], in one forward pass."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from effovpr_ros.errors import ConfigError, WeightsError
from effovpr_ros.features.torchvision_guard import ensure_timm_imports
from effovpr_ros.features.weights import LoadedWeights

FACETS = ("query", "key", "value")


class BackboneOutput(NamedTuple):
    """What one forward pass gives for B images of P = rows * columns patches and width C.

    Attributes:
        cls: (B, C) [CLS] token after the final norm, not normalised.
        facet: (B, P, C) the wanted facet of every patch, heads concatenated, not normalised.
        cls_attention: (B, P) attention of each patch to the [CLS] key, mean over heads, in [0, 1].
    """

    cls: Tensor
    facet: Tensor
    cls_attention: Tensor


class Backbone(nn.Module):
    """A timm Vision Transformer that also gives what EffoVPR's re-ranking reads (paper section 3.2)."""

    def __init__(self, vit: nn.Module, *, local_block: int, facet: str) -> None:
        """Wrap a model.

        Args:
            vit: a `timm.models.vision_transformer.VisionTransformer` without a classifier.
            local_block: index of the block to read; negative counts from the last.
            facet: query, key or value.

        Raises:
            ConfigError: another architecture, no such block, or no such facet.
        """
        super().__init__()
        ensure_timm_imports()
        from timm.models.vision_transformer import Block, VisionTransformer

        if not isinstance(vit, VisionTransformer):
            raise ConfigError(
                f"{type(vit).__name__} is not a timm VisionTransformer; choose a plain ViT such as DINOv2's"
            )
        depth = len(vit.blocks)
        if not -depth <= local_block < depth:
            raise ConfigError(f"local_block {local_block} does not exist; the model has blocks 0 to {depth - 1}")
        if facet not in FACETS:
            raise ConfigError(f"facet {facet!r} is unknown; use one of {', '.join(FACETS)}")
        self.vit: Any = vit
        self.local_block = local_block % depth
        self.facet = facet
        block = vit.blocks[self.local_block]
        if not isinstance(block, Block) or block.attn.gate is not None:
            raise ConfigError(
                f"block {self.local_block} is a {type(block).__name__}; only standard pre-norm blocks are read"
            )

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.vit.patch_embed.grid_size
        return int(rows), int(columns)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.vit.patch_embed.patch_size[0])

    @property
    def width(self) -> int:
        """C, the length of a token."""
        return int(self.vit.embed_dim)

    def forward(self, pixels: Tensor) -> BackboneOutput:
        """Run the network.

        Args:
            pixels: (B, 3, S, S), normalised.
        """
        vit = self.vit
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(pixels))))
        facet = attention = None
        for index, block in enumerate(vit.blocks):
            if index == self.local_block:
                tokens, facet, attention = self._read_block(block, tokens)
            else:
                tokens = block(tokens)
        tokens = vit.norm(tokens)
        if facet is None or attention is None:
            raise ConfigError(f"block {self.local_block} was never run")
        return BackboneOutput(tokens[:, 0], facet, attention)

    def read_qkv(self, block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of all tokens of one block, each (B, heads, T, head width)."""
        attn = block.attn
        batch, count, _ = tokens.shape
        qkv = attn.qkv(block.norm1(tokens)).reshape(batch, count, 3, attn.num_heads, attn.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return attn.q_norm(query), attn.k_norm(key), value

    def _read_block(self, block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run one block by hand; returns its output, the facet (B, P, C) and the [CLS] attention (B, P)."""
        attn = block.attn
        batch, count, _ = tokens.shape
        query, key, value = self.read_qkv(block, tokens)
        prefix = int(self.vit.num_prefix_tokens)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = attn.proj(attn.norm(mixed.transpose(1, 2).reshape(batch, count, attn.attn_dim)))
        tokens = tokens + block.drop_path1(block.ls1(mixed))
        tokens = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
        chosen = {"query": query, "key": key, "value": value}[self.facet][:, :, prefix:]
        facet = chosen.transpose(1, 2).reshape(batch, count - prefix, -1)
        return tokens, facet, cls_attention(query[:, :, prefix:], key, float(attn.scale))


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


def create_backbone(weights: LoadedWeights, *, image_size: int, local_block: int, facet: str) -> Backbone:
    """Create the architecture for one input size and load its weights strictly.

    Positions are resampled once, here (antialiased bicubic, timm's `resample_abs_pos_embed`).

    Args:
        weights: under timm's names.
        image_size: side S in pixels.
        local_block: see `Backbone`.
        facet: see `Backbone`.

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
    return Backbone(vit, local_block=local_block, facet=facet).eval().requires_grad_(False)


def _patch_size(weights: LoadedWeights) -> int:
    projection = weights.state_dict.get("patch_embed.proj.weight")
    if projection is None:
        raise WeightsError(f"the weights from {weights.source} have no patch embedding; they are no ViT's")
    return int(projection.shape[-1])
