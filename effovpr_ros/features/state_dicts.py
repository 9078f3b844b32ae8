"""The three naming schemes of DINOv2 weights, brought to timm's.

Official checkpoints (facebookresearch/dinov2) and timm share most names; Hugging Face `Dinov2Model` names
everything differently and splits the query, key and value matrices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from effovpr_ros.core.errors import WeightsError

StateDict = dict[str, Tensor]

_HF_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_HF_BLOCK_NAMES = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "mlp.weights_in.weight": "mlp.fc1.weight",
    "mlp.weights_in.bias": "mlp.fc1.bias",
    "mlp.weights_out.weight": "mlp.fc2.weight",
    "mlp.weights_out.bias": "mlp.fc2.bias",
}
_HF_TOP_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_QKV = ("query", "key", "value")


def to_timm(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Translate official, Hugging Face or timm DINOv2 weights to timm's names.

    Args:
        state_dict: tensors under any of the three naming schemes.

    Returns:
        Tensors under timm's names, positions still of their original grid.

    Raises:
        WeightsError: the names belong to none of the schemes.
    """
    tensors = {name.removeprefix("dinov2.").removeprefix("backbone."): t for name, t in state_dict.items()}
    if "embeddings.cls_token" in tensors:
        tensors = _from_hugging_face(tensors)
    if "cls_token" not in tensors or "pos_embed" not in tensors:
        some = ", ".join(list(state_dict)[:3]) or "nothing"
        raise WeightsError(
            f"the weights are named like none of timm, official DINOv2 or Hugging Face Dinov2Model (found {some}, ...)"
        )
    return _from_official(tensors)


def _from_official(tensors: StateDict) -> StateDict:
    """Names that differ between official checkpoints and timm; timm's own dictionaries pass unchanged."""
    result = dict(tensors)
    result.pop("mask_token", None)
    for name in [name for name in result if name.startswith("head.")]:
        del result[name]
    if "register_tokens" in result:
        # timm's register models add no position to [CLS], so [CLS] carries its own.
        result["reg_token"] = result.pop("register_tokens")
        result["cls_token"] = result["cls_token"] + result["pos_embed"][:, :1]
        result["pos_embed"] = result["pos_embed"][:, 1:]
    return {name.replace("mlp.w12.", "mlp.fc1.").replace("mlp.w3.", "mlp.fc2."): t for name, t in result.items()}


def _from_hugging_face(tensors: Mapping[str, Tensor]) -> StateDict:
    result: StateDict = {}
    for name, tensor in tensors.items():
        if name in _HF_TOP_NAMES:
            result[_HF_TOP_NAMES[name]] = tensor
            continue
        block = _HF_BLOCK.fullmatch(name)
        if block is None:
            continue
        index, rest = block.groups()
        if rest in _HF_BLOCK_NAMES:
            result[f"blocks.{index}.{_HF_BLOCK_NAMES[rest]}"] = tensor
        elif rest.startswith("attention.attention.query."):
            kind = rest.rsplit(".", 1)[1]
            parts = [tensors.get(f"encoder.layer.{index}.attention.attention.{facet}.{kind}") for facet in _QKV]
            present = [part for part in parts if part is not None]
            if len(present) != len(_QKV):
                raise WeightsError(f"block {index} lacks one of query, key and value {kind}; the file is incomplete")
            result[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(present)
    return result


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold what is no number, which would make every descriptor so.

    Raises:
        WeightsError: names the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{name} holds values that are not finite numbers")


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 over sorted names, shapes and float32 values."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        values = state_dict[name].detach().to(torch.float32).contiguous().numpy()
        digest.update(f"{name}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
