"""What figures depend on: the machine and the versions of what runs on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import torch

from effovpr_ros.engines.cache import processor_name
from effovpr_ros.matching.compiled import KERNEL_VARIABLE, kernel_name

_PACKAGES = (
    "torch",
    "timm",
    "numpy",
    "faiss-cpu",
    "opencv-python-headless",
    "openvino",
    "nncf",
    "onnxruntime",
    "tensorrt",
)
_INSTRUCTION_LIMITS = (
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "FAISS_OPT_LEVEL",
    KERNEL_VARIABLE,
)


@dataclass(frozen=True)
class Machine:
    """Where the figures were measured.

    Attributes:
        processor: name of the CPU.
        cores: that the system has.
        threads: that PyTorch computes with.
        memory_gib: of the system.
        gpu: name of the GPU that PyTorch sees; empty without one.
        system: kernel and architecture.
        python: version.
        load: runnable processes over the last minute, before the run; well above 0 means that others compute too.
        versions: of the packages that are installed, by name.
        instructions: that PyTorch's own kernels use, such as AVX512.
        reranking: instructions that re-ranking uses on the CPU, such as avx512-vnni.
        held_back: variables of the environment that keep libraries from instructions that the CPU has, with values.
    """

    processor: str
    cores: int
    threads: int
    memory_gib: float
    gpu: str
    system: str
    python: str
    load: float
    versions: dict[str, str]
    instructions: str
    reranking: str
    held_back: dict[str, str]


def describe_machine() -> Machine:
    """This machine, now."""
    return Machine(
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
        versions={name: version for name in _PACKAGES if (version := _version(name))},
        instructions=torch.backends.cpu.get_cpu_capability(),
        reranking=kernel_name(),
        held_back={name: value for name in _INSTRUCTION_LIMITS if (value := os.environ.get(name))},
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
