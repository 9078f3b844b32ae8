"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from effovpr_ros.core.errors import EngineError
from effovpr_ros.engines.graph import INPUT_NAME


class OnnxRuntimeSession:
    """A loaded network."""

    def __init__(self, graph: Path) -> None:
        """Load, for as many threads as torch may use.

        Raises:
            EngineError: ONNX Runtime refuses the graph.
        """
        import onnxruntime

        # Nothing of what a robot runs is told to anybody.
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Spinning threads would take the processor from the rest of the robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common type
            raise EngineError(f"ONNX Runtime {onnxruntime.__version__} refuses {graph}: {str(error)[:300]}") from error

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(1, 3, S, S) float32 on the CPU to the graph's outputs, float32."""
        return [torch.from_numpy(output) for output in self._session.run(None, {INPUT_NAME: pixels.numpy()})]
