"""One map of maps that lie below its folder: the manifest that names them, and what is known of all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, ModelMismatchError
from effovpr_ros.core.files import usable_path
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.mapping.index import IndexSummary, flat_limit
from effovpr_ros.mapping.making import lock_map, remove_unfinished_map
from effovpr_ros.mapping.manifest import MANIFEST_NAME, Manifest, now, read_manifest
from effovpr_ros.mapping.map_reading import PCA_PROPERTY
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.positions import positions_xy
from effovpr_ros.mapping.session_cameras import CAMERAS_PROPERTY, read_cameras, write_cameras
from effovpr_ros.mapping.session_origins import ORIGINS_PROPERTY, SessionOrigin, read_origins, write_origins
from effovpr_ros.mapping.shard_numbers import ShardNumbers
from effovpr_ros.mapping.sharded_store import NUMBERS_PROPERTY, SESSIONS_PROPERTY
from effovpr_ros.mapping.shards import MAX_SHARDS, SHARDS_NAME, ShardEntry, extent_of
from effovpr_ros.mapping.store import PlaceStore

SHARDS_FOLDER = "shards"
# Codes are learned from what a shard holds.
FEWEST_CODED = 2**11
SESSION_PROPERTIES = (ORIGINS_PROPERTY, CAMERAS_PROPERTY)


@dataclass(frozen=True)
class ShardDescription:
    """What the whole map keeps of a shard; plain values, so that whoever made the shard can say it.

    Attributes:
        entry: of the shard; its first number is yet to be given.
        numbers: of its places, as first and count of each run.
        starts: its sessions, each with the number of its first place.
        properties: what it keeps of its sessions, as stored, by name.
        index: how it is searched.
    """

    entry: ShardEntry
    numbers: tuple[tuple[int, int], ...]
    starts: tuple[tuple[str, int], ...]
    properties: dict[str, str]
    index: IndexSummary

    def get_property(self, key: str) -> bytes | None:
        """A small value that the shard stores."""
        return self.properties[key].encode() if key in self.properties else None

    def set_property(self, key: str, value: bytes) -> None:
        """A description is not stored to."""
        raise MapError(f"{key} cannot be stored with the description of shard {self.entry.name}")

    def places(self) -> NDArray[np.int64]:
        """(N,) numbers of its places in the whole map, ascending."""
        return self.entry.first_number + np.concatenate([first + np.arange(count) for first, count in self.numbers])


def describe_shard(shard: PlaceMap, path: str) -> ShardDescription:
    """Say of a shard what the whole map keeps of it.

    Args:
        shard: open, with its manifest written.
        path: of its folder, from the folder of the whole map.

    Raises:
        MapError: it has no place.
    """
    own = np.asarray(shard.store.place_ids(), np.int64)
    if not len(own):
        raise MapError(f"shard {path} has no place; leave it out")
    map_xy, geo = shard.store.positions(own)
    entry = ShardEntry(
        name=Path(path).name,
        path=path,
        sha256=hashlib.sha256((shard.path / MANIFEST_NAME).read_bytes()).hexdigest(),
        first_number=0,
        num_places=len(own),
        sessions=shard.manifest.sessions,
        extent_xy=extent_of(positions_xy(map_xy, geo, shard.datum)),
        extent_geo_deg=extent_of(geo[:, :2]),
    )
    begins = np.flatnonzero(np.diff(own, prepend=own[0] - 2) != 1)
    runs = zip(own[begins].tolist(), np.diff([*begins.tolist(), len(own)]).tolist(), strict=True)
    kept = {key: shard.get_property(key) for key in SESSION_PROPERTIES}
    properties = {key: value.decode() for key, value in kept.items() if value is not None}
    starts = tuple(shard.store.session_starts().items())
    return ShardDescription(entry, tuple(runs), starts, properties, shard.manifest.index)


def shard_flat_limit(total: int, dimension: int) -> int:
    """How many places a shard may have to be searched exactly: all, where that is so of the whole map.

    Args:
        total: places of the whole map.
        dimension: of its indexed descriptors.
    """
    return total if total <= flat_limit(dimension) else FEWEST_CODED


def shard_name(number: int) -> str:
    """Name of a shard by its position."""
    return f"{number:05d}"


def join_shards(folder: Path, paths: Sequence[str], first_numbers: Sequence[int], *, name: str = "") -> int:
    """Write the manifest that makes one map of maps that lie below its folder; they stay as they are.

    Frame, datum and settings of recognition are those of the shards, which must be the same.

    Args:
        folder: of the whole map; it has no manifest yet.
        paths: of the shards, from the folder; none is empty.
        first_numbers: that are added to the numbers of their places.
        name: of the map; the folder's if empty.

    Returns:
        Number of places.

    Raises:
        MapError: no shard, one without a place, of another frame or datum, or with a number of another one.
        ModelMismatchError: a shard is of another model.
    """
    folder = usable_path(folder)
    require_number(folder, len(paths))
    descriptions = []
    with PlaceMap.open(folder / paths[0]) as first:
        for path, first_number in zip(paths, first_numbers, strict=True):
            with PlaceMap.open(folder / path) as shard:
                _require_alike(first, shard)
                described = describe_shard(shard, path)
            entry = replace(described.entry, first_number=first_number)
            descriptions.append(replace(described, entry=entry))
        frames = {
            session: frame for path in paths for session, frame in read_manifest(folder / path).session_frames.items()
        }
        whole = replace(first.manifest, session_frames=frames)
        return write_whole(folder, whole, descriptions, first.get_property(PCA_PROPERTY), name=name)


def write_whole(
    folder: Path,
    first: Manifest,
    descriptions: Sequence[ShardDescription],
    pca: bytes | None = None,
    *,
    name: str = "",
    keeps: Sequence[str] = (),
) -> int:
    """Write what makes one map of shards that are described; see `join_shards`.

    Args:
        folder: of the whole map; it has no manifest yet.
        first: manifest of the first shard, whose settings are those of all.
        descriptions: of the shards, with their first numbers.
        pca: principal components that all shards have, as stored.
        name: of the map; the folder's if empty.
        keeps: names of what else lies in the folder and stays.

    Returns:
        Number of places.

    Raises:
        MapError: no shard, a number twice, or the folder cannot be written.
    """
    require_number(folder, len(descriptions))
    folder.mkdir(parents=True, exist_ok=True)
    starts: dict[str, int] = {}
    origins: dict[str, SessionOrigin] = {}
    cameras: dict[str, MountedCamera] = {}
    for described in descriptions:
        for session, start in described.starts:
            number = start + described.entry.first_number
            starts[session] = min(number, starts.get(session, number))
        origins |= read_origins(described)
        cameras |= read_cameras(described)
    sessions = sorted(starts.items(), key=lambda item: item[1])
    numbers = ShardNumbers.of_shards([described.places() for described in descriptions])
    entries = tuple(described.entry for described in descriptions)
    lock = lock_map(folder)
    try:
        remove_unfinished_map(folder, keeps=(SHARDS_FOLDER, SHARDS_NAME, *keeps))
        store = PlaceStore(folder, create=True)
        try:
            store.set_property(NUMBERS_PROPERTY, numbers.to_bytes())
            store.set_property(SESSIONS_PROPERTY, json.dumps(sessions).encode())
            write_origins(store, origins)
            write_cameras(store, cameras)
            if pca is not None:
                store.set_property(PCA_PROPERTY, pca)
        finally:
            store.close()
        replace(
            first,
            name=name or folder.resolve().name,
            created=now(),
            num_places=len(numbers),
            sessions=tuple(session for session, _ in sessions),
            places_sha256=checksum_of(entries),
            index_sha256="",
            index=summary_of([described.index for described in descriptions]),
            shards=entries,
        ).write(folder)
    finally:
        lock.release()
    return len(numbers)


def require_number(folder: Path, num_shards: int) -> None:
    """Refuse a map of too many shards, or of none."""
    if not 0 < num_shards <= MAX_SHARDS:
        raise MapError(f"map {folder} would have {num_shards} shards; there can be 1 to {MAX_SHARDS}")


def _require_alike(first: PlaceMap, shard: PlaceMap) -> None:
    differences = first.fingerprint.differences(shard.fingerprint)
    if differences:
        raise ModelMismatchError(
            f"shard {shard.path} is of another model than {first.path} (first != shard): {'; '.join(differences)}; "
            "build it again with the others' model"
        )
    settings = (
        ("frame", first.frame_id, shard.frame_id),
        ("datum", first.datum, shard.datum),
        ("settings of recognition", dict(first.manifest.recognition), dict(shard.manifest.recognition)),
    )
    for what, wanted, found in settings:
        if wanted != found:
            raise MapError(
                f"shard {shard.path} has the {what} {found}, {first.path} {wanted}; build it again as the others"
            )
    if first.get_property(PCA_PROPERTY) != shard.get_property(PCA_PROPERTY):
        raise MapError(
            f"shard {shard.path} has other principal components than {first.path}, so that their similarities do not "
            "compare; build both without --pca"
        )


def checksum_of(entries: Sequence[ShardEntry]) -> str:
    """Checksum over the places of all shards."""
    said = json.dumps([(entry.first_number, entry.sha256) for entry in entries])
    return hashlib.sha256(said.encode()).hexdigest()


def summary_of(indices: Sequence[IndexSummary]) -> IndexSummary:
    """Of the whole: the kind of any that is searched by codes, the most that are compared, the least that is found."""
    coded = [index for index in indices if index.kind != IndexSummary().kind]
    if not coded:
        return IndexSummary()
    recalls = [index.recall_at_10 for index in coded]
    known = [recall for recall in recalls if recall is not None]
    recall = min(known) if len(known) == len(recalls) else None
    return IndexSummary(coded[0].kind, max(index.rescored for index in coded), recall)
