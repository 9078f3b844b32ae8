"""Names by which settings choose a network and what is read of it. PyTorch is not loaded for them, nor for options."""

from __future__ import annotations

OFFLINE_MODEL = "offline"
NAMED_MODELS = {
    OFFLINE_MODEL: "vit_small_patch14_dinov2",
    "small": "vit_small_patch14_reg4_dinov2.lvd142m",
    "base": "vit_base_patch14_reg4_dinov2.lvd142m",
    "large": "vit_large_patch14_reg4_dinov2.lvd142m",
    "giant": "vit_giant_patch14_reg4_dinov2.lvd142m",
}
FACETS = ("query", "key", "value")
PRECISIONS = ("fp32", "fp16", "bf16")
AUTO, NONE = "auto", "none"
"""Of tails."""
