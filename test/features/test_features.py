"""The network: facets and attention against a direct computation, selection, independence of the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import picture, tiny_extractor, tiny_vit, tiny_weights
from torch.nn import functional

from effovpr_ros.core.errors import ConfigError, ImageError, WeightsError
from effovpr_ros.features import extractor as extractor_module
from effovpr_ros.features import regional
from effovpr_ros.features.backbone import Backbone, cls_attention, create_backbone
from effovpr_ros.features.codes import encode
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ModelFingerprint, config_for_fingerprint
from effovpr_ros.features.keypoints import select_keypoints
from effovpr_ros.features.names import FACETS
from effovpr_ros.features.preprocessing import preprocess
from effovpr_ros.features.weights import load_weights


@pytest.mark.parametrize("name", ["vit_tiny_test_patch14", "vit_tiny_test_patch14_reg4"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_facets_and_attention_equal_a_direct_computation(name: str, block: int):
    vit = tiny_vit(name)
    captured: list[torch.Tensor] = []
    vit.blocks[block].attn.qkv.register_forward_hook(lambda module, inputs, output: captured.append(output))
    pixels = torch.randn(2, 3, 56, 56)
    backbone = Backbone(vit)
    with torch.inference_mode():
        tokens = vit.forward_features(pixels)
        output = backbone(pixels, {block}, to_the_end=True)
    # Rows of the qkv matrix: all heads of q, then k, then v.
    qkv = captured[0]
    prefix = vit.num_prefix_tokens
    np.testing.assert_allclose(output.cls, tokens[:, 0], rtol=1e-4, atol=1e-5)
    for number, facet in enumerate(FACETS):
        expected = qkv[:, prefix:, 24 * number : 24 * (number + 1)]
        np.testing.assert_allclose(backbone.layout.facet(output.blocks[block], facet), expected, rtol=1e-5, atol=1e-6)
    attention = backbone.layout.attention_to_cls(output.blocks[block])
    for image in range(2):
        heads = []
        for head in range(2):
            query = qkv[image, :, 12 * head : 12 * head + 12]
            key = qkv[image, :, 24 + 12 * head : 24 + 12 * head + 12]
            heads.append(torch.softmax(query @ key.T / 12**0.5, dim=1)[prefix:, 0])
        expected = torch.stack(heads).mean(0)
        np.testing.assert_allclose(attention[image], expected, rtol=1e-4, atol=1e-6)


def test_the_network_runs_no_further_than_it_is_read():
    vit = tiny_vit("vit_tiny_test_patch14")
    entered: list[int] = []
    for number, block in enumerate(vit.blocks):
        block.mlp.register_forward_hook(lambda *_, number=number: entered.append(number))
    pixels = torch.randn(1, 3, 56, 56)
    with torch.inference_mode():
        partial = Backbone(vit)(pixels, {0, 1})
        assert entered == [0]
        whole = Backbone(vit)(pixels, {0, 1}, to_the_end=True)
    assert entered == [0, 0, 1, 2, 3]
    assert partial.cls is None
    for number in (0, 1):
        np.testing.assert_array_equal(partial.blocks[number].value, whole.blocks[number].value)
        np.testing.assert_array_equal(partial.blocks[number].cls, whole.blocks[number].cls)


def test_regions_worked_by_hand():
    # Two patches a side: their centres lie at 0.25 and 0.75 of the side, half-way between the centres of the four
    # regions at 0.125, 0.375, 0.625 and 0.875.
    rows = regional._membership(2)
    assert rows.tolist() == [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    # One patch a region; beyond the outer centres a patch belongs to the outer region alone.
    assert regional._membership(4).tolist() == torch.eye(4).tolist()
    assert regional._membership(8)[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert regional._membership(8)[1].tolist() == [0.75, 0.25, 0.0, 0.0]


def test_a_regional_descriptor_keeps_cosines_and_ignores_lengths():
    describe = regional.RegionalDescriptor((6, 6), 24, torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    cls, facet = torch.randn(2, 24, generator=rng), torch.randn(2, 36, 24, generator=rng)
    near = describe(cls[:1], facet[:1] + 0.3 * facet[1:])
    one, other = describe(cls, facet)
    assert one.shape == (regional.REGIONAL_DIM,)
    assert float(one.norm()) == pytest.approx(1.0, abs=1e-5)
    assert float(near[0] @ one) > 0.9 > 0.3 > abs(float(one @ other))
    np.testing.assert_allclose(describe(3.0 * cls, 5.0 * facet), describe(cls, facet), atol=1e-5)


def test_cls_attention_worked_by_hand():
    # One head, one patch: logits ln 1 and ln 3 give 1 / 4 to [CLS].
    query = torch.tensor([[[[1.0]]]])
    key = torch.log(torch.tensor([[[[1.0], [3.0]]]]))
    assert cls_attention(query, key, 1.0).tolist() == [[pytest.approx(0.25)]]


def test_keypoints_are_above_the_threshold_and_in_raster_order():
    attention = np.array([0.2, 0.05, 0.9, 0.06, 0.3], np.float32)
    assert select_keypoints(attention, 0.05, 0).tolist() == [0, 2, 3, 4]
    assert select_keypoints(attention, 0.05, 2).tolist() == [2, 4]
    assert select_keypoints(attention, 0.9, 0).tolist() == []


def test_a_descriptor_does_not_depend_on_its_batch(offline_extractor: FeatureExtractor):
    images = [picture(seed, 320, 240) for seed in range(5)]
    together = offline_extractor.extract(images)
    for image, batched in zip(images, together, strict=True):
        alone = offline_extractor.extract([image])[0]
        assert float(alone.global_descriptor @ batched.global_descriptor) > 0.9999
        np.testing.assert_array_equal(alone.local.cells_xy, batched.local.cells_xy)
        assert (np.abs(alone.local.codes - batched.local.codes) <= 1).all()
        assert (alone.local.codes == batched.local.codes).mean() > 0.999


def test_the_same_image_gives_the_same_features_on_every_run(tmp_path: Path):
    first, second = (tiny_extractor(tmp_path).extract([picture(3)])[0] for _ in range(2))
    np.testing.assert_array_equal(first.global_descriptor, second.global_descriptor)
    np.testing.assert_array_equal(first.local.codes, second.local.codes)


def test_features_of_the_offline_model(offline_extractor: FeatureExtractor):
    features = offline_extractor.extract([picture(1, 640, 480)])[0]
    assert features.global_descriptor.shape == (512,)
    assert np.linalg.norm(features.global_descriptor) == pytest.approx(1.0, abs=1e-5)
    assert features.grid_wh == (23, 23)
    assert features.local.codes.shape == (len(features.local), 88)
    assert features.local.cells_xy.max() < 23
    assert np.linalg.norm(features.local.descriptors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_any_size_of_input_and_no_image(tmp_path: Path):
    features = tiny_extractor(tmp_path, image_size=84).extract([picture(1)])[0]
    assert features.grid_wh == (6, 6)
    assert len(features.local) == 36
    assert tiny_extractor(tmp_path).extract([]) == []


def test_centred_facets_have_no_mean_and_the_papers_are_as_they_come(tmp_path: Path):
    image = picture(3)
    pixels = preprocess([image], 56)
    extractor = tiny_extractor(tmp_path, centered=True)
    with torch.inference_mode():
        reading = extractor.backbone(pixels, {extractor.block}, to_the_end=True)
        facet = extractor.layout.facet(reading.blocks[extractor.block], "value")[0].numpy()
        cls = functional.normalize(reading.cls, dim=-1)[0].numpy()
    np.testing.assert_array_equal(extractor.extract([image])[0].local.codes, encode(facet - facet.mean(0)))
    paper = extractor.reading(replace(extractor.config, centered=False, global_kind="cls"))
    features = paper.extract([image])[0]
    np.testing.assert_array_equal(features.local.codes, encode(facet))
    np.testing.assert_allclose(features.global_descriptor, cls, atol=1e-6)
    assert paper.fingerprint.differences(extractor.fingerprint) == [
        "global_dim: 24 != 512",
        "centered: False != True",
        "global_kind: cls != regional",
    ]


def test_a_fingerprint_names_what_differs_and_leads_back_to_its_config(tmp_path: Path):
    one, other = tiny_extractor(tmp_path), tiny_extractor(tmp_path, image_size=84, facet="key")
    assert one.fingerprint.differences(other.fingerprint) == ["image_size: 56 != 84", "facet: value != key"]
    assert ModelFingerprint.from_dict(one.fingerprint.to_dict()) == one.fingerprint
    weights = str(tiny_weights(tmp_path))
    again = FeatureExtractor(config_for_fingerprint(other.fingerprint, weights=weights, device="cpu"))
    assert again.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 60}, "60 is no multiple of the patch size 14; use 56"),
        ({"local_block": 4}, "local_block 4 does not exist; the model has blocks 0 to 3"),
        ({"facet": "token"}, "facet 'token' is unknown"),
        ({"global_kind": "gem"}, "global_kind 'gem' is unknown; use regional, cls"),
        ({"min_attention": 1.0}, "min_attention"),
        ({"max_keypoints": -1}, "max_keypoints -1"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"device": "tpu9"}, "device 'tpu9' is unknown"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, options: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        tiny_extractor(tmp_path, **options)


def test_cuda_is_not_replaced_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extractor_module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no GPU; use auto or cpu"):
        tiny_extractor(tmp_path, device="cuda")
    assert tiny_extractor(tmp_path, device="auto").device.type == "cpu"


def test_half_precision_runs_and_agrees(tmp_path: Path):
    full = tiny_extractor(tmp_path).extract([picture(5)])[0]
    half = tiny_extractor(tmp_path, precision="bf16").extract([picture(5)])[0]
    assert float(full.global_descriptor @ half.global_descriptor) > 0.99


def test_weights_of_another_size_are_refused(tmp_path: Path):
    weights = load_weights("vit_small_patch14_dinov2", str(tiny_weights(tmp_path)))
    with pytest.raises(WeightsError, match="do not fit vit_small_patch14_dinov2"):
        create_backbone(weights, image_size=56)


def test_images_that_are_none_are_refused_by_number(tmp_path: Path):
    extractor = tiny_extractor(tmp_path)
    with pytest.raises(ImageError, match=r"image 1 is float32 \(4, 4, 3\)"):
        extractor.extract([picture(0), np.zeros((4, 4, 3), np.float32)])
