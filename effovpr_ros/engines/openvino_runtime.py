"""OpenVINO: fp32, bf16, and int8 by NNCF's post-training quantisation."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from effovpr_ros.core.errors import EngineError
from effovpr_ros.core.telemetry import keep_openvino_quiet
from effovpr_ros.engines.quantisation_images import QuantisationImages
from effovpr_ros.features.preprocessing import preprocess

_logger = logging.getLogger(__name__)

_BETWEEN_PRODUCTS = ("MVN", "Multiply", "Add", "Gelu", "Convolution")
"""What a bf16 network computes in f32 all the same: norms, residuals, activations, and the patch embedding."""


class OpenVinoSession:
    """A compiled network; one call at a time."""

    def __init__(self, graph: Path, precision: str) -> None:
        """Compile for lowest latency on as many threads as torch may use.

        Args:
            graph: ONNX or OpenVINO's own format.
            precision: that OpenVINO computes in where the graph leaves it open: f32 or bf16.

        Raises:
            EngineError: OpenVINO refuses the graph.
        """
        keep_openvino_quiet()
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            compiled = openvino.Core().compile_model(str(graph), "CPU", settings)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO {openvino.__version__} refuses {graph}: {str(error)[:300]}") from error
        self._request = compiled.create_infer_request()
        self._num_outputs = len(compiled.outputs)
        self._lock = threading.Lock()

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(1, 3, S, S) float32 on the CPU to the graph's outputs, float32."""
        with self._lock:
            results = self._request.infer([pixels.numpy()], share_inputs=True, share_outputs=True)
            # The next call writes to the same memory.
            return [torch.from_numpy(np.array(results[number])) for number in range(self._num_outputs)]


def bind_to_f32(graph: Path, target: Path) -> None:
    """Write a version of a graph in which all but the products of the blocks is computed in f32, whatever the hint.

    OpenVINO's own format can say so, its Python interface cannot.

    Args:
        graph: ONNX.
        target: `.xml` to write; appears whole or not at all.

    Raises:
        EngineError: OpenVINO cannot read the graph, or the folder is not writable.
    """
    keep_openvino_quiet()
    import openvino

    try:
        with appearing_whole(target) as partial:
            openvino.serialize(openvino.Core().read_model(str(graph)), str(partial))
            written = ElementTree.parse(partial)
            layers = written.iterfind("layers/layer")
            mark_f32(layer for layer in layers if layer.get("type") in _BETWEEN_PRODUCTS)
            written.write(partial)
    except (RuntimeError, OSError) as error:
        raise EngineError(f"OpenVINO {openvino.__version__} cannot rewrite {graph}: {str(error)[:300]}") from error


def mark_f32(layers: Iterable[ElementTree.Element]) -> None:
    """Have layers of a graph in OpenVINO's own format computed in f32, whatever the hint."""
    for layer in layers:
        marks = layer.find("rt_info")
        marks = ElementTree.SubElement(layer, "rt_info") if marks is None else marks
        ElementTree.SubElement(marks, "attribute", name="precise", version="0")


@contextlib.contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """Where to write a graph in OpenVINO's format, which becomes the target at the end."""
    partial = target.with_name(f"partial-{os.getpid()}-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    yield partial
    # The graph is found by its .xml, so that comes last.
    partial.with_suffix(".bin").replace(target.with_suffix(".bin"))
    partial.replace(target)


def quantise(graph: Path, target: Path, quantisation_images: QuantisationImages, image_size: int) -> None:
    """Write a version of a graph with 8 bits where they are faster than bf16 and accurate; see docs/engines.md.

    Args:
        graph: ONNX.
        target: `.xml` to write; appears whole or not at all.
        quantisation_images: images whose activations set the scales.
        image_size: S.

    Raises:
        EngineError: no images, or NNCF cannot quantise the graph.
    """
    keep_openvino_quiet()
    import nncf
    import openvino
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    images = quantisation_images.quantising()
    if not images:
        raise EngineError(
            f"no image of {quantisation_images.name} can be read, so nothing tells the scales of 8-bit numbers"
        )
    _logger.info("quantising %s with %d images of %s", graph, len(images), quantisation_images.name)
    nncf.set_log_level(logging.ERROR)
    dataset = nncf.Dataset([preprocess([image], image_size).numpy() for image in images])
    model = openvino.Core().read_model(str(graph))
    try:
        # NNCF draws its progress on stdout, which belongs to results.
        with contextlib.redirect_stdout(sys.stderr):
            model = nncf.quantize(
                model,
                dataset,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(names=_kept_in_float(model)),
                # By default what exceeds the images' mean extremes is clipped, and few large activations carry much.
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
                ),
            )
        with appearing_whole(target) as partial:
            openvino.save_model(model, str(partial), compress_to_fp16=False)
    except (RuntimeError, OSError) as error:
        raise EngineError(f"NNCF {nncf.__version__} cannot quantise {graph}: {str(error)[:300]}") from error


def _kept_in_float(model: Any) -> list[str]:
    """All products but those with weights that make tokens longer (qkv, the first of the MLP) in the first blocks.

    Of those, the first three quarters have 8 bits: what follows the others is too short to even out their rounding.
    """
    products = [o for o in model.get_ordered_ops() if o.get_type_name() in ("MatMul", "Convolution")]
    widening = [
        operation
        for operation in products
        if operation.get_type_name() == "MatMul"
        and operation.input_value(1).get_node().get_type_name() == "Constant"
        and operation.get_output_partial_shape(0)[-1].get_length()
        > operation.input_value(0).get_partial_shape()[-1].get_length()
    ]
    quantised = {operation.get_friendly_name() for operation in widening[: len(widening) * 3 // 4]}
    return [operation.get_friendly_name() for operation in products if operation.get_friendly_name() not in quantised]
