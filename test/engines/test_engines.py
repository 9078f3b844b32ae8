"""Engines: what they give is PyTorch's, or they are refused; what is exported and measured is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import new_place, picture, tiny_extractor, tiny_weights
from torch import Tensor

from effovpr_ros.core.errors import ConfigError, EngineError, ImageError
from effovpr_ros.engines import agreement, catalogue, graph, runtime
from effovpr_ros.engines.agreement import Agreement, DenseFeatures, compare, scenes
from effovpr_ros.engines.catalogue import ENGINES, what_is_missing
from effovpr_ros.engines.cuda_graphs import CapturedNetwork, Recording
from effovpr_ros.engines.graph import RequestedOutputs
from effovpr_ros.engines.openvino_runtime import OpenVinoSession
from effovpr_ros.engines.quantisation_images import MAX_IMAGES, QuantisationImages, readable
from effovpr_ros.engines.runtime import RunningEngine
from effovpr_ros.engines.selection import Trial, fastest, kept_choices, times_side_by_side
from effovpr_ros.features import engine_takeover
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.preprocessing import preprocess, preprocess_on
from effovpr_ros.features.variants import extract_variants
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.rig_query import RigPicture

GRAPH_ENGINES = ("torch-bf16", "onnxruntime", "openvino-fp32", "openvino-bf16")
CALIBRATION = QuantisationImages("pictures", lambda: [picture(seed) for seed in range(32)])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "effovpr_ros" / "engines"


@pytest.fixture
def tiny_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that finds an engine knows the tiny network."""
    monkeypatch.setattr(engine_takeover, "_PROGRAM", "tiny_takeover")
    tests = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))


def needs(name: str) -> str:
    missing = what_is_missing(name)
    if missing:
        pytest.skip(f"engine {name}: {missing}")
    return name


def with_engine(
    folder: Path, name: str, quantisation_images: QuantisationImages | None = None, **options: object
) -> FeatureExtractor:
    torch_config = tiny_extractor(folder, **options).config
    return FeatureExtractor(replace(torch_config, engine=name), quantisation_images)


@pytest.mark.parametrize("name", GRAPH_ENGINES)
@pytest.mark.parametrize(
    "options",
    [{}, {"global_kind": "cls", "min_attention": 0.05}, {"facet": "key", "centered": False, "max_keypoints": 7}],
    ids=["regional", "cls and T1", "key and cap"],
)
def test_an_engine_gives_what_pytorch_gives(name: str, options: dict[str, object], tmp_path: Path):
    images = [picture(seed) for seed in range(3)]
    expected = tiny_extractor(tmp_path, **options).extract(images)
    extractor = with_engine(tmp_path, needs(name), **options)
    assert extractor.engine.name == name
    least = 0.999 if name.endswith("bf16") else 0.999999
    for found, wanted in zip(extractor.extract(images), expected, strict=True):
        assert found.global_descriptor @ wanted.global_descriptor > least
        if not name.endswith("bf16"):
            # bf16 may move a patch across T1.
            np.testing.assert_array_equal(found.local.cells_xy, wanted.local.cells_xy)
            assert np.mean(np.sum(found.local.descriptors * wanted.local.descriptors, axis=1)) > 0.999


def test_bf16_for_the_products_alone_is_nearer_to_f32(tmp_path: Path):
    with_engine(tmp_path, needs("openvino-bf16"))
    [path] = (tmp_path / "cache").rglob("network.onnx")
    [bound] = (tmp_path / "cache").rglob("bf16-*.xml")
    sessions = [OpenVinoSession(path, "f32"), OpenVinoSession(path, "bf16"), OpenVinoSession(bound, "bf16")]
    errors = np.zeros(2)
    for seed in range(8):
        exact, *others = (session(preprocess([picture(seed)], 56)) for session in sessions)
        errors += [
            sum(float((found - wanted).square().sum()) for found, wanted in zip(other, exact, strict=True))
            for other in others
        ]
    assert 0.0 < errors[1] < 0.95 * errors[0]


def test_the_graph_ends_where_the_features_are_read(tmp_path: Path):
    import onnx

    with_engine(tmp_path, needs("onnxruntime"))
    [early] = (tmp_path / "cache").rglob("network.onnx")
    products = sum(node.op_type in ("MatMul", "Gemm") for node in onnx.load(early).graph.node)
    # Two blocks of 6 products (qkv, two of attention, proj, two of the MLP), and q, k and v of the third.
    assert products == 2 * 6 + 1


