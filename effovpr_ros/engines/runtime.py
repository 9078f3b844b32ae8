"""Opens the engine that a configuration names, verified against PyTorch on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from effovpr_ros.core.errors import ConfigError, EngineError
from effovpr_ros.core.memory import give_back_memory
from effovpr_ros.engines import catalogue
from effovpr_ros.engines.agreement import Agreement, require_agreement, scenes, verify
from effovpr_ros.engines.cache import (
    cache_root,
    content_digest,
    digest,
    keep_compiled_code,
    machine_name,
    read_record,
    write_record,
)
from effovpr_ros.engines.cuda_graphs import CapturedNetwork, capture_cuda_graph
from effovpr_ros.engines.graph import FlatNetwork, RequestedOutputs, ensure_graph, files_of, graph_key
from effovpr_ros.engines.model import FeatureHead, Model
from effovpr_ros.engines.networks import Network, Session, in_bf16, one_by_one
from effovpr_ros.engines.quantisation_images import QuantisationImages
from effovpr_ros.engines.selection import FIRST_ROUNDS, SURE, Choice, Trial, least_side_by_side
from effovpr_ros.features.preprocessing import preprocess

_logger = logging.getLogger(__name__)

MIN_MEAN_OF_AUTO = 0.9999
"""Least mean cosine of an engine that `auto` may choose: nobody loses accuracy without having asked."""

_BY_PYTORCH = (catalogue.TORCH, catalogue.TORCH_BF16, catalogue.TORCH_COMPILE)


@dataclass(frozen=True)
class RunningEngine:
    """An engine, ready.

    Attributes:
        name: of the engine, never auto.
        run: the network.
        agreement: with PyTorch; None where the engine is PyTorch.
        choice: that led to it; None where it was named, or where `auto` has not chosen yet.
    """

    name: str
    run: Network
    agreement: Agreement | None
    choice: Choice | None = None

    @property
    def keeps_accuracy(self) -> bool:
        """Whether its descriptors are so near to PyTorch's that nobody needs to have asked for it."""
        return self.agreement is None or self.agreement.mean >= MIN_MEAN_OF_AUTO


