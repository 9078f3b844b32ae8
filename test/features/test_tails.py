"""Tails: what a trained one gives, its file, and who is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import new_place, picture, tiny_vit, tiny_weights

from effovpr_ros.core.errors import ConfigError, ModelMismatchError, WeightsError
from effovpr_ros.features import tails
from effovpr_ros.features.backbone import create_backbone
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig, ModelFingerprint, config_for_fingerprint
from effovpr_ros.features.preprocessing import preprocess
from effovpr_ros.features.state_dicts import fingerprint
from effovpr_ros.features.tail_file import Tail, TailInfo, read_tail, write_tail
from effovpr_ros.features.tails import apply_tail
from effovpr_ros.features.weights import load_weights
from effovpr_ros.lab.training.model import TrainableTail
from effovpr_ros.mapping.place_map import PlaceMap

MODEL, SIDE, WIDTH = "vit_tiny_test_patch14", 56, 24
IMAGES = [picture(1), picture(2)]


def make_tail(folder: Path, pooling: str, train_blocks: int, dims: tuple[str, ...] = ("8", "full")) -> TrainableTail:
    """A tail whose parameters are not the base's any more."""
    backbone = create_backbone(load_weights(MODEL, str(tiny_weights(folder))), image_size=SIDE)
    tail = TrainableTail(
        backbone,
        train_blocks=train_blocks,
        pooling=pooling,
        local_block=-2,
        facet="value",
        centered=True,
        dims=dims,
        generator=torch.Generator().manual_seed(1),
    )
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in (*tail.block_parameters().values(), *tail.heads.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return tail


def write(folder: Path, tail: TrainableTail, pooling: str, train_blocks: int, *, name: str = "tail") -> Path:
    base = load_weights(MODEL, str(tiny_weights(folder)))
    info = TailInfo(MODEL, base.sha256, train_blocks, pooling, 2, "value", True, tail.dims, SIDE, figures={"R@1": 50.0})
    path = folder / f"{name}.safetensors"
    write_tail(path, tail.export(info), precision=torch.float32)
    return path


def extractor(folder: Path, path: Path | None, **options: object) -> FeatureExtractor:
    weights = str(tiny_weights(folder)) + (f",{path}" if path else "")
    settings = {"local_block": -2, "device": "cpu", "image_size": SIDE, **options}
    return FeatureExtractor(ExtractorConfig(model=MODEL, weights=weights, **settings))


@pytest.mark.parametrize(("pooling", "train_blocks"), [("cls", 2), ("cls", 0), ("regional", 2), ("regional", 0)])
def test_a_file_gives_what_training_saw(tmp_path: Path, pooling: str, train_blocks: int):
    tail = make_tail(tmp_path, pooling, train_blocks)
    expected = tail.describe(tail.prefix(preprocess(IMAGES, SIDE)))
    path = write(tmp_path, tail, pooling, train_blocks)
    for descriptors, dim in zip(expected, tail.dims, strict=True):
        found = extractor(tmp_path, path, global_dim=dim).extract(IMAGES)
        np.testing.assert_allclose([item.global_descriptor for item in found], descriptors.numpy(), atol=1e-5)
    assert tail.dims == (8, WIDTH if pooling == "cls" else 17 * WIDTH)
    default = extractor(tmp_path, path)
    assert default.fingerprint.global_dim == 8 and default.fingerprint.global_kind == pooling


def test_only_what_leads_to_the_descriptor_learns(tmp_path: Path):
    names = set(make_tail(tmp_path, "regional", 2).block_parameters())
    assert {name.split(".")[1] for name in names if name.startswith("blocks")} == {"1", "2"}
    assert {name for name in names if name.startswith("blocks.2")} == {
        f"blocks.2.{part}" for part in ("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias")
    }
    assert {name for name in names if name.startswith("norm")} == {"norm.weight", "norm.bias"}
    assert {n.split(".")[1] for n in make_tail(tmp_path, "cls", 1).block_parameters() if "blocks" in n} == {"3"}
    assert not make_tail(tmp_path, "cls", 0).block_parameters()


def test_heads_alone_leave_the_local_features_as_they_were(tmp_path: Path):
    tail = write(tmp_path, make_tail(tmp_path, "regional", 0), "regional", 0)
    frozen, trained = (extractor(tmp_path, path).extract(IMAGES)[0] for path in (None, tail))
    np.testing.assert_array_equal(frozen.local.codes, trained.local.codes)
    assert trained.global_descriptor.shape != frozen.global_descriptor.shape


def test_the_local_block_may_differ_from_that_of_the_tail(tmp_path: Path):
    path = write(tmp_path, make_tail(tmp_path, "regional", 0), "regional", 0)
    one, other = (extractor(tmp_path, path, local_block=block) for block in (2, 0))
    np.testing.assert_allclose(
        one.extract(IMAGES)[1].global_descriptor, other.extract(IMAGES)[1].global_descriptor, atol=1e-6
    )
    assert one.fingerprint.differences(other.fingerprint) == ["local_block: 2 != 0"]


def test_heads_of_one_network_are_read_without_loading_it_again(tmp_path: Path):
    path = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    small = extractor(tmp_path, path)
    full = small.reading(replace(small.config, global_dim=WIDTH))
    assert full.backbone is small.backbone
    assert [item.extract(IMAGES)[0].global_descriptor.shape for item in (small, full)] == [(8,), (WIDTH,)]


def test_a_file_holds_what_it_was_given_in_half_the_bytes(tmp_path: Path):
    tail = make_tail(tmp_path, "cls", 1)
    whole = write(tmp_path, tail, "cls", 1)
    read = read_tail(whole)
    for name, parameter in tail.block_parameters().items():
        torch.testing.assert_close(read.weights[name], parameter.detach(), rtol=0, atol=0)
    assert read.info.figures == {"R@1": 50.0} and read.info.dims == (8, WIDTH)
    write_tail(tmp_path / "half.safetensors", read)
    half = read_tail(tmp_path / "half.safetensors")
    torch.testing.assert_close(half.heads[8][0], read.heads[8][0], rtol=1e-3, atol=1e-4)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * whole.stat().st_size
    assert half.sha256 != read.sha256 and read.sha256 == read_tail(whole).sha256


def test_a_tail_is_refused_on_another_base(tmp_path: Path):
    path = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    other = tiny_vit().state_dict()
    other["norm.weight"] = other["norm.weight"] + 1
    import safetensors.torch

    safetensors.torch.save_file(other, tmp_path / "other.safetensors")
    base = load_weights(MODEL, str(tiny_weights(tmp_path))).sha256
    another = load_weights(MODEL, str(tmp_path / "other.safetensors")).sha256
    with pytest.raises(WeightsError) as refused:
        load_weights(MODEL, f"{path},{tmp_path / 'other.safetensors'}")
    assert (
        base[:12] in str(refused.value)
        and another[:12] in str(refused.value)
        and "tail.safetensors" in str(refused.value)
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{base},{base}", "2 bases and 0 tails"),
        ("{tail},{tail}", "0 bases and 2 tails"),
        ("{tail},gone.pth", "gone.pth"),
    ],
)
def test_weights_name_at_most_one_base_and_one_tail(tmp_path: Path, weights: str, message: str):
    path = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    with pytest.raises(WeightsError, match=message):
        load_weights(MODEL, weights.format(base=tiny_weights(tmp_path), tail=path))


