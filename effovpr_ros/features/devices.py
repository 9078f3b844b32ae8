"""Where the network runs and in which numbers."""

from __future__ import annotations

import logging

import torch

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.engines.catalogue import ENGINES, TENSORRT

_logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def resolve_device(device: str, engine: str = "torch") -> torch.device:
    """`auto` to CUDA or CPU, whichever is there and the engine runs on; anything else is taken as named.

    Raises:
        ConfigError: unknown device, a GPU asked for that is not there, or one that the engine does not run on.
    """
    runs_on = ENGINES[engine].device if engine in ENGINES else "any"
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and runs_on != "cpu" else "cpu"
        # Without a GPU, opening TensorRT says what is missing and the remedy.
        _logger.info("device auto: %s", device)
    elif runs_on != "any" and not device.startswith(runs_on):
        raise ConfigError(f"engine {engine} runs on {runs_on}, not on {device}; set device to auto or {runs_on}")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device {device!r} was asked for, but torch {torch.__version__} sees no GPU; use auto or cpu"
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} was asked for; there are {torch.cuda.device_count()} GPUs, the first is cuda:0"
        )
    return resolved


def resolve_precision(precision: str, device: torch.device, engine: str = "torch") -> torch.dtype:
    """`auto` to fp16 on CUDA and fp32 elsewhere; TensorRT builds its own fp16 from fp32."""
    if precision == "auto":
        return torch.float16 if device.type == "cuda" and engine != TENSORRT else torch.float32
    return _DTYPES[precision]


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what this thread gave it; before that, work is begun and not done.

    Waiting for the whole device would disturb other threads.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
