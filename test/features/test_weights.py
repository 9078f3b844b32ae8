"""Weights under three naming schemes, held against one tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from synthetic import tiny_vit
from torch import Tensor

from effovpr_ros.core.errors import WeightsError
from effovpr_ros.features.backbone import create_backbone
from effovpr_ros.features.weights import load_weights

NAMES = ["vit_tiny_test_patch14", "vit_tiny_test_patch14_reg4"]
HUGGING_FACE = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


def official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As facebookresearch/dinov2 names them; its register models add a position to [CLS]."""
    result = {**state, "mask_token": torch.zeros(1, 24)}
    if "reg_token" in result:
        position = torch.full((1, 1, 24), 0.25)
        result["register_tokens"] = result.pop("reg_token")
        result["cls_token"] = result["cls_token"] - position
        result["pos_embed"] = torch.cat([position, result["pos_embed"]], dim=1)
    return result


def hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As transformers' Dinov2Model names them: q, k and v apart."""
    result: dict[str, Tensor] = {}
    for name, tensor in official(state).items():
        if "attn.qkv" in name:
            for facet, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                result[name.replace("attn.qkv", f"attention.attention.{facet}")] = part
            continue
        for ours, theirs in HUGGING_FACE.items():
            name = name.replace(ours, theirs)
        if name in ("cls_token", "mask_token", "register_tokens"):
            name = f"embeddings.{name}"
        name = {"pos_embed": "embeddings.position_embeddings"}.get(name, name)
        result[re.sub(r"^norm\.", "layernorm.", name)] = tensor
    return {re.sub(r"^blocks\.", "encoder.layer.", name): tensor.contiguous() for name, tensor in result.items()}


@pytest.mark.parametrize("model", NAMES)
def test_three_naming_schemes_give_one_network(tmp_path: Path, model: str):
    vit = tiny_vit(model)
    state = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "timm.safetensors")
    safetensors.torch.save_file(hugging_face(state), tmp_path / "hf.safetensors")
    torch.save(official(state), tmp_path / "official.pth")
    torch.save({"model": {f"backbone.{name}": tensor for name, tensor in official(state).items()}}, tmp_path / "w.pt")
    pixels = torch.randn(1, 3, 56, 56)
    with torch.inference_mode():
        expected = vit.forward_features(pixels)[:, 0]
        for file in ("timm.safetensors", "hf.safetensors", "official.pth", "w.pt"):
            weights = load_weights(model, str(tmp_path / file))
            cls = create_backbone(weights, image_size=56)(pixels, ()).cls
            torch.testing.assert_close(cls, expected, rtol=1e-4, atol=1e-5, msg=file)
    files = ("timm.safetensors", "hf.safetensors", "w.pt")
    if model == NAMES[0]:
        assert len({load_weights(model, str(tmp_path / file)).sha256 for file in files}) == 1


def test_a_fingerprint_tells_weights_apart(tmp_path: Path):
    state = {name: tensor.clone() for name, tensor in tiny_vit().state_dict().items()}
    torch.save(state, tmp_path / "one.pth")
    state["norm.bias"][0] += 1e-3
    torch.save(state, tmp_path / "other.pth")
    one, other = (load_weights(NAMES[0], str(tmp_path / name)).sha256 for name in ("one.pth", "other.pth"))
    assert one != other


def test_the_offline_weights_are_those_of_dinov2_small():
    weights = load_weights("offline")
    assert weights.timm_name == "vit_small_patch14_dinov2"
    assert weights.state_dict["pos_embed"].shape[2] == 384
    assert weights.state_dict["blocks.11.attn.qkv.weight"].shape == (1152, 384)


def test_bad_files_are_refused_with_their_name(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"nowhere\.pth does not exist"):
        load_weights("small", str(tmp_path / "nowhere.pth"))
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    with pytest.raises(WeightsError, match=r"noise\.safetensors cannot be read"):
        load_weights("small", str(tmp_path / "noise.safetensors"))
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"unknown ending '\.bin'"):
        load_weights("small", str(tmp_path / "weights.bin"))
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"none of timm, official DINOv2 or Hugging Face.*conv1\.weight"):
        load_weights("small", str(tmp_path / "resnet.pth"))
    incomplete = hugging_face(tiny_vit().state_dict())
    del incomplete["encoder.layer.1.attention.attention.key.bias"]
    torch.save(incomplete, tmp_path / "incomplete.pth")
    with pytest.raises(WeightsError, match="block 1 lacks one of query, key and value bias"):
        load_weights("small", str(tmp_path / "incomplete.pth"))


def test_a_model_that_timm_does_not_know_is_refused():
    with pytest.raises(WeightsError, match="model 'dinov9' is unknown"):
        load_weights("dinov9")
