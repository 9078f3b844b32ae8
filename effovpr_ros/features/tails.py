"""Which tail settings ask for, and the network with it: tails are what fine-tuning changed (paper section 3.3)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from effovpr_ros.core.errors import ConfigError, WeightsError
from effovpr_ros.features.names import AUTO, NONE
from effovpr_ros.features.state_dicts import StateDict
from effovpr_ros.features.tail_file import Tail, is_tail, read_tail

SHIPPED_FOLDER = Path(__file__).parent / "tails"
"""Where tails lie that come with this package."""
DEFAULT_TAILS: dict[str, str] = {"offline": "places"}
"""Model to the name of the shipped tail that it uses unless told otherwise."""


@functools.lru_cache(maxsize=4)
def _shipped_tail(path: Path) -> Tail:
    """A tail of this package, read and hashed once: opening a map looks for its tail first and then loads it."""
    return read_tail(path)


def find_tail(model: str, weights: str, tail: str) -> tuple[str, Tail | None]:
    """The base weights file and the tail that settings ask for.

    Args:
        model: as in `ExtractorConfig`.
        weights: BASE, TAIL, or both joined by a comma, in any order.
        tail: where `weights` names no tail: auto (the shipped one of the model, if there is one and `weights` is
            empty), none, the name of a shipped one, or a file.

    Returns:
        The base's file, empty for the model's own source; and the tail, None for none.

    Raises:
        WeightsError: two bases, two tails, or a tail that is not there.
    """
    files = _files(weights)
    tails = [file for file in files if is_tail(file)]
    bases = [file for file in files if file not in tails]
    if len(tails) > 1 or len(bases) > 1:
        raise WeightsError(
            f"weights {weights!r} name {len(bases)} bases and {len(tails)} tails; give BASE, TAIL or both"
        )
    base = bases[0] if bases else ""
    if tails:
        return base, read_tail(tails[0])
    if tail == AUTO:
        tail = DEFAULT_TAILS.get(model, NONE) if not base else NONE
    if tail == NONE:
        return base, None
    shipped = SHIPPED_FOLDER / f"{tail}.safetensors"
    return base, _shipped_tail(shipped) if shipped.is_file() else read_tail(tail)


def tail_beside(loaded: Tail | None, model: str, weights: str, tail: str) -> Tail | None:
    """The tail that settings ask for, to be read of a network that has another one.

    Args:
        loaded: the network's.
        model: see `find_tail`.
        weights: see `find_tail`.
        tail: see `find_tail`.

    Raises:
        ConfigError: one of the two changes the network.
        WeightsError: see `find_tail`.
    """
    _, wanted = find_tail(model, weights, tail)
    if any(item is not None and item.weights for item in (loaded, wanted)):
        raise ConfigError(f"tail {tail!r} needs another network than the one loaded; load an extractor of its own")
    return wanted


def tail_of_map(tail_sha256: str, weights: str) -> str:
    """The setting `tail` that makes a map's descriptors.

    Args:
        tail_sha256: of the map's fingerprint; empty for a map that was made without a tail.
        weights: setting `weights`, which may name the tail.

    Raises:
        WeightsError: neither `weights` nor this package has that tail.
    """
    if not tail_sha256:
        return NONE
    if any(is_tail(file) for file in _files(weights)):
        # The fingerprints are compared later; they name every difference if it is not the map's tail.
        return NONE
    for path in sorted(SHIPPED_FOLDER.glob("*.safetensors")):
        if _shipped_tail(path).sha256 == tail_sha256:
            return path.stem
    raise WeightsError(
        f"the map was made with a trained tail ({tail_sha256[:12]}...) that does not come with this package; "
        "name its file with --weights TAIL (the node's parameter `weights`), or rebuild the map"
    )


def apply_tail(
    tail: Tail, state_dict: Mapping[str, Tensor], architecture: str, base_sha256: str, source: str
) -> StateDict:
    """Base weights with the tail's in their place.

    Args:
        tail: to apply.
        state_dict: of the base, under timm's names.
        architecture: of the base.
        base_sha256: of the base.
        source: of the base, for people.

    Raises:
        WeightsError: the tail belongs to another base.
    """
    info = tail.info
    if (architecture, base_sha256) != (info.architecture, info.base_sha256):
        raise WeightsError(
            f"tail {tail.source} was trained on {info.architecture} weights {info.base_sha256[:12]}..., "
            f"not on {architecture} weights {base_sha256[:12]}... from {source}; choose its base with --model, "
            "or with --weights BASE,TAIL"
        )
    blocks = {int(name.split(".")[1]) for name in state_dict if name.startswith("blocks.")}
    if info.pooling == "regional" and info.block not in blocks:
        raise WeightsError(f"tail {tail.source} reads block {info.block}, {architecture} has {len(blocks)} from 0 on")
    unknown = [name for name in tail.weights if name not in state_dict]
    if unknown:
        raise WeightsError(f"tail {tail.source} changes {unknown[0]}, which {architecture} does not have")
    for name, tensor in tail.weights.items():
        if tensor.shape != state_dict[name].shape:
            raise WeightsError(
                f"tail {tail.source} has {name} of shape {tuple(tensor.shape)}, {architecture} has "
                f"{tuple(state_dict[name].shape)}"
            )
    return {**state_dict, **tail.weights}


def _files(weights: str) -> list[str]:
    """Files that a setting joins by commas, which may also stand in the name of one file."""
    if Path(weights).expanduser().is_file():
        return [weights]
    return [part.strip() for part in weights.split(",") if part.strip()]
