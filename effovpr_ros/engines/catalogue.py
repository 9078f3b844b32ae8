"""Which engines there are, what each needs, and whether this machine has it."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError, EngineError
from effovpr_ros.core.telemetry import keep_openvino_quiet

TORCH, TORCH_BF16, TORCH_COMPILE = "torch", "torch-bf16", "torch-compile"
ONNXRUNTIME, TENSORRT = "onnxruntime", "tensorrt"
OPENVINO_FP32, OPENVINO_BF16, OPENVINO_INT8 = "openvino-fp32", "openvino-bf16", "openvino-int8"
AUTO = "auto"
DEFAULT_ENGINE = AUTO

_EXPORT = ("onnx", "onnxscript")


@dataclass(frozen=True)
class EngineKind:
    """What an engine is.

    Attributes:
        name: as `ExtractorConfig.engine` says it.
        summary: one line on what it is good for.
        distributions: packages that it needs beyond PyTorch.
        device: cpu, cuda, or any for both.
        keeps_precision: whether `ExtractorConfig.precision` counts; the others have a precision of their own.
        automatic: whether `auto` may choose it.
        revision: of what this package makes of the network for it; a change leaves nothing of before in use.
    """

    name: str
    summary: str
    distributions: tuple[str, ...]
    device: str
    keeps_precision: bool = False
    automatic: bool = True
    revision: int = 1


ENGINES = {
    kind.name: kind
    for kind in (
        EngineKind(TORCH, "PyTorch, operation by operation", (), "any", keeps_precision=True),
        EngineKind(TORCH_BF16, "PyTorch, bf16, CPUs that compute in it", (), "cpu"),
        # Each process compiles anew, for a minute and more.
        EngineKind(TORCH_COMPILE, "PyTorch, compiled at each start", (), "any", keeps_precision=True, automatic=False),
        EngineKind(ONNXRUNTIME, "ONNX Runtime, fp32, any CPU", ("onnxruntime", *_EXPORT), "cpu"),
        EngineKind(OPENVINO_FP32, "OpenVINO, fp32, x86-64 and ARM CPUs", ("openvino", *_EXPORT), "cpu"),
        EngineKind(OPENVINO_BF16, "OpenVINO, bf16, CPUs that compute in it", ("openvino", *_EXPORT), "cpu", revision=2),
        # It loses accuracy, so it is used only where it is asked for.
        EngineKind(
            OPENVINO_INT8,
            "OpenVINO, 8 bits, calibrated",
            ("openvino", "nncf", *_EXPORT),
            "cpu",
            automatic=False,
            revision=2,
        ),
        EngineKind(TENSORRT, "TensorRT, fp16, NVIDIA GPUs", ("tensorrt", *_EXPORT), "cuda"),
    )
}
ENGINE_NAMES = (*ENGINES, AUTO)


def what_is_missing(name: str) -> str:
    """What keeps an engine from running on this machine, with the command that mends it; empty if nothing does."""
    kind = ENGINES[name]
    absent = [package for package in kind.distributions if importlib.util.find_spec(package) is None]
    if absent:
        return f"{', '.join(absent)} not installed; run `pip install {' '.join(absent)}`"
    if name == TORCH_COMPILE and shutil.which("c++") is None and shutil.which("g++") is None:
        return "no C++ compiler; run `sudo apt-get install g++`"
    if kind.device == "cuda" and not _has_cuda():
        return "torch sees no GPU; install the driver of an NVIDIA GPU and a CUDA build of torch"
    if name == TORCH_BF16 and not _torch_computes_bf16():
        return "this CPU does not compute in bf16; use torch"
    if name == OPENVINO_BF16 and not _cpu_computes_bf16():
        return "this CPU does not compute in bf16; use openvino-fp32 or openvino-int8"
    return ""


def require(name: str) -> None:
    """Refuse an engine that this machine lacks.

    Raises:
        EngineError: names what is missing and the command that mends it.
    """
    missing = what_is_missing(name)
    if missing:
        raise EngineError(f"engine {name}: {missing}")


def versions(name: str) -> str:
    """Versions of all that an engine's results and speed depend on."""
    packages = ("torch", *ENGINES[name].distributions)
    installed = [f"{package}-{importlib.metadata.version(package)}" for package in packages]
    return " ".join([*installed, f"revision-{ENGINES[name].revision}"])


def automatic(device: str) -> list[str]:
    """Engines that `auto` chooses from on this machine: at least PyTorch.

    Args:
        device: cpu or cuda.
    """
    kinds = [kind for kind in ENGINES.values() if kind.automatic and kind.device in (device, "any")]
    return [kind.name for kind in kinds if not what_is_missing(kind.name)]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@functools.cache
def _torch_computes_bf16() -> bool:
    """Whether the CPU has instructions for it; without them it is slower than fp32."""
    import torch

    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asks)


@functools.cache
def _cpu_computes_bf16() -> bool:
    keep_openvino_quiet()
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def check_engine(engine: str, precision: str) -> None:
    """Refuse an engine that there is not, and a precision that it cannot have.

    Raises:
        ConfigError: names the value and the allowed ones.
    """
    if engine not in ENGINE_NAMES:
        raise ConfigError(f"engine {engine!r} is unknown; use one of {', '.join(ENGINE_NAMES)}")
    if precision != "auto" and engine != AUTO and not ENGINES[engine].keeps_precision:
        raise ConfigError(f"engine {engine} has a precision of its own; leave precision at auto, not {precision}")