class Engines:
    """Engines of one network; sessions are opened once for all that read the same."""

    def __init__(self, model: Model, quantisation_images: QuantisationImages | None = None) -> None:
        """Prepare; nothing is exported yet.

        Args:
            model: that they run.
            quantisation_images: for an 8-bit engine.
        """
        self._model, self._quantisation_images = model, quantisation_images
        self._networks: dict[tuple[str, RequestedOutputs], Network] = {}
        self._contents: dict[tuple[str, RequestedOutputs], str] = {}

    def open(self, name: str, head: FeatureHead) -> RunningEngine:
        """An engine that is installed and agrees with PyTorch; for `auto` the one chosen before, else PyTorch.

        Raises:
            EngineError: it is not installed, cannot be made, or its descriptors are others.
        """
        if name == catalogue.AUTO:
            return self._open_chosen(head)
        catalogue.require(name)
        run = self._network(name, head.requested)
        if name == catalogue.TORCH:
            return RunningEngine(name, run, None)
        agreement = self._agreement(name, run, head)
        if name == catalogue.OPENVINO_INT8 and not agreement.shares_maps:
            # More images may be there next time.
            self._quantised(head.requested).unlink()
            self._agreement_record(name, head).unlink()
        require_agreement(name, agreement)
        _logger.info("engine %s: %s", name, agreement)
        return RunningEngine(name, run, agreement)

    def forget(self, name: str, head: FeatureHead) -> None:
        """Give up an engine that another one has taken over from, with PyTorch's weights."""
        self._networks.pop((name, head.requested), None)
        self._model.load.release()
        give_back_memory()

    def may_choose(self) -> bool:
        """Whether `auto` has more than PyTorch to choose from."""
        return len(catalogue.automatic(self._device.type)) > 1

    def choose(self, head: FeatureHead, on_faster: Callable[[str], object] = lambda name: None) -> Choice:
        """Measure which engine is the fastest on this machine of those that keep PyTorch's descriptors, and keep it.

        The likeliest is tried first; where it is twice as fast as PyTorch, the others are not tried.

        Args:
            head: what is read of the network.
            on_faster: called once with the first engine that is faster than PyTorch, while others are still tried.

        Raises:
            EngineError: the cache is not usable.
        """
        started = time.monotonic()
        present = catalogue.automatic(self._device.type)
        trials = self._try(present, head, on_faster)
        choice = Choice.of(trials, present, time.monotonic() - started)
        write_record(self._choice_record(present, head), {**vars(choice), "machine": machine_name()})
        return choice

    def another(self, name: str, requested: RequestedOutputs) -> Network:
        """The network for another reading than the one that was opened; of PyTorch, which needs no verification.

        Raises:
            ConfigError: another engine.
        """
        if name != catalogue.TORCH:
            raise ConfigError(f"engine {name} was not opened for {requested}; use engine torch")
        return self._network(name, requested)

    def _open_chosen(self, head: FeatureHead) -> RunningEngine:
        """The engine that was chosen here before; PyTorch where none was, or where it cannot be opened any more."""
        try:
            present = catalogue.automatic(self._device.type)
            record = self._choice_record(present, head)
            choice = Choice.from_record(read_record(record))
            if choice is not None and choice.engine in present:
                _logger.info("engine auto: %s", choice)
                return replace(self.open(choice.engine, head), choice=choice)
        except EngineError as error:
            _logger.warning("engine auto: PyTorch runs the network: %s", error)
        return self.open(catalogue.TORCH, head)

    def _choice_record(self, present: Sequence[str], head: FeatureHead) -> Path:
        versions = [catalogue.versions(name) for name in present]
        return self._folder(head.requested) / f"auto-{digest(machine_name(), versions, head.fingerprint)}.json"

    def _try(self, names: Sequence[str], head: FeatureHead, on_faster: Callable[[str], object]) -> list[Trial]:
        opened: list[RunningEngine] = []
        refused: list[Trial] = []
        pixels = preprocess(scenes()[:1], self._model.image_size)

        def once(engine: RunningEngine) -> Callable[[], object]:
            # The copy to the CPU ends the work of a GPU.
            return lambda: head.describe(engine.run(self._placed(pixels))).facets.cpu()

        # After PyTorch the one first that most machines choose.
        for name in (names[0], *reversed(names[1:])):
            try:
                engine = self.open(name, head)
            except EngineError as error:
                refused.append(Trial(name, None, str(error)))
                _logger.warning("engine auto leaves %s out: %s", name, error)
                continue
            if engine.agreement is not None and not engine.keeps_accuracy:
                refused.append(Trial(name, None, f"mean cosine {engine.agreement.mean:.6f} < {MIN_MEAN_OF_AUTO}"))
                continue
            opened.append(engine)
            if len(opened) == 2:
                with torch.inference_mode():
                    times_ms = least_side_by_side([once(item) for item in opened], FIRST_ROUNDS)
                if times_ms[1] < times_ms[0]:
                    on_faster(name)
                if name == names[-1] and SURE * times_ms[1] < times_ms[0]:
                    break
        else:
            opened.sort(key=lambda engine: names.index(engine.name))
            with torch.inference_mode():
                times_ms = least_side_by_side([once(engine) for engine in opened])
        return [Trial(engine.name, ms, "") for engine, ms in zip(opened, times_ms, strict=True)] + refused

    def _agreement(self, name: str, run: Network, head: FeatureHead) -> Agreement:
        record = self._agreement_record(name, head)
        recorded = read_record(record)
        known = Agreement.from_record(recorded.get("agreement")) if recorded is not None else None
        if known is not None:
            return known
        backbone, requested = self._model.load(), head.requested
        # 8 bits hold what they were calibrated for, so they are judged on images of that kind.
        images = self._required_images().checking() if name == catalogue.OPENVINO_INT8 else scenes()
        agreement = verify(
            lambda pixels: run(self._placed(pixels)),
            lambda pixels: backbone(self._placed(pixels), requested.blocks, to_the_end=requested.to_the_end),
            head.describe,
            images,
            self._model.image_size,
        )
        write_record(record, {"engine": name, "agreement": agreement.to_dict(), "machine": machine_name()})
        return agreement

    def _agreement_record(self, name: str, head: FeatureHead) -> Path:
        images_name = self._required_images().name if name == catalogue.OPENVINO_INT8 else ""
        # What was compared is what is loaded: files of the cache that changed since are compared again.
        content = self._contents.get((name, head.requested), "")
        conditions = digest(machine_name(), catalogue.versions(name), head.fingerprint, images_name, content)
        return self._folder(head.requested) / f"{name}-{conditions}.json"

    def _quantised(self, requested: RequestedOutputs) -> Path:
        name = catalogue.OPENVINO_INT8
        return self._folder(requested) / f"int8-{digest(self._required_images().name, catalogue.versions(name))}.xml"

    def _network(self, name: str, requested: RequestedOutputs) -> Network:
        if (name, requested) not in self._networks:
            self._networks[name, requested] = self._make(name, requested)
        return self._networks[name, requested]

    def _make(self, name: str, requested: RequestedOutputs) -> Network:
        if name not in _BY_PYTORCH:
            return one_by_one(self._session(name, requested), requested)
        backbone = self._model.load()
        if name == catalogue.TORCH:
            if self._device.type == "cuda":
                return CapturedNetwork(
                    FlatNetwork(backbone, requested), requested, partial(capture_cuda_graph, self._device)
                )
            return lambda pixels: backbone(pixels, requested.blocks, to_the_end=requested.to_the_end)
        if name == catalogue.TORCH_BF16:
            return in_bf16(FlatNetwork(backbone, requested), requested)
        keep_compiled_code()
        compiled = torch.compile(FlatNetwork(backbone, requested))
        return lambda pixels: requested.gather(compiled(pixels))

    def _session(self, name: str, requested: RequestedOutputs) -> Session:
        graph = ensure_graph(self._folder(requested), self._model.load, requested)
        if name == catalogue.TENSORRT:
            from effovpr_ros.engines.tensorrt_runtime import TensorRtSession, ensure_plan

            plan = self._folder(requested) / f"{digest(machine_name(), catalogue.versions(name))}.plan"
            ensure_plan(graph, plan)
            self._contents[name, requested] = content_digest([plan])
            return TensorRtSession(plan)
        source, precision = (graph, "") if name == catalogue.ONNXRUNTIME else self._for_openvino(name, requested, graph)
        self._contents[name, requested] = content_digest(files_of(source))
        if name == catalogue.ONNXRUNTIME:
            from effovpr_ros.engines.onnx_runtime import OnnxRuntimeSession

            return OnnxRuntimeSession(source)
        from effovpr_ros.engines.openvino_runtime import OpenVinoSession

        return OpenVinoSession(source, precision)

    def _for_openvino(self, name: str, requested: RequestedOutputs, graph: Path) -> tuple[Path, str]:
        """The file that OpenVINO loads, made where it is missing, and the precision that it computes in."""
        from effovpr_ros.engines.openvino_runtime import bind_to_f32, quantise

        if name == catalogue.OPENVINO_INT8:
            quantised = self._quantised(requested)
            if not quantised.is_file():
                quantise(graph, quantised, self._required_images(), self._model.image_size)
            bf16 = not catalogue.what_is_missing(catalogue.OPENVINO_BF16)
            return quantised, "bf16" if bf16 else "f32"
        if name == catalogue.OPENVINO_BF16:
            bound = self._folder(requested) / f"bf16-{digest(catalogue.versions(name))}.xml"
            if not bound.is_file():
                bind_to_f32(graph, bound)
            return bound, "bf16"
        return graph, "f32"

    def _required_images(self) -> QuantisationImages:
        if self._quantisation_images is None:
            raise EngineError(
                f"engine {catalogue.OPENVINO_INT8} needs images to be quantised with: a map's own are used where a map "
                "is opened or built; in Python give FeatureExtractor a QuantisationImages"
            )
        return self._quantisation_images

    def _folder(self, requested: RequestedOutputs) -> Path:
        model = self._model
        key = graph_key(model.architecture, model.weights_sha256, model.tail_sha256, model.image_size, requested)
        return cache_root() / key

    @property
    def _device(self) -> torch.device:
        return self._model.device

    def _placed(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._model.device, self._model.dtype)
