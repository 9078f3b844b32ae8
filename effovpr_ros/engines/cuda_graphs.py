"""The network on a CUDA device: one image replays a recorded graph, which spares the launch of each kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from effovpr_ros.engines.graph import RequestedOutputs
from effovpr_ros.features.backbone import BackboneOutput

_WARM_UP = 3
"""Runs before recording, in which libraries choose their kernels and allocate workspaces."""


class Recording(NamedTuple):
    """A recorded run.

    Attributes:
        replay: runs it anew on whatever its input holds.
        outputs: that each replay overwrites.
    """

    replay: Callable[[], object]
    outputs: Sequence[Tensor]


Capture = Callable[[Callable[[], Sequence[Tensor]]], Recording]
"""Records what a function of no arguments does on the device."""


def capture_cuda_graph(device: torch.device, function: Callable[[], Sequence[Tensor]]) -> Recording:
    """Record with CUDA graphs, after a warm-up on a stream of its own.

    Args:
        device: that the function computes on.
        function: to record; it may neither wait for the device nor copy from or to the CPU.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may copy from and to the device meanwhile, which by default would end the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function()
    return Recording(graph.replay, outputs)


class CapturedNetwork:
    """Records the network for one image at the first such call; batches run as they are."""

    def __init__(
        self, network: Callable[[Tensor], Sequence[Tensor]], requested: RequestedOutputs, capture: Capture
    ) -> None:
        """Wrap.

        Args:
            network: pixels to the outputs that `RequestedOutputs.names` lists.
            requested: what is read.
            capture: records a run.
        """
        self._network, self._requested, self._capture = network, requested, capture
        self._lock = threading.Lock()
        self._input: Tensor | None = None
        self._recording: Recording | None = None

    def __call__(self, pixels: Tensor) -> BackboneOutput:
        """(B, 3, S, S) normalised pixels on the device to a forward pass."""
        if len(pixels) != 1:
            return self._requested.gather(self._network(pixels))
        with self._lock:
            if self._input is None or self._recording is None:
                self._input = held = pixels.clone()
                self._recording = self._capture(lambda: self._network(held))
            self._input.copy_(pixels)
            self._recording.replay()
            # The next replay writes to the same memory.
            return self._requested.gather([output.clone() for output in self._recording.outputs])