def test_a_network_is_exported_and_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path):
    name = needs("onnxruntime")
    first = with_engine(tmp_path, name)
    assert not list(own_cache.rglob("partial*"))

    def not_again(*_: object) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(graph, "_export", not_again)
    monkeypatch.setattr(runtime, "verify", not_again)
    again = with_engine(tmp_path, name)
    assert again.engine.agreement == first.engine.agreement
    with pytest.raises(AssertionError, match="done before"):
        with_engine(tmp_path, name, local_block=1)


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="XDG_CACHE_HOME"):
        with_engine(tmp_path, needs("onnxruntime"))


def test_an_engine_with_other_descriptors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = needs("onnxruntime")
    make = runtime.Engines._session

    def noisy(self: runtime.Engines, name: str, wanted: RequestedOutputs) -> runtime.Session:
        session = make(self, name, wanted)

        def run(pixels: Tensor) -> Sequence[Tensor]:
            generator = torch.Generator().manual_seed(0)
            return [out + 0.3 * out.std() * torch.randn(out.shape, generator=generator) for out in session(pixels)]

        return run

    monkeypatch.setattr(runtime.Engines, "_session", noisy)
    with pytest.raises(EngineError, match=r"refused for every map.*cosine 0\.9\d+ .*required are 0\.999"):
        with_engine(tmp_path, name)
    # What was measured is remembered, a refusal too.
    monkeypatch.setattr(runtime, "verify", lambda *_: pytest.fail("measured twice"))
    with pytest.raises(EngineError, match="refused for every map"):
        with_engine(tmp_path, name)


def test_auto_is_pytorch_until_it_has_chosen_and_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
):
    candidates = ["torch", "onnxruntime", "openvino-fp32"]
    for name in candidates:
        needs(name)
    faked = {"torch": 5.0, "onnxruntime": 4.0, "openvino-fp32": 3.0}
    timed: list[int] = []

    def times(functions: Sequence[object], rounds: int = 7) -> list[float]:
        timed.append(len(functions))
        # The first two are PyTorch and the last of the list.
        return [faked[name] for name in (candidates if len(functions) > 2 else candidates[::2])]

    monkeypatch.setattr(catalogue, "automatic", lambda device: candidates)
    monkeypatch.setattr(runtime, "least_side_by_side", times)
    undecided = with_engine(tmp_path, "auto")
    assert undecided.engine_state == {"engine": "torch", "engine_choice": "not measured"}
    assert undecided.choose_engine().engine == "openvino-fp32"
    chosen = with_engine(tmp_path, "auto")
    assert chosen.engine.name == "openvino-fp32"
    assert "openvino-fp32 is the fastest of torch 5.0 ms; onnxruntime 4.0 ms" in chosen.engine_state["engine_choice"]
    assert [(network, choice.engine) for network, choice in kept_choices()] == [
        ("vit_tiny_test_patch14-56", "openvino-fp32")
    ]
    # PyTorch and the first of the others, then all.
    assert timed == [2, 3]
    # Another reading, or a damaged record, is chosen for anew; and PyTorch may win.
    [record] = own_cache.rglob("auto-*.json")
    record.write_text("{")
    assert with_engine(tmp_path, "auto").engine.choice is None
    faked["torch"] = 1.0
    assert undecided.choose_engine().engine == "torch"
    assert with_engine(tmp_path, "auto").engine.choice is not None
    # Twice as fast is enough, and one more try would be too much.
    faked["torch"], timed[:] = 6.1, []
    choice = undecided.choose_engine()
    assert (choice.engine, timed) == ("openvino-fp32", [2])
    assert str(choice).startswith(
        "openvino-fp32 is the fastest of torch 6.1 ms; openvino-fp32 3.0 ms; not tried, since it is 2 times as fast as "
        "PyTorch at least: onnxruntime; found in "
    )
    assert with_engine(tmp_path, "auto", local_block=1).engine.choice is None


