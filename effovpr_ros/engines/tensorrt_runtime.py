"""TensorRT on an NVIDIA GPU, built from the ONNX graph on the machine that runs it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effovpr_ros.core.errors import EngineError
from effovpr_ros.core.files import replaced_file

_logger = logging.getLogger(__name__)


class TensorRtSession:
    """A built network with buffers of its own; one call at a time."""

    def __init__(self, plan: Path) -> None:
        """Load a plan.

        Args:
            plan: of `ensure_plan`.

        Raises:
            EngineError: TensorRT cannot load it.
        """
        import tensorrt

        engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING)).deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise EngineError(f"TensorRT {tensorrt.__version__} cannot load {plan}; remove that file to build it anew")
        self._engine, self._context = engine, engine.create_execution_context()
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._buffers: list[Tensor] = []
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        for name in names:
            buffer = torch.empty(tuple(engine.get_tensor_shape(name)), dtype=torch.float32, device="cuda")
            self._context.set_tensor_address(name, buffer.data_ptr())
            self._buffers.append(buffer)
        self._lock = threading.Lock()

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(1, 3, S, S) float32 to the graph's outputs, float32 on the GPU."""
        with self._lock:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._buffers[0].copy_(pixels, non_blocking=True)
                if not self._context.execute_async_v3(self._stream.cuda_stream):
                    raise EngineError("TensorRT failed to run the network; its log on stderr says why")
                # The next call writes to the same memory.
                outputs = [buffer.clone() for buffer in self._buffers[1:]]
            self._stream.synchronize()
        return outputs


def ensure_plan(graph: Path, plan: Path) -> None:
    """Build the plan of a network where it is missing: minutes for a large one.

    Args:
        graph: ONNX.
        plan: file of the plan; its name tells the GPU and the version of TensorRT, which it is bound to.

    Raises:
        EngineError: TensorRT cannot build the network, or the folder is not writable.
    """
    import tensorrt

    if plan.is_file():
        return
    _logger.info("building %s", plan)
    content = _build(tensorrt, tensorrt.Logger(tensorrt.Logger.WARNING), graph)
    try:
        with replaced_file(plan) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise EngineError(f"{plan} cannot be written: {error.strerror}; make room") from error


def _build(tensorrt: Any, logger: Any, graph: Path) -> bytes:
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise EngineError(f"TensorRT {tensorrt.__version__} cannot read {graph}: {reasons[:300]}")
    config = builder.create_builder_config()
    config.set_flag(tensorrt.BuilderFlag.FP16)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT {tensorrt.__version__} cannot build {graph}; its log on stderr says why")
    return bytes(plan)