def test_a_damaged_tail_is_named(tmp_path: Path):
    path = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"tail\.safetensors"):
        load_weights(MODEL, f"{tiny_weights(tmp_path)},{path}")
    with pytest.raises(WeightsError, match="is no tail"):
        read_tail(tiny_weights(tmp_path))


def test_a_length_that_no_head_has(tmp_path: Path):
    path = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    with pytest.raises(ConfigError, match="gives 8, 24"):
        extractor(tmp_path, path, global_dim=16)
    with pytest.raises(ConfigError, match="without a trained tail"):
        extractor(tmp_path, None, global_dim=16)


def test_fingerprints_of_maps_without_a_tail_stay_as_they_were(tmp_path: Path):
    frozen = extractor(tmp_path, None).fingerprint
    assert "tail_sha256" not in frozen.to_dict()
    assert ModelFingerprint.from_dict(frozen.to_dict()) == frozen
    trained = extractor(tmp_path, write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)).fingerprint
    assert ModelFingerprint.from_dict(trained.to_dict()) == trained
    assert trained.weights_sha256 == frozen.weights_sha256 and trained.tail_sha256


def map_of(folder: Path, made_by: FeatureExtractor) -> Path:
    with PlaceMap.create(folder / "map", fingerprint=made_by.fingerprint) as place_map:
        place_map.add([new_place(0, features=made_by.extract([picture(1)])[0])])
        place_map.flush()
    return folder / "map"


def test_a_map_asks_for_its_tail(tmp_path: Path):
    path = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    made_by = extractor(tmp_path, path, global_dim=WIDTH)
    with PlaceMap.open(map_of(tmp_path, made_by)) as place_map:
        fingerprint = place_map.fingerprint
        with pytest.raises(WeightsError, match="--weights TAIL"):
            config_for_fingerprint(fingerprint, weights=str(tiny_weights(tmp_path)))
        weights = f"{tiny_weights(tmp_path)},{path}"
        again = FeatureExtractor(config_for_fingerprint(fingerprint, weights=weights, device="cpu"))
        place_map.require_model(again.fingerprint)
        other = write(tmp_path, make_tail(tmp_path, "cls", 2), "cls", 2, name="other")
        weights = f"{tiny_weights(tmp_path)},{other}"
        wrong = FeatureExtractor(config_for_fingerprint(fingerprint, weights=weights, device="cpu"))
        with pytest.raises(ModelMismatchError, match="tail_sha256"):
            place_map.require_model(wrong.fingerprint)


