"""On an NVIDIA GPU everything gives what it gives on the CPU; skipped where torch sees no GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import picture, tiny_extractor

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import ConfigError, EngineError
from effovpr_ros.engines.agreement import scenes, verify
from effovpr_ros.engines.catalogue import what_is_missing
from effovpr_ros.engines.cuda_graphs import CapturedNetwork, capture_cuda_graph
from effovpr_ros.engines.graph import FlatNetwork
from effovpr_ros.features.backbone import BackboneOutput
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.image_features import Features
from effovpr_ros.features.preprocessing import preprocess, preprocess_on
from effovpr_ros.features.variants import extract_variants

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no NVIDIA GPU to run this on"
)
CUDA = torch.device("cuda")
IMAGES = [picture(seed) for seed in range(3)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def cosines(found: Sequence[Features], wanted: Sequence[Features]) -> tuple[float, float]:
    """Least of the global descriptors, and mean of the local ones, whose patches must be the same."""
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine.local.cells_xy, theirs.local.cells_xy)
    whole = [mine.global_descriptor @ theirs.global_descriptor for mine, theirs in zip(found, wanted, strict=True)]
    local = [
        np.sum(mine.local.descriptors * theirs.local.descriptors, axis=1)
        for mine, theirs in zip(found, wanted, strict=True)
    ]
    return float(min(whole)), float(np.concatenate(local).mean())


def test_auto_is_the_gpu_in_half_precision(tmp_path: Path):
    extractor = tiny_extractor(tmp_path, device="auto")
    assert (extractor.device.type, extractor.dtype, extractor.engine.name) == ("cuda", torch.float16, "torch")
    assert next(extractor.backbone.parameters()).is_cuda


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"global_kind": "cls", "min_attention": 0.05}, {"facet": "key", "centered": False, "max_keypoints": 7}],
    ids=["regional", "cls and T1", "key and cap"],
)
def test_features_in_full_precision_are_the_cpus(options: dict[str, object], count: int, tmp_path: Path):
    images = IMAGES[:count]
    wanted = tiny_extractor(tmp_path, **options).extract(images)
    on_gpu = tiny_extractor(tmp_path, device="cuda", precision="fp32", **options)
    with torch.inference_mode():
        found = on_gpu.features(on_gpu.engine.run(preprocess(images, 56).to(CUDA)))
    whole, local = cosines(found, wanted)
    assert whole > 0.999999
    assert local > 0.9999
    # Its own preprocessing differs by single grey levels.
    whole, local = cosines(on_gpu.extract(images), wanted)
    assert whole > 0.9999
    assert local > 0.99


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.9999), ("bf16", 0.999)])
def test_features_in_half_precision_are_near_the_cpus(precision: str, least: float, tmp_path: Path):
    found = tiny_extractor(tmp_path, device="cuda", precision=precision).extract(IMAGES)
    whole, local = cosines(found, tiny_extractor(tmp_path).extract(IMAGES))
    assert whole > least
    assert local > 0.98


def test_the_default_model_on_the_gpu_shares_maps_with_the_cpu(offline_extractor: FeatureExtractor):
    on_gpu = FeatureExtractor(ExtractorConfig(device="cuda"))
    assert on_gpu.fingerprint == offline_extractor.fingerprint
    agreement = verify(
        lambda pixels: on_gpu.engine.run(pixels.to(CUDA, on_gpu.dtype)),
        offline_extractor.engine.run,
        lambda output: offline_extractor._describe(_on_cpu(output)),
        scenes(),
        offline_extractor.config.image_size,
    )
    assert agreement.shares_maps, agreement
    assert agreement.worst > 0.9999, agreement


def _on_cpu(output: BackboneOutput) -> BackboneOutput:
    """A forward pass in float32 on the CPU."""
    blocks = {
        number: type(reading)(*(part.float().cpu() for part in reading)) for number, reading in output.blocks.items()
    }
    return output._replace(blocks=blocks)


@pytest.mark.parametrize("size_wh", [(640, 480), (1920, 1080), (100, 75)])
def test_preprocessing_is_the_cpus_to_a_grey_level(size_wh: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3)).astype(np.uint8)
    images = [picture(3, *size_wh), noise, IMAGES[0]]
    found = preprocess_on(CUDA, images, 322)
    assert found.is_cuda and found.dtype == torch.float32
    difference = (found.cpu() - preprocess(images, 322)).abs()
    assert difference.max() < 1.01 / (255 * 0.224)
    assert difference.mean() < 0.2 / (255 * 0.224)


def recorded_and_eager(folder: Path, **options: object) -> tuple[CapturedNetwork, FlatNetwork, FeatureExtractor]:
    extractor = tiny_extractor(folder, device="cuda", **options)
    network = FlatNetwork(extractor.backbone, extractor.requested_outputs)
    return CapturedNetwork(network, extractor.requested_outputs, partial(capture_cuda_graph, CUDA)), network, extractor


@torch.inference_mode()
def assert_replays(recorded: CapturedNetwork, network: FlatNetwork, seeds: Sequence[int]) -> None:
    """The recorded network gives what the network gives, for inputs that change, and keeps what it gave."""
    inputs = [torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    dtype = next(network.parameters()).dtype
    given = [pixels.to(CUDA, dtype) for pixels in inputs]
    found = [recorded(pixels) for pixels in given]
    for pixels, output in zip(given, found, strict=True):
        expected = recorded._requested.gather(network(pixels))
        for number, reading in expected.blocks.items():
            for mine, theirs in zip(output.blocks[number], reading, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
        if expected.cls is not None:
            torch.testing.assert_close(output.cls, expected.cls, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"global_kind": "cls"}, {"precision": "fp32"}], ids=["fp16", "cls", "fp32"])
def test_a_recorded_graph_gives_what_the_network_gives(options: dict[str, object], tmp_path: Path):
    recorded, network, _ = recorded_and_eager(tmp_path, **options)
    assert_replays(recorded, network, [0, 1, 2])
    with torch.inference_mode():
        batch = torch.randn(4, 3, 56, 56).to(CUDA, next(network.parameters()).dtype)
        assert len(next(iter(recorded(batch).blocks.values())).cls) == 4
    assert_replays(recorded, network, [3, 0])
    assert recorded._recording is not None


def raised_by(function: Callable[[], object]) -> BaseException | None:
    """What a function raises, if anything."""
    try:
        function()
    except BaseException as error:
        return error
    return None


def in_threads(*functions: Callable[[], object]) -> list[BaseException | None]:
    """Run at once, a thread each; what they raise."""
    with ThreadPoolExecutor(len(functions)) as threads:
        return list(threads.map(raised_by, functions))


def test_a_graph_is_replayed_from_another_thread_than_recorded_it(tmp_path: Path):
    recorded, network, _ = recorded_and_eager(tmp_path)
    assert in_threads(lambda: assert_replays(recorded, network, [0])) == [None]
    assert_replays(recorded, network, [1, 2])
    assert in_threads(lambda: assert_replays(recorded, network, [3])) == [None]


def test_many_threads_extract_at_once(tmp_path: Path):
    extractor = tiny_extractor(tmp_path, device="cuda")
    wanted = extractor.extract(IMAGES)

    def extract_all() -> None:
        for _ in range(20):
            found = [extractor.extract([image])[0] for image in IMAGES]
            whole, local = cosines(found, wanted)
            assert whole > 0.9999 and local > 0.98

    assert in_threads(*[extract_all] * 4) == [None] * 4


def test_a_graph_is_recorded_while_another_thread_uses_the_gpu(tmp_path: Path):
    _, network, extractor = recorded_and_eager(tmp_path)
    done = threading.Event()

    def copy() -> None:
        while not done.is_set():
            preprocess_on(CUDA, IMAGES, 322).cpu()

    def record() -> None:
        try:
            for _ in range(5):
                anew = CapturedNetwork(network, extractor.requested_outputs, partial(capture_cuda_graph, CUDA))
                assert_replays(anew, network, [0, 1])
        finally:
            done.set()

    assert in_threads(copy, record) == [None, None]


def test_memory_does_not_grow(tmp_path: Path):
    extractor = tiny_extractor(tmp_path, device="cuda", min_attention=0.001)
    sizes = [(96, 72), (640, 480), (100, 75)]

    def extract() -> int:
        for wh in sizes:
            extractor.extract([picture(0, *wh)])
            extractor.extract([picture(seed, *wh) for seed in range(4)])
        torch.cuda.synchronize()
        return torch.cuda.memory_reserved()

    extract()
    before = extract()
    held = torch.cuda.memory_allocated()
    for _ in range(200 // len(sizes)):
        after = extract()
    assert after == before
    assert torch.cuda.memory_allocated() == held


def test_several_readings_share_a_pass(tmp_path: Path):
    network = tiny_extractor(tmp_path, device="cuda", precision="fp32")
    readings = [network, network.reading(replace(network.config, facet="key", local_block=1))]
    for variant, reader in zip(extract_variants(readings, IMAGES), readings, strict=True):
        config = reader.config
        alone = tiny_extractor(tmp_path, facet=config.facet, local_block=config.local_block)
        whole, local = cosines(variant.features, alone.extract(IMAGES))
        assert whole > 0.9999 and local > 0.99


def test_the_doctor_names_the_gpu(capsys: pytest.CaptureFixture[str]):
    main(["doctor"])
    [line] = [line for line in capsys.readouterr().out.splitlines() if line[8:].startswith("gpu ")]
    assert line.startswith("ok ") and torch.cuda.get_device_name(0) in line


def test_compiled_pytorch_gives_what_pytorch_gives(tmp_path: Path):
    if what_is_missing("torch-compile"):
        pytest.skip(what_is_missing("torch-compile"))
    config = tiny_extractor(tmp_path, device="cuda").config
    compiled = FeatureExtractor(replace(config, engine="torch-compile"))
    assert compiled.engine.agreement.worst > 0.999
    wanted = tiny_extractor(tmp_path, device="cuda").extract(IMAGES)
    for images in (IMAGES, IMAGES[:1]):
        whole, local = cosines(compiled.extract(images), wanted[: len(images)])
        assert whole > 0.999 and local > 0.98


def test_tensorrt_gives_what_pytorch_gives_or_says_what_is_missing(tmp_path: Path):
    config = replace(tiny_extractor(tmp_path, device="cuda").config, engine="tensorrt")
    if what_is_missing("tensorrt"):
        with pytest.raises(EngineError, match="tensorrt not installed; run `pip install tensorrt"):
            FeatureExtractor(config)
        return
    found = FeatureExtractor(config).extract(IMAGES)
    whole, local = cosines(found, tiny_extractor(tmp_path, device="cuda").extract(IMAGES))
    assert whole > 0.999 and local > 0.98


def test_auto_chooses_an_engine_on_the_gpu(tmp_path: Path):
    config = replace(tiny_extractor(tmp_path, device="cuda").config, engine="auto")
    FeatureExtractor(config).choose_engine()
    extractor = FeatureExtractor(config)
    assert extractor.engine.name in ("torch", "tensorrt")
    assert extractor.device.type == "cuda"
    assert cosines(extractor.extract(IMAGES), tiny_extractor(tmp_path).extract(IMAGES))[0] > 0.999


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cuda:97.*there are \d+ GPUs"):
        tiny_extractor(tmp_path, device="cuda:97")
