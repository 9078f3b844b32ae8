"""The network as one ONNX graph: pixels in, the readings of the requested blocks out, and nothing computed beyond."""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from effovpr_ros.core.errors import EngineError
from effovpr_ros.features.backbone import Backbone, BackboneOutput, BlockReading

_logger = logging.getLogger(__name__)

GRAPH_NAME = "network.onnx"
INPUT_NAME = "pixels"
_FORMAT = "graph-v1"
_OPSET = 20
_ONE_FILE_BYTES = 1_500_000_000
"""Protocol buffers end at 2 GB; larger networks keep their weights beside the graph."""


@dataclass(frozen=True)
class RequestedOutputs:
    """What is read of the network in one forward pass; as `Backbone.forward` takes it.

    Attributes:
        blocks: numbers of the blocks, from 0.
        to_the_end: whether the last [CLS] is read too.
    """

    blocks: frozenset[int]
    to_the_end: bool

    @classmethod
    def of(cls, blocks: Collection[int], *, to_the_end: bool) -> RequestedOutputs:
        """From the arguments of `Backbone.forward`."""
        return cls(frozenset(blocks), to_the_end or not blocks)

    @property
    def names(self) -> list[str]:
        """Outputs in order."""
        names = [f"{field}_{block}" for block in sorted(self.blocks) for field in BlockReading._fields]
        return [*names, "cls"] if self.to_the_end else names

    def gather(self, outputs: Sequence[Tensor]) -> BackboneOutput:
        """The outputs in order, as `Backbone.forward` returns them."""
        count = len(BlockReading._fields)
        blocks = {
            block: BlockReading(*outputs[count * place : count * (place + 1)])
            for place, block in enumerate(sorted(self.blocks))
        }
        return BackboneOutput(blocks, outputs[-1] if self.to_the_end else None)


class FlatNetwork(nn.Module):
    """The backbone with plain tensors as input and outputs, for exporters and compilers."""

    def __init__(self, backbone: Backbone, requested: RequestedOutputs) -> None:
        """Wrap; the weights are shared."""
        super().__init__()
        self.backbone, self.requested = backbone, requested

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) normalised pixels to the outputs that `RequestedOutputs.names` lists."""
        output: BackboneOutput = self.backbone(pixels, self.requested.blocks, to_the_end=self.requested.to_the_end)
        flat = [tensor for block in sorted(self.requested.blocks) for tensor in output.blocks[block]]
        return tuple(flat if output.cls is None else [*flat, output.cls])


def graph_key(
    architecture: str, weights_sha256: str, tail_sha256: str, image_size: int, requested: RequestedOutputs
) -> str:
    """Name of everything that the graph depends on."""
    parts = (
        _FORMAT,
        architecture,
        weights_sha256,
        tail_sha256,
        image_size,
        sorted(requested.blocks),
        requested.to_the_end,
    )
    return f"{architecture}-{image_size}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def ensure_graph(folder: Path, load: Callable[[], Backbone], requested: RequestedOutputs) -> Path:
    """The graph of a network in a folder of the cache, exported unless it is there already.

    The batch is fixed at one image, which every runtime runs faster; positions were resampled when the backbone was
    created. The graph appears whole or not at all.

    Args:
        folder: for this graph only, see `graph_key`.
        load: gives the network.
        requested: what is read.

    Raises:
        EngineError: PyTorch cannot export the network, or the folder is not writable.
    """
    graph = folder / "graph" / GRAPH_NAME
    if graph.is_file():
        return graph
    _logger.info("exporting the network to %s", graph)
    backbone = load()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial:
            _export(backbone, requested, Path(partial) / GRAPH_NAME)
            if not graph.is_file():
                shutil.rmtree(graph.parent, ignore_errors=True)
                Path(partial).rename(graph.parent)
                Path(partial).mkdir()  # for the context manager to remove
    except OSError as error:
        if graph.is_file():
            return graph  # another program was there first
        raise EngineError(
            f"the exported network cannot be stored in {folder}: {error.strerror}; make room, or let XDG_CACHE_HOME "
            "name a folder that is writable"
        ) from error
    return graph


def files_of(graph: Path) -> list[Path]:
    """All files of a graph: OpenVINO's has its weights in a second one, a large ONNX graph in files beside it."""
    if graph.suffix == ".xml":
        return [graph, graph.with_suffix(".bin")]
    return sorted(path for path in graph.parent.iterdir() if path.is_file())


def _export(backbone: Backbone, requested: RequestedOutputs, path: Path) -> None:
    flat = FlatNetwork(copy.deepcopy(backbone).cpu().float(), requested).eval()
    layout = backbone.layout
    rows, columns = layout.grid_hw
    example = torch.zeros(1, 3, rows * layout.patch_size, columns * layout.patch_size)
    num_bytes = sum(parameter.numel() for parameter in flat.parameters()) * 4
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The exporter's warnings are about its internals.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                flat,
                (example,),
                path,
                dynamo=True,
                opset_version=_OPSET,
                input_names=[INPUT_NAME],
                output_names=requested.names,
                external_data=num_bytes > _ONE_FILE_BYTES,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:  # the exporter's errors have no common type
        raise EngineError(
            f"PyTorch {torch.__version__} cannot export this network to ONNX ({str(error)[:300]}); use engine torch"
        ) from error