def test_auto_leaves_out_what_is_inaccurate_or_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    for name in ("onnxruntime", "openvino-fp32"):
        needs(name)
    make, real = runtime.Engines._make, runtime.verify

    def failing(self: runtime.Engines, name: str, wanted: RequestedOutputs) -> runtime.Network:
        if name == "onnxruntime":
            raise EngineError("ONNX Runtime refuses this")
        return make(self, name, wanted)

    monkeypatch.setattr(runtime.Engines, "_make", failing)
    # Good enough for a map, and not for whoever asked for nothing.
    monkeypatch.setattr(runtime, "verify", lambda *given: replace(real(*given), mean=0.9995))
    monkeypatch.setattr(runtime, "least_side_by_side", lambda functions, _=7: [7.0] * len(functions))
    assert with_engine(tmp_path, "torch").choose_engine().engine == "torch"
    assert "leaves onnxruntime out: ONNX Runtime refuses this" in caplog.text


@pytest.mark.usefixtures("tiny_takeover")
def test_a_cache_that_is_of_no_use_leaves_auto_with_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    extractor = with_engine(tmp_path, "auto")
    assert extractor.engine.name == "torch"
    assert "PyTorch runs the network" in caplog.text and "XDG_CACHE_HOME" in caplog.text
    extractor.seek_faster_engine()
    extractor._takeover.wait()
    assert "XDG_CACHE_HOME" in extractor.engine_state["engine_choice"]
    assert extractor.extract([picture(0)])[0].grid_wh == (4, 4)


@pytest.mark.usefixtures("tiny_takeover")
def test_a_faster_engine_takes_over_between_two_images(tmp_path: Path):
    if len(catalogue.automatic("cpu")) < 2:
        pytest.skip("PyTorch is all there is")
    extractor = with_engine(tmp_path, "auto")
    images = [picture(seed) for seed in range(3)]
    before = extractor.extract(images)
    extractor.seek_faster_engine(20)
    assert extractor._takeover is None  # too few images to come
    extractor.seek_faster_engine()
    assert extractor.engine_state["engine"] == "torch"
    assert "the fastest is being found for" in extractor.engine_state["engine_choice"]
    takeover = extractor._takeover
    extractor.seek_faster_engine()
    assert extractor._takeover is takeover  # is sought once
    takeover.wait()
    # It is ready, and waits for the next image.
    assert extractor.engine.choice is None
    after = extractor.extract(images)
    assert extractor.engine.choice is not None
    assert f"{extractor.engine.name} is the fastest of torch " in extractor.engine_state["engine_choice"]
    for one, other in zip(before, after, strict=True):
        assert one.global_descriptor @ other.global_descriptor > 0.9999
    # The next start opens it at once, and seeks nothing.
    again = with_engine(tmp_path, "auto")
    assert again.engine.name == extractor.engine.name
    again.seek_faster_engine()
    assert again._takeover is None


def test_the_first_faster_engine_is_said_before_others_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    present = catalogue.automatic("cpu")
    if len(present) < 3:
        pytest.skip("two engines besides PyTorch are needed")
    happened: list[str] = []
    real = runtime.Engines.open

    def opened(engines: runtime.Engines, name: str, head: object) -> object:
        happened.append(f"open {name}")
        return real(engines, name, head)  # type: ignore[arg-type]

    extractor = with_engine(tmp_path, "torch")
    monkeypatch.setattr(runtime.Engines, "open", opened)
    # PyTorch is the slowest, and the last of the list, which is tried first, the fastest.
    monkeypatch.setattr(runtime, "least_side_by_side", lambda functions, _=7: [9.0 - n for n in range(len(functions))])
    choice = extractor.choose_engine(lambda name: happened.append(f"faster {name}"))
    first, *others = present[:0:-1]
    assert happened == ["open torch", f"open {first}", f"faster {first}", *(f"open {name}" for name in others)]
    assert choice.engine == first


@pytest.mark.usefixtures("tiny_takeover")
def test_an_engine_that_is_said_to_be_faster_takes_over_at_once(tmp_path: Path):
    if len(catalogue.automatic("cpu")) < 2:
        pytest.skip("PyTorch is all there is")
    opened: list[str] = []

    def open_engine(name: str) -> RunningEngine:
        opened.append(name)
        return RunningEngine(name, lambda pixels: None, None)  # type: ignore[arg-type, return-value]

    takeover = engine_takeover.EngineTakeover(with_engine(tmp_path, "auto").config, open_engine)
    takeover.wait()
    # The one that was said to be faster, if one was, and then whatever was chosen.
    assert opened[-1] == "auto" and len(opened) <= 2 and "auto" not in opened[:-1]
    assert takeover.state == "found"
    found = takeover.take()
    assert found is not None and found.name == "auto"
    assert takeover.take() is None