def test_a_shipped_tail_is_found_by_its_map_and_can_be_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path, make_tail(tmp_path, "cls", 1), "cls", 1)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    path.rename(shipped / "ours.safetensors")
    monkeypatch.setattr(tails, "SHIPPED_FOLDER", shipped)
    trained = extractor(tmp_path, None, tail="ours").fingerprint
    weights = str(tiny_weights(tmp_path))
    config = config_for_fingerprint(trained, weights=weights, device="cpu")
    assert config.tail == "ours" and FeatureExtractor(config).fingerprint == trained
    monkeypatch.setattr(tails, "DEFAULT_TAILS", {MODEL: "ours"})
    found = [tails.find_tail(MODEL, given, tail)[1] for given, tail in (("", "auto"), ("", "none"), (weights, "auto"))]
    assert [isinstance(item, Tail) for item in found] == [True, False, False]
    frozen = extractor(tmp_path, None).fingerprint
    assert config_for_fingerprint(frozen, weights=weights).tail == "none", "old maps keep their network"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_blocks": 5}, "runs 4 blocks"),
        ({"dims": ("8", "8")}, "each length once"),
        ({"dims": ("99",)}, "a number from 1 to 24"),
        ({"dims": ("wide",)}, "neither full"),
        ({"train_blocks": 0, "dims": ("full",)}, "nothing to learn"),
    ],
)
def test_tails_that_cannot_be(tmp_path: Path, options: dict[str, object], message: str):
    settings = {"pooling": "cls", "train_blocks": 1, **options}
    with pytest.raises(ConfigError, match=message):
        make_tail(tmp_path, **settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block": 999}, "reads block 999"),
        ({"block": "3"}, "block holds '3'"),
        ({"dims": ()}, "dims are ()"),
        ({"pooling": "median"}, "pooling is 'median'"),
        ({"dims": (-5,)}, "dims holds -5"),
    ],
)
def test_tails_of_impossible_values_are_refused_by_name(tmp_path: Path, change: dict[str, object], said: str):
    base = tiny_vit()
    info = TailInfo("vit_tiny_test_patch14", fingerprint(base.state_dict()), 0, "regional", 2, "value", True, (8,), 56)
    heads = {8: (torch.ones(8, 24 * 17), torch.zeros(8))}
    write_tail(tmp_path / "t.safetensors", Tail(replace(info, **change), {}, heads, "t"))
    with pytest.raises(WeightsError, match=re.escape(said)):
        tail = read_tail(tmp_path / "t.safetensors")
        apply_tail(tail, base.state_dict(), info.architecture, info.base_sha256, "base")


@pytest.mark.parametrize(
    ("weights", "heads", "said"),
    [
        ({"norm.weight": torch.full((24,), torch.nan)}, {}, "norm.weight holds values that are not finite numbers"),
        ({"norm.weight": torch.ones(25)}, {}, "norm.weight of shape (25,)"),
        ({}, {8: (torch.ones(7, 24), torch.zeros(8))}, "head 8 has shapes (7, 24) and (8,)"),
        (
            {},
            {8: (torch.full((8, 24), torch.inf), torch.zeros(8))},
            "heads.8.weight holds values that are not finite numbers",
        ),
    ],
)
def test_tails_with_nan_or_wrong_shapes_are_refused_by_name(
    tmp_path: Path, weights: dict[str, torch.Tensor], heads: dict[int, tuple[torch.Tensor, torch.Tensor]], said: str
):
    base = tiny_vit()
    info = TailInfo("vit_tiny_test_patch14", fingerprint(base.state_dict()), 0, "cls", 0, "value", True, (8,), 56)
    write_tail(tmp_path / "t.safetensors", Tail(info, weights, heads, "t"))
    with pytest.raises(WeightsError, match=re.escape(said)):
        tail = read_tail(tmp_path / "t.safetensors")
        apply_tail(tail, base.state_dict(), info.architecture, info.base_sha256, "base")


def test_a_head_of_another_pooling_is_refused_by_name(tmp_path: Path):
    path = tiny_weights(tmp_path)
    base = fingerprint(tiny_vit().state_dict())
    info = TailInfo("vit_tiny_test_patch14", base, 0, "cls", 0, "value", True, (8,), 56)
    write_tail(tmp_path / "t.safetensors", Tail(info, {}, {8: (torch.ones(8, 25), torch.zeros(8))}, "t"))
    config = ExtractorConfig(
        model="vit_tiny_test_patch14", weights=f"{path},{tmp_path / 't.safetensors'}", image_size=56, device="cpu"
    )
    with pytest.raises(WeightsError, match=r"head 8 of tail t\.safetensors does not fit: cls pooling gives 24 numbers"):
        FeatureExtractor(config)
