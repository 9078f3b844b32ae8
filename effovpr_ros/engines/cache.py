"""What engines keep between runs: exported networks, and what was measured of them on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platformdirs
import torch

from effovpr_ros.core.errors import EngineError
from effovpr_ros.core.files import replaced_file

_LONGEST_RECORD = 2**16
_OWN_FOLDER = "let XDG_CACHE_HOME name a folder of your own that is writable"


def cache_root() -> Path:
    """Folder of the cache, $XDG_CACHE_HOME/effovpr_ros/engines: made where it is missing, for this user alone.

    Raises:
        EngineError: it cannot be made, or others could change what is kept in it, which would then be run.
    """
    own = platformdirs.user_cache_path("effovpr_ros", appauthor=False)
    try:
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = own.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            own.chmod(0o700)
    except OSError as error:
        raise EngineError(
            f"{own} cannot be made: {error.strerror}; let XDG_CACHE_HOME name a folder that is writable"
        ) from error
    if found.st_uid != os.geteuid():
        raise EngineError(f"{own} belongs to another user, who could change what is run from it; {_OWN_FOLDER}")
    return own / "engines"


def keep_compiled_code() -> None:
    """Have PyTorch's compiler keep its code in this user's own folder, unless the user named one.

    Its default is a folder in /tmp that any user may have made first.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root().parent / "inductor"))


def content_digest(files: Sequence[Path]) -> str:
    """Short name of what files hold; raises an EngineError where one cannot be read."""
    whole = hashlib.sha256()
    for path in files:
        try:
            whole.update(f"{path.name} {path.stat().st_size}".encode())
            with path.open("rb") as file:
                while block := file.read(2**20):
                    whole.update(block)
        except OSError as error:
            raise EngineError(f"{path} cannot be read: {error.strerror}; remove it, and it is made again") from error
    return whole.hexdigest()[:16]


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
        if path.stat().st_size > _LONGEST_RECORD:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def write_record(path: Path, values: dict[str, Any]) -> None:
    """Write a record atomically.

    Raises:
        EngineError: the cache is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as temporary:
            temporary.write_text(json.dumps(values, indent=2), encoding="utf-8")
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error.strerror}; {_OWN_FOLDER}") from error
