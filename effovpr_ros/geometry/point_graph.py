"""The network of the points as OpenVINO runs it: converted and compared once, then read from the engines' cache.

A conversion takes seconds and brings libraries into memory that nothing needs later.
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effovpr_ros.core.errors import EngineError
from effovpr_ros.core.telemetry import keep_openvino_quiet
from effovpr_ros.engines.cache import cache_root, content_digest, digest, machine_name, read_record, write_record
from effovpr_ros.engines.catalogue import OPENVINO_BF16, what_is_missing
from effovpr_ros.engines.openvino_runtime import appearing_whole, mark_f32

_logger = logging.getLogger(__name__)

_REVISION = 2
_CORNERS = 1
"""Number of the output that says where points are."""

Float = NDArray[np.float32]


class PointGraph:
    """A compiled network; one call at a time.

    Attributes:
        precision: that it computes descriptors in: bf16 where the CPU does, else f32. Where points are is always
            computed in f32, since rounding would move them by parts of a pixel.
    """

    def __init__(self, source: Any, path: Path | None) -> None:
        """Compile.

        Args:
            source: file, or OpenVINO's model.
            path: of the file; None where there is none, which is computed in f32.

        Raises:
            RuntimeError: OpenVINO refuses it.
        """
        import openvino

        self.precision = "f32" if path is None else _precision()
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._request = openvino.Core().compile_model(source, "CPU", settings).create_infer_request()
        self._path = path
        self._lock = threading.Lock()

    def __call__(self, grey: Float) -> tuple[Float, ...]:
        """(H, W) float32 to the outputs of the network, without the first axis."""
        with self._lock:
            results = self._request.infer([grey[None, None]], share_inputs=True, share_outputs=True)
            # The next call writes to the same memory.
            return tuple(np.array(results[number][0], np.float32) for number in range(3))

    @classmethod
    def kept(cls, weights_sha256: str) -> PointGraph | None:
        """The one that was converted and compared on this machine before; None where there is none, or it changed."""
        keep_openvino_quiet()
        try:
            path = _path(weights_sha256)
            record = read_record(path.with_suffix(".json"))
            if record is None or not path.is_file() or record.get("content") != content_digest(_files(path)):
                return None
            return cls(str(path), path)
        except (EngineError, RuntimeError) as error:
            _logger.warning("the kept network of the points is not used: %s", str(error)[:300])
            return None

    @classmethod
    def converted(cls, network: nn.Module, weights_sha256: str) -> PointGraph:
        """From PyTorch; on disk where the cache can be written, so that what is compared is what is read later.

        Raises:
            RuntimeError: OpenVINO refuses it.
        """
        keep_openvino_quiet()
        import openvino

        with torch.no_grad(), warnings.catch_warnings():
            # Of tracing: what it takes for constant are numbers of channels, and the outcome is compared.
            warnings.simplefilter("ignore")
            model = openvino.convert_model(network, example_input=torch.zeros(1, 1, 64, 64))
        model.reshape(openvino.PartialShape([1, 1, -1, -1]))
        try:
            path = _path(weights_sha256)
            with appearing_whole(path) as partial:
                openvino.save_model(model, str(partial), compress_to_fp16=False)
                _bind_corners(partial)
        except (EngineError, OSError) as error:
            _logger.warning("the network of the points is converted anew at each start: %s", str(error)[:300])
            return cls(model, None)
        return cls(str(path), path)

    def keep(self) -> None:
        """Use it from the next start on: it was compared."""
        if self._path is not None:
            try:
                write_record(self._path.with_suffix(".json"), {"content": content_digest(_files(self._path))})
            except EngineError as error:
                _logger.warning("the network of the points is converted anew at each start: %s", str(error)[:300])


def _precision() -> str:
    return "f32" if what_is_missing(OPENVINO_BF16) else "bf16"


def _bind_corners(graph: Path) -> None:
    """Have everything that the corners follow from computed in f32, whatever the hint."""
    written = ElementTree.parse(graph)
    layers = {layer.get("id"): layer for layer in written.iterfind("layers/layer")}
    before: dict[str | None, list[str | None]] = {}
    for edge in written.iterfind("edges/edge"):
        before.setdefault(edge.get("to-layer"), []).append(edge.get("from-layer"))
    results = [number for number, layer in layers.items() if layer.get("type") == "Result"]
    reached, ahead = set(), [results[_CORNERS]]
    while ahead:
        number = ahead.pop()
        if number not in reached:
            reached.add(number)
            ahead += before.get(number, [])
    mark_f32(layers[number] for number in reached if layers[number].get("type") not in ("Const", "Parameter"))
    written.write(graph)


def _path(weights_sha256: str) -> Path:
    versions = [importlib.metadata.version(package) for package in ("openvino", "torch", "kornia")]
    return (
        cache_root()
        / "points"
        / f"xfeat-{digest(weights_sha256, versions, machine_name(), _precision(), _REVISION)}.xml"
    )


def _files(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")]
