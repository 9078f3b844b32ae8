"""One map of maps that lie below its folder: the manifest that names them, and what is known of all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, ModelMismatchError
from effovpr_ros.core.files import usable_path
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.mapping.index import IndexSummary
from effovpr_ros.mapping.making import lock_map, remove_unfinished_map
from effovpr_ros.mapping.manifest import MANIFEST_NAME, now
from effovpr_ros.mapping.map_reading import PCA_PROPERTY
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.positions import positions_xy
from effovpr_ros.mapping.session_cameras import read_cameras, write_cameras
from effovpr_ros.mapping.session_origins import SessionOrigin, read_origins, write_origins
from effovpr_ros.mapping.shard_numbers import ShardNumbers
from effovpr_ros.mapping.sharded_store import NUMBERS_PROPERTY, SESSIONS_PROPERTY
from effovpr_ros.mapping.shards import MAX_SHARDS, SHARDS_NAME, ShardEntry, extent_of
from effovpr_ros.mapping.store import PlaceStore

SHARDS_FOLDER = "shards"


@dataclass
class _Known:
    """What the shards say, put together."""

    entries: list[ShardEntry] = field(default_factory=list)
    numbers: list[NDArray[np.int64]] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)
    origins: dict[str, SessionOrigin] = field(default_factory=dict)
    cameras: dict[str, MountedCamera] = field(default_factory=dict)
    frames: dict[str, Mapping[str, str]] = field(default_factory=dict)
    indices: list[IndexSummary] = field(default_factory=list)

    def take(self, shard: PlaceMap, path: str, first_number: int) -> None:
        own = np.asarray(shard.store.place_ids(), np.int64)
        if not len(own):
            raise MapError(f"shard {path} has no place; leave it out")
        self.entries.append(_entry_of(shard, path, first_number, own))
        self.numbers.append(own + first_number)
        for session, start in shard.store.session_starts().items():
            self.starts[session] = min(start + first_number, self.starts.get(session, start + first_number))
        self.origins |= read_origins(shard)
        self.cameras |= read_cameras(shard)
        self.frames |= shard.manifest.session_frames
        self.indices.append(shard.manifest.index)


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
    if not 0 < len(paths) <= MAX_SHARDS:
        raise MapError(f"map {folder} would have {len(paths)} shards; there can be 1 to {MAX_SHARDS}")
    known = _Known()
    with PlaceMap.open(folder / paths[0]) as first:
        for path, first_number in zip(paths, first_numbers, strict=True):
            with PlaceMap.open(folder / path) as shard:
                _require_alike(first, shard)
                known.take(shard, path, first_number)
        sessions = sorted(known.starts.items(), key=lambda item: item[1])
        lock = lock_map(folder)
        try:
            remove_unfinished_map(folder, keeps=(SHARDS_FOLDER, SHARDS_NAME))
            store = PlaceStore(folder, create=True)
            try:
                store.set_property(NUMBERS_PROPERTY, ShardNumbers.of_shards(known.numbers).to_bytes())
                store.set_property(SESSIONS_PROPERTY, json.dumps(sessions).encode())
                write_origins(store, known.origins)
                write_cameras(store, known.cameras)
                if first.pca is not None:
                    store.set_property(PCA_PROPERTY, first.pca.to_bytes())
            finally:
                store.close()
            total = sum(entry.num_places for entry in known.entries)
            replace(
                first.manifest,
                name=name or folder.resolve().name,
                created=now(),
                num_places=total,
                sessions=tuple(session for session, _ in sessions),
                session_frames=known.frames,
                places_sha256=_checksum(known.entries),
                index_sha256="",
                index=_summary(known.indices),
                shards=tuple(known.entries),
            ).write(folder)
        finally:
            lock.release()
    return total


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


def _entry_of(shard: PlaceMap, path: str, first_number: int, own: NDArray[np.int64]) -> ShardEntry:
    map_xy, geo = shard.store.positions(own)
    return ShardEntry(
        name=Path(path).name,
        path=path,
        sha256=hashlib.sha256((shard.path / MANIFEST_NAME).read_bytes()).hexdigest(),
        first_number=first_number,
        num_places=len(own),
        sessions=shard.manifest.sessions,
        extent_xy=extent_of(positions_xy(map_xy, geo, shard.datum)),
        extent_geo_deg=extent_of(geo[:, :2]),
    )


def _checksum(entries: Sequence[ShardEntry]) -> str:
    said = json.dumps([(entry.first_number, entry.sha256) for entry in entries])
    return hashlib.sha256(said.encode()).hexdigest()


def _summary(indices: Sequence[IndexSummary]) -> IndexSummary:
    """Of the whole: the kind of any that is searched by codes, the most that are compared, the least that is found."""
    coded = [index for index in indices if index.kind != IndexSummary().kind]
    if not coded:
        return IndexSummary()
    recalls = [index.recall_at_10 for index in coded]
    known = [recall for recall in recalls if recall is not None]
    recall = min(known) if len(known) == len(recalls) else None
    return IndexSummary(coded[0].kind, max(index.rescored for index in coded), recall)