@pytest.mark.usefixtures("tiny_takeover")
def test_the_search_ends_with_whoever_began_it(tmp_path: Path):
    if len(catalogue.automatic("cpu")) < 2:
        pytest.skip("PyTorch is all there is")
    extractor = with_engine(tmp_path, "auto")
    extractor.seek_faster_engine()
    process = extractor._takeover._process
    # As the kernel does when a process dies, however it dies.
    process.stdin.close()
    assert process.wait(60) == 1
    assert extractor.extract([picture(0)])[0].grid_wh == (4, 4)
    other = with_engine(tmp_path, "auto")
    other.seek_faster_engine()
    other.close()
    other._takeover.wait()
    assert other.engine.name == "torch"


def test_a_named_engine_or_precision_is_what_runs(tmp_path: Path):
    for config in ({"engine": "torch"}, {"engine": "auto", "precision": "fp32"}):
        extractor = tiny_extractor(tmp_path, **config)
        extractor.seek_faster_engine()
        assert (extractor.engine.name, extractor._takeover) == ("torch", None)
    assert tiny_extractor(tmp_path).engine_state == {"engine": "torch", "engine_choice": "named"}


def test_int8_is_calibrated_with_the_given_images_once(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    name = needs("openvino-int8")
    import openvino

    with pytest.raises(EngineError, match="needs images to be quantised with"):
        with_engine(tmp_path, name)
    with pytest.raises(EngineError, match="no image of nothing"):
        with_engine(tmp_path, name, QuantisationImages("nothing", list))
    monkeypatch.setattr(agreement, "MIN_MEAN", 1.0)
    with pytest.raises(EngineError, match="refused for every map"):
        with_engine(tmp_path, name, CALIBRATION)
    # Nothing stays of what was refused, so that other images may do better.
    assert not list(own_cache.rglob("*int8*.xml")) + list(own_cache.rglob("*int8*.json"))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    extractor = with_engine(tmp_path, name, CALIBRATION)
    [quantised] = own_cache.rglob("int8-*.xml")
    model = openvino.Core().read_model(str(quantised))
    weights = {
        operation.get_friendly_name(): "int8" in str(_constant(operation).get_element_type())
        for operation in model.get_ordered_ops()
        if operation.get_type_name() == "MatMul" and _constant(operation) is not None
    }
    # Of 9 products with weights (two blocks of 4, and q, k and v of the third) five widen, of which the first three.
    assert list(weights.values()) == [True, False, True, False, True, False, False, False, False]
    assert 0.99 < extractor.engine.agreement.mean < 1.0
    unread = QuantisationImages("pictures", lambda: pytest.fail("calibrated before"))
    with_engine(tmp_path, name, unread).extract([picture(0)])
    # Another way to quantise reuses nothing.
    monkeypatch.setitem(ENGINES, name, replace(ENGINES[name], revision=ENGINES[name].revision + 1))
    with pytest.raises(pytest.fail.Exception, match="calibrated before"):
        with_engine(tmp_path, name, unread)


def _constant(operation: object) -> object:
    """The constant that a product's second factor is made of."""
    node = operation.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        if node.get_input_size() == 0 or node.get_type_name() in ("Softmax", "Parameter", "Add"):
            return None
        node = node.input_value(0).get_node()
    return node


def test_compiled_pytorch_equals_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The compiler itself takes half a minute; that its input is right shows without it.
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    monkeypatch.setattr(catalogue.shutil, "which", lambda _: "/usr/bin/c++")
    found = with_engine(tmp_path, "torch-compile").extract([picture(0), picture(1)])
    assert len(compiled) == 1
    for mine, theirs in zip(found, tiny_extractor(tmp_path).extract([picture(0), picture(1)]), strict=True):
        np.testing.assert_allclose(mine.global_descriptor, theirs.global_descriptor, atol=1e-6)


def test_an_engine_that_is_not_installed_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"pip install onnxruntime onnx onnxscript"):
        with_engine(tmp_path, "onnxruntime")
    with pytest.raises(EngineError, match=r"pip install openvino nncf onnx onnxscript"):
        with_engine(tmp_path, "openvino-int8", CALIBRATION)
    # Nothing else is here, so there is nothing to measure either.
    monkeypatch.setattr(runtime, "verify", lambda *_: pytest.fail("nothing to verify"))
    assert with_engine(tmp_path, "auto").engine.name == "torch"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "tensor-rt"}, "engine 'tensor-rt' is unknown; use one of torch,"),
        ({"engine": "openvino-bf16", "precision": "bf16"}, "precision of its own"),
        ({"engine": "onnxruntime", "device": "cuda"}, "runs on cpu, not on cuda"),
        ({"engine": "tensorrt", "device": "cpu"}, "runs on cuda, not on cpu"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, str], reason: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=reason):
        tiny_extractor(tmp_path, **options)


