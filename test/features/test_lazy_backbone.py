"""PyTorch's weights are read only where something needs them, and another file is never taken for the known one."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from synthetic import picture, tiny_extractor, tiny_vit, tiny_weights

from effovpr_ros.core.errors import WeightsError
from effovpr_ros.engines.cache import cache_root
from effovpr_ros.engines.runtime import RunningEngine
from effovpr_ros.features import lazy_backbone
from effovpr_ros.features.backbone import Layout
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig

MODEL = "vit_tiny_test_patch14"


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models whose weights were read, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read: list[str] = []
    load = lazy_backbone.load_weights

    def counted(model: str, weights: str, tail: str) -> object:
        read.append(model)
        return load(model, weights, tail)

    monkeypatch.setattr(lazy_backbone, "load_weights", counted)
    return read


def opened(weights: Path, engine: str = "torch") -> FeatureExtractor:
    config = ExtractorConfig(
        MODEL, str(weights), image_size=56, local_block=-2, min_attention=0.0, device="cpu", engine=engine
    )
    return FeatureExtractor(config)


def test_an_engine_of_the_cache_needs_no_weights(tmp_path: Path, reads: list[str]):
    pytest.importorskip("onnxruntime")
    weights = tiny_weights(tmp_path)
    first = opened(weights, "onnxruntime")
    assert reads == [MODEL]
    second = opened(weights, "onnxruntime")
    images = [picture(1)]
    found, expected = second.extract(images)[0], first.extract(images)[0]
    assert reads == [MODEL]
    assert second.fingerprint == first.fingerprint
    np.testing.assert_array_equal(found.local.codes, expected.local.codes)
    # Who asks for PyTorch's network gets it.
    assert second.backbone.layout == second.layout
    assert reads == [MODEL] * 2
    assert second.backbone is second.backbone
    assert reads == [MODEL] * 2


def test_another_file_is_read_anew(tmp_path: Path, reads: list[str]):
    weights = tiny_weights(tmp_path)
    first = opened(weights)
    state = weights.stat()
    values = {name: tensor * 2.0 for name, tensor in tiny_vit().state_dict().items()}
    safetensors.torch.save_file(values, weights)
    # As large and as old as before.
    assert weights.stat().st_size == state.st_size
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = opened(weights)
    assert second.fingerprint.weights_sha256 != first.fingerprint.weights_sha256
    assert reads == [MODEL] * 2


def test_weights_that_are_replaced_in_use_are_refused(tmp_path: Path, reads: list[str]):
    pytest.importorskip("onnxruntime")
    weights = tiny_weights(tmp_path)
    opened(weights, "onnxruntime")
    second = opened(weights, "onnxruntime")
    values = {name: tensor * 2.0 for name, tensor in tiny_vit().state_dict().items()}
    safetensors.torch.save_file(values, weights)
    with pytest.raises(WeightsError, match="replaced while they were in use"):
        second.backbone  # noqa: B018


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"architecture": 1}', '{"layout": {"grid_hw": [4]}}'])
def test_a_damaged_record_is_made_again(damage: str, tmp_path: Path, reads: list[str]):
    weights = tiny_weights(tmp_path)
    expected = opened(weights).fingerprint
    [record] = (cache_root() / "networks").iterdir()
    record.write_text(damage)
    assert opened(weights).fingerprint == expected
    assert reads == [MODEL] * 2
    opened(weights)
    # PyTorch runs it, so that they are read, but by its first pass alone.
    assert len(reads) == 3


def test_weights_are_given_back_after_a_takeover(tmp_path: Path, reads: list[str]):
    extractor = tiny_extractor(tmp_path)
    before = weakref.ref(extractor.backbone)
    extractor.extract([picture(1)])
    assert before() is not None

    class Found:
        def take(self) -> RunningEngine:
            return RunningEngine("another", lambda pixels: None, None)  # type: ignore[arg-type,return-value]

    extractor._takeover = Found()  # type: ignore[assignment]
    assert extractor.take_over()
    assert extractor.engine.name == "another"
    gc.collect()
    assert before() is None
    assert extractor.backbone.layout == extractor.layout
    assert reads == [MODEL] * 2


def test_layouts_are_kept_as_they_are():
    layout = Layout((4, 5), 14, 192, 5, ("", "ParallelBlock"))
    values = {
        "grid_hw": [4, 5],
        "patch_size": 14,
        "width": 192,
        "num_prefix_tokens": 5,
        "other_blocks": ["", "ParallelBlock"],
    }
    assert Layout.from_record(values) == layout
    assert layout.block_number(-2) == 0
    for name, value in [("width", -1), ("width", "a"), ("grid_hw", [4]), ("other_blocks", []), ("other_blocks", [1])]:
        assert Layout.from_record({**values, name: value}) is None
