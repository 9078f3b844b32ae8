"""The file of a tail: what fine-tuning changed of a network (paper section 3.3), and which base it belongs to.

A safetensors file holds the trained tensors under timm's names and one linear layer a head as `heads.D.weight` and
`heads.D.bias`; its metadata hold `TailInfo` as JSON under `effovpr_tail`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effovpr_ros.core.errors import ConfigError, WeightsError
from effovpr_ros.core.files import replaced_file
from effovpr_ros.features.state_dicts import fingerprint, require_finite

_METADATA_KEY = "effovpr_tail"
_FORMAT_VERSION = 1
_HEAD = "heads."
_POOLINGS = ("cls", "regional")
_MOST = 2**16


@dataclass(frozen=True)
class TailInfo:
    """What a tail is and how it came about.

    Attributes:
        architecture: timm name of the base.
        base_sha256: fingerprint of the base weights.
        train_blocks: so many of the last blocks that are run were trained; 0: the heads only.
        pooling: cls, [CLS] of the last block; or regional, see `features.regional`.
        block: whose [CLS] and facet `regional` pools, from 0.
        facet: that `regional` pools.
        centered: whether the image's mean facet is subtracted first.
        dims: lengths of the descriptors that it can give; the first is the default.
        image_size: side of the input in training, in pixels.
        command: that trained it.
        seed: of that run.
        seconds: that it took.
        created: ISO 8601, UTC.
        epoch: whose weights were kept.
        figures: validation R@1 and R@5 in percent by head, before and after.
    """

    architecture: str
    base_sha256: str
    train_blocks: int
    pooling: str
    block: int
    facet: str
    centered: bool
    dims: tuple[int, ...]
    image_size: int
    command: str = ""
    seed: int = 0
    seconds: float = 0.0
    created: str = ""
    epoch: int = 0
    figures: Mapping[str, float] | None = None


_MEANING = ("architecture", "base_sha256", "train_blocks", "pooling", "block", "facet", "centered", "dims")
"""Fields that descriptors depend on."""


@dataclass(frozen=True)
class Tail:
    """A trained tail.

    Attributes:
        info: network, training and figures.
        weights: float32 tensors under timm's names that replace the base's.
        heads: float32 (D, L) and (D,) of the linear layer of each head by D; without one, the pooled vector is used.
        source: file name, for people.
    """

    info: TailInfo
    weights: Mapping[str, Tensor]
    heads: Mapping[int, tuple[Tensor, Tensor]]
    source: str

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of everything that descriptors depend on."""
        heads = {f"{_HEAD}{dim}": torch.cat([weight, bias[:, None]], 1) for dim, (weight, bias) in self.heads.items()}
        meaning = json.dumps([getattr(self.info, name) for name in _MEANING])
        return fingerprint({**self.weights, **heads, meaning: torch.zeros(1)})

    def dimension(self, wanted: int) -> int:
        """The head of a length, or the default one for 0.

        Raises:
            ConfigError: the tail has none of that length.
        """
        if wanted and wanted not in self.info.dims:
            raise ConfigError(f"global_dim {wanted}: {self.source} gives {', '.join(map(str, self.info.dims))}")
        return wanted or self.info.dims[0]


def write_tail(path: Path, tail: Tail, *, precision: torch.dtype = torch.float16) -> None:
    """Write atomically.

    Raises:
        WeightsError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu() for name, tensor in tail.weights.items()}
    for dim, (weight, bias) in tail.heads.items():
        tensors |= {f"{_HEAD}{dim}.weight": weight.detach().cpu(), f"{_HEAD}{dim}.bias": bias.detach().cpu()}
    stored = {name: tensor.to(precision).contiguous() for name, tensor in tensors.items()}
    metadata = {_METADATA_KEY: json.dumps({"format_version": _FORMAT_VERSION, **asdict(tail.info)})}
    try:
        with replaced_file(path) as temporary:
            temporary.write_bytes(save(stored, metadata))
    except OSError as error:
        raise WeightsError(f"tail {path} cannot be written: {error.strerror}") from error


def is_tail(path: str | Path) -> bool:
    """Whether a file is a tail; False for anything else, and for files that are not there."""
    return _metadata(Path(path).expanduser()) is not None


def read_tail(path: str | Path) -> Tail:
    """Read a tail.

    Raises:
        WeightsError: no tail, damaged, or of another version.
    """
    from safetensors.torch import load_file

    file = Path(path).expanduser()
    values = _metadata(file)
    if values is None:
        raise WeightsError(f"{file} is no tail; `effovpr train` writes one as OUT/tail.safetensors")
    if values.get("format_version") != _FORMAT_VERSION:
        raise WeightsError(
            f"tail {file} has format version {values.get('format_version')}, this package reads {_FORMAT_VERSION}; "
            "train it again or update the package"
        )
    try:
        content = {entry.name: values[entry.name] for entry in fields(TailInfo)}
        info = TailInfo(**{**content, "dims": tuple(content["dims"])})
        _check_info(info)
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
        heads = {
            dim: (tensors.pop(f"{_HEAD}{dim}.weight"), tensors.pop(f"{_HEAD}{dim}.bias"))
            for dim in info.dims
            if f"{_HEAD}{dim}.weight" in tensors
        }
        _check_heads(heads)
        require_finite(tensors | {f"{_HEAD}{dim}.weight": head[0] for dim, head in heads.items()})
    except Exception as error:  # safetensors raises a type of its own for damaged files
        raise WeightsError(f"tail {file} is damaged ({error}); restore it from a copy") from error
    return Tail(info, tensors, heads, file.name)


def _check_info(info: TailInfo) -> None:
    """Refuse what no training writes.

    Raises:
        ValueError: names the field and its value.
    """
    wanted = {"architecture": str, "base_sha256": str, "pooling": str, "facet": str, "centered": bool}
    for name, kind in wanted.items():
        if not isinstance(getattr(info, name), kind):
            raise ValueError(f"{name} is {getattr(info, name)!r}")
    numbers = {"train_blocks": info.train_blocks, "block": info.block, "image_size": info.image_size}
    for name, value in [*numbers.items(), *(("dims", dim) for dim in info.dims)]:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
            raise ValueError(f"{name} holds {value!r}")
    if info.pooling not in _POOLINGS or not info.dims:
        raise ValueError(f"pooling is {info.pooling!r} and dims are {info.dims}")


def _check_heads(heads: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    for dim, (weight, bias) in heads.items():
        if weight.ndim != 2 or weight.shape[0] != dim or bias.shape != (dim,):
            raise ValueError(f"head {dim} has shapes {tuple(weight.shape)} and {tuple(bias.shape)}")
        require_finite({f"{_HEAD}{dim}.bias": bias})


def _metadata(path: Path) -> dict[str, Any] | None:
    """The tail's metadata; None where the file is no tail. Only the header is read."""
    from safetensors import safe_open

    if path.suffix != ".safetensors" or not path.is_file() or not os.access(path, os.R_OK):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get(_METADATA_KEY)
        values: dict[str, Any] | None = json.loads(stored) if stored else None
    except Exception:  # damaged: reading it as weights reports that
        return None
    return values if isinstance(values, dict) else None