def test_variants_share_passes_where_their_engine_allows(tmp_path: Path):
    config = with_engine(tmp_path, needs("onnxruntime"), local_block=-2).config
    network = FeatureExtractor(config)
    readings = [network, network.reading(replace(config, facet="key")), network.reading(replace(config, local_block=1))]
    images = [picture(0), picture(1)]
    for variant, reader in zip(extract_variants(readings, images), readings, strict=True):
        expected = tiny_extractor(tmp_path, facet=reader.config.facet, local_block=reader.config.local_block)
        for found, wanted in zip(variant.features, expected.extract(images), strict=True):
            assert found.global_descriptor @ wanted.global_descriptor > 0.999999
    with pytest.raises(ConfigError, match="use engine torch"):
        network.run(images, readings[2].requested_outputs)


def test_agreement_worked_by_hand():
    # Global descriptors at 0 and 60 degrees; local ones: three patches alike, one opposite.
    wanted = DenseFeatures(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[[1.0, 0.0]] * 2, [[0.0, 2.0]] * 2]))
    found = DenseFeatures(
        torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]]), torch.tensor([[[3.0, 0.0]] * 2, [[0.0, 1.0], [0.0, -1.0]]])
    )
    agreement = compare(found, wanted)
    assert agreement.mean == pytest.approx(0.75)
    assert agreement.worst == pytest.approx(0.5)
    assert (agreement.local_mean, agreement.local_worst) == (0.5, -1.0)


@pytest.mark.parametrize(
    ("cosines", "shares"),
    [
        ((0.999, 0.99, 0.99, 0.2), True),
        ((0.9989, 0.995, 1.0, 1.0), False),
        ((0.9999, 0.989, 1.0, 1.0), False),
        ((1.0, 1.0, 0.989, 0.9), False),
        ((float("nan"), 1.0, 1.0, 1.0), False),
    ],
)
def test_which_agreement_lets_engines_share_a_map(cosines: tuple[float, float, float, float], shares: bool):
    assert Agreement(*cosines).shares_maps is shares


def test_scenes_are_the_same_each_time_and_unlike_each_other():
    first, second = scenes(), scenes()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    flat = np.stack([scene.ravel() for scene in first]).astype(float)
    assert np.corrcoef(flat)[~np.eye(len(flat), dtype=bool)].max() < 0.5
    assert min(scene.std() for scene in first) > 20.0


def test_timing_and_choice_worked_by_hand():
    # Two functions; the warm-up is not timed, then two seconds and one second in turn.
    ticks = iter([0.0, 2.0, 10.0, 11.0, 20.0, 22.0, 30.0, 31.0])
    calls: list[str] = []
    functions = [lambda: calls.append("a"), lambda: calls.append("b")]
    assert times_side_by_side(functions, rounds=2, clock=lambda: next(ticks)) == [[2000.0, 2000.0], [1000.0, 1000.0]]
    assert "".join(calls) == "ab" + "abab"
    trials = [Trial("x", 3.0, ""), Trial("y", 2.0, ""), Trial("z", None, "broken"), Trial("w", 2.0, "")]
    assert fastest(trials).name == "y"


def test_a_recorded_network_replays_for_one_image_and_runs_for_batches():
    wanted = RequestedOutputs(frozenset(), to_the_end=True)
    ran: list[int] = []
    recorded: list[list[Tensor]] = []

    def network(pixels: Tensor) -> tuple[Tensor]:
        ran.append(len(pixels))
        return (pixels.sum(dim=(1, 2, 3))[:, None],)

    def capture(function: object) -> Recording:
        outputs = [output.clone() for output in function()]
        recorded.append(outputs)

        def replay() -> None:
            for held, output in zip(outputs, function(), strict=True):
                held.copy_(output)

        return Recording(replay, outputs)

    run = CapturedNetwork(network, wanted, capture)
    first = run(torch.ones(1, 3, 2, 2)).cls
    second = run(2 * torch.ones(1, 3, 2, 2)).cls
    # The first answer is still its own after the second replay.
    assert (first.item(), second.item()) == (12.0, 24.0)
    assert len(recorded) == 1
    assert run(torch.ones(4, 3, 2, 2)).cls.shape == (4, 1)
    assert ran[-1] == 4


