"""What engines keep between runs: exported networks, and what was measured of them on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from effovpr_ros.core.errors import EngineError


def cache_root() -> Path:
    """Folder of the cache: $XDG_CACHE_HOME/effovpr_ros/engines, as the XDG base directory specification says."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "effovpr_ros" / "engines"


def machine_name() -> str:
    """What speed depends on: processor, cores, threads that the network may use, and GPU."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}"


def processor_name() -> str:
    """Name of the CPU as the system gives it."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    return processor


def digest(*parts: object) -> str:
    """Short name of values that a record depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def read_record(path: Path) -> dict[str, Any] | None:
    """A record; None where there is none, or where a damaged one must be measured again."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def write_record(path: Path, values: dict[str, Any]) -> None:
    """Write a record atomically.

    Raises:
        EngineError: the cache is not writable.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(values, indent=2), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be written: {error.strerror}; let XDG_CACHE_HOME name a folder that is writable"
        ) from error
