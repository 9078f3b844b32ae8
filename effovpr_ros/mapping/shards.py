"""`shards.json`: which shards a map is made of, each an ordinary map in a folder below it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.core.files import write_atomically
from effovpr_ros.mapping.checked import MAX_INT64, entry, integer, real, refuse, table, text

SHARDS_NAME = "shards.json"
_KEPT_DIGITS = 16
MAX_SHARDS = 2**15
_MAX_BYTES = 2**26
_SHA256_DIGITS = 64

By = Literal["place", "session"]
"""What a shard holds together."""
Box = tuple[float, float, float, float]
"""Least first, least second, greatest first, greatest second coordinate."""


@dataclass(frozen=True)
class ShardEntry:
    """One shard of a map. A place's number in the whole map is `first_number` and its number in the shard.

    Attributes:
        name: of the shard.
        path: of its folder, from the folder of the whole map.
        sha256: of its `map.yaml`, which has the checksums of its places and of its index.
        first_number: what is added to the numbers of its places.
        num_places: of the shard.
        sessions: that have places in it.
        extent_xy: in the map frame by pose, else by geo-tag, metres; None where no place has a known position.
        extent_geo_deg: latitudes and longitudes of the geo-tags; None where there is none.
    """

    name: str
    path: str
    sha256: str
    first_number: int
    num_places: int
    sessions: tuple[str, ...] = ()
    extent_xy: Box | None = None
    extent_geo_deg: Box | None = None

    def is_near(self, centre_xy: tuple[float, float], radius_m: float) -> bool:
        """Whether a place of the shard may be within a horizontal radius."""
        if self.extent_xy is None:
            return False
        low_x, low_y, high_x, high_y = self.extent_xy
        beyond = (
            max(low_x - centre_xy[0], centre_xy[0] - high_x, 0.0),
            max(low_y - centre_xy[1], centre_xy[1] - high_y, 0.0),
        )
        return float(np.hypot(*beyond)) <= radius_m


def extent_of(points: NDArray[np.float64]) -> Box | None:
    """The box around (N, 2) points, of which unknown ones are NaN; None around none."""
    known = points[~np.isnan(points).any(axis=1)]
    if not len(known):
        return None
    (low_a, low_b), (high_a, high_b) = known.min(axis=0).tolist(), known.max(axis=0).tolist()
    return (low_a, low_b, high_a, high_b)


def shards_to_bytes(shards: Sequence[ShardEntry]) -> bytes:
    """Content of `shards.json`."""
    return json.dumps({"shards": [asdict(shard) for shard in shards]}, indent=1, ensure_ascii=False).encode()


def kept_name(sha256: str) -> str:
    """File that keeps a list of shards with this checksum while `shards.json` and `map.yaml` are replaced."""
    return f"shards-{sha256[:_KEPT_DIGITS]}.json"


def keep_list(folder: Path) -> None:
    """Keep `shards.json` under a name of its own, so that the `map.yaml` that names it stays whole; only the last."""
    content = _content(folder / SHARDS_NAME)
    name = kept_name(hashlib.sha256(content).hexdigest())
    write_atomically(folder / name, content)
    for path in folder.glob(kept_name("?" * _KEPT_DIGITS)):
        if path.name != name:
            path.unlink(missing_ok=True)


def read_shards(folder: Path, sha256: str) -> tuple[ShardEntry, ...]:
    """Read `shards.json` of a sharded map, or the one before it where `map.yaml` still names that.

    Args:
        folder: of the map.
        sha256: of the file, as `map.yaml` has it.

    Raises:
        MapError: missing.
        MapFormatError: damaged, or not the one that `map.yaml` names.
    """
    path = folder / SHARDS_NAME
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        kept = folder / kept_name(sha256)
        content = _content(kept) if kept.is_file() else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise MapFormatError(f"{path} does not fit its checksum in map.yaml; restore the map from a copy")
    try:
        listed = entry(table(json.loads(content), "the whole"), "shards", "it")
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_SHARDS:
            raise refuse(listed, "shards", f"a list of 1 to {MAX_SHARDS} shards")
        return tuple(_parse(table(values, "a shard")) for values in listed)
    except (ValueError, RecursionError, MapFormatError) as error:
        raise MapFormatError(f"{path}: {error}") from error


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise MapFormatError(f"{path} is longer than {_MAX_BYTES} bytes, as no map's is; restore it from a copy")
        return path.read_bytes()
    except OSError as error:
        raise MapError(f"{path} cannot be read: {error.strerror}; restore the map from a copy") from error


def shard_folder(folder: Path, shard: ShardEntry) -> Path:
    """Folder of a shard of the map in a folder."""
    return folder / shard.path


def _parse(values: Any) -> ShardEntry:
    def named(name: str) -> Any:
        return entry(values, name, "a shard")

    path = text(named("path"), "path of a shard")
    parts = PurePosixPath(path)
    # A map says nothing of folders that are not its own.
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in path:
        raise refuse(path, "path of a shard", "a path below the map's folder")
    sessions = named("sessions")
    if not isinstance(sessions, list):
        raise refuse(sessions, "sessions of a shard", "a list of names")
    checksum = text(named("sha256"), "sha256 of a shard", _SHA256_DIGITS)
    return ShardEntry(
        text(named("name"), "name of a shard"),
        path,
        checksum,
        integer(named("first_number"), "first_number of a shard", 0, MAX_INT64 // 2),
        integer(named("num_places"), "num_places of a shard"),
        tuple(text(session, "a session of a shard") for session in sessions),
        _box(named("extent_xy"), "extent_xy of a shard"),
        _box(named("extent_geo_deg"), "extent_geo_deg of a shard"),
    )


def _box(value: object, what: str) -> Box | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4:
        raise refuse(value, what, "four numbers")
    low_a, low_b, high_a, high_b = (real(number, what) for number in value)
    return (low_a, low_b, high_a, high_b)