@pytest.mark.parametrize("size_wh", [(640, 480), (1920, 1080), (100, 75)])
def test_preprocessing_is_pillows_but_for_rounding(size_wh: tuple[int, int]):
    images = [picture(3, *size_wh), np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3)).astype(np.uint8)]
    images[0].flags.writeable = False
    resized = [Image.fromarray(image).resize((322, 322), Image.Resampling.BILINEAR) for image in images]
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]) * 255.0
    expected = torch.from_numpy((np.stack(resized) - mean) / std).permute(0, 3, 1, 2)
    on_bytes = preprocess(images, 322)
    on_device = preprocess_on(torch.device("cpu"), images, 322)
    assert on_bytes.is_contiguous()
    grey_level = 1 / (255 * 0.224)
    for found, share in ((on_bytes, 0.01), (on_device, 0.25)):
        difference = (found - expected).abs()
        assert difference.max() < 1.01 * grey_level
        assert (difference > 0.5 * grey_level).double().mean() < share
    with pytest.raises(ImageError, match="must be uint8"):
        preprocess_on(torch.device("cpu"), [images[0].astype(np.float32)], 322)


def test_calibration_images_are_spread_and_readable():
    def broken() -> np.ndarray:
        raise ImageError("unreadable")

    read: list[int] = []

    def loader(number: int):
        return lambda: read.append(number) or picture(number)

    assert len(readable([loader(0), broken, loader(2)], 3)) == 2
    read.clear()
    assert len(readable([loader(number) for number in range(200)], 200)) == MAX_IMAGES
    assert read[:3] == [0, 4, 7]
    assert read[-1] == 197


def test_images_that_calibrate_do_not_verify():
    images = [picture(number) for number in range(60)]
    quantisation_images = QuantisationImages("x", lambda: images)
    calibrating, verifying = quantisation_images.quantising(), quantisation_images.checking()
    # 30 others, every third.
    assert (len(calibrating), len(verifying)) == (30, 10)
    assert verifying[1] is images[7]
    assert not {id(image) for image in calibrating} & {id(image) for image in verifying}
    assert QuantisationImages("x", lambda: images[:1]).checking() == images[:1]


def test_weights_of_another_network_have_a_graph_of_their_own(tmp_path: Path, own_cache: Path):
    name = needs("onnxruntime")
    with_engine(tmp_path, name)
    other = tmp_path / "other"
    other.mkdir()
    state = {key: 1.1 * value for key, value in _load(tiny_weights(other)).items()}
    _save(state, other / "vit_tiny_test_patch14.safetensors")
    config = ExtractorConfig(
        model="vit_tiny_test_patch14",
        weights=str(other / "vit_tiny_test_patch14.safetensors"),
        image_size=56,
        local_block=-2,
        device="cpu",
        engine=name,
    )
    found = FeatureExtractor(config).extract([picture(0)])[0].global_descriptor
    wanted = FeatureExtractor(replace(config, engine="torch")).extract([picture(0)])[0].global_descriptor
    assert found @ wanted > 0.999999
    assert len(list(own_cache.rglob("network.onnx"))) == 2


def _load(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _save(state: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, path)


def test_the_node_uses_the_engine_of_its_parameter(tmp_path: Path):
    recognition_engine = pytest.importorskip("effovpr_ros.nodes.recognition_engine", reason="needs rclpy")
    parameters = pytest.importorskip("effovpr_ros.nodes.parameters", reason="needs rclpy")
    name = needs("onnxruntime")
    extractor = tiny_extractor(tmp_path)
    with PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint) as place_map:
        place_map.add([new_place(n, features=extractor.extract([picture(n)])[0]) for n in range(3)])
    settings = parameters.CameraNodeConfig(weights=str(tmp_path / "vit_tiny_test_patch14.safetensors"), engine=name)
    engine = recognition_engine.RecognitionEngine(settings, RecognizerConfig())
    engine.load_map(str(tmp_path / "map"))
    try:
        answer, _, _ = engine.recognize([RigPicture(picture(1))], None)
        assert engine.device == "cpu, onnxruntime"
        assert answer.recognition.candidates[0].place.place_id == 1
    finally:
        engine.close()
