"""A map in shards, made of an existing map by place or by session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.files import sync_folder, usable_path
from effovpr_ros.core.work_folder import work_folder
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.merge import COMMIT_PLACES, copy_properties, whole_places
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.pose_frames import PoseFrames
from effovpr_ros.mapping.positions import positions_xy
from effovpr_ros.mapping.session_cameras import read_cameras, write_cameras
from effovpr_ros.mapping.session_origins import read_origins, write_origins
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER, join_shards, shard_flat_limit, shard_name
from effovpr_ros.mapping.sharded_map import ShardedMap, open_map
from effovpr_ros.mapping.shards import MAX_SHARDS, By

_READ_PLACES = 2**13


def shard_map(
    path: Path, out: Path, num_shards: int, by: By = "place", progress: Callable[[int], object] | None = None
) -> int:
    """Make a map in shards of a map. Places keep their numbers, so that it answers as the one map does.

    By place, the map is halved across its longer side again and again, so that shards have equally many places; those
    without a position are shared out by number. By session, whole sessions that follow each other share a shard. The
    new map appears under its name when it is finished; what a kill leaves beside it, the next call removes.

    Args:
        path: of a map of either kind.
        out: folder that does not exist yet.
        num_shards: at least 1, at most as many as there are places, or sessions.
        by: place or session.
        progress: called with the number of places copied since the last call.

    Returns:
        Number of places.

    Raises:
        MapError: `out` exists, an impossible number of shards, or the map is damaged.
    """
    out = usable_path(out)
    with open_map(path) as source, work_folder(out, "sharding") as work:
        if out.exists():
            raise MapError(f"{out} exists already; choose a new folder for the map in shards")
        new = work / out.name
        total = len(source)
        limit = shard_flat_limit(total, source.global_dim)
        parts = cut_places(source, num_shards, by)
        for number, place_ids in enumerate(parts):
            _write_shard(source, new / SHARDS_FOLDER / shard_name(number), place_ids, limit, progress)
        paths = [f"{SHARDS_FOLDER}/{shard_name(number)}" for number in range(len(parts))]
        join_shards(new, paths, [0] * len(parts), name=source.name)
        with ShardedMap.open(new, writable=True) as made:
            copy_properties(source, made)
        try:
            new.rename(out)
            sync_folder(out.parent)
        except OSError as error:
            raise MapError(f"{out} cannot be written: {error.strerror}; choose another folder") from error
    return total


def cut_places(source: MapReader, num_shards: int, by: By) -> list[NDArray[np.int64]]:
    """Numbers of the places of each shard, ascending.

    Raises:
        MapError: an impossible number of shards.
    """
    numbers = np.asarray(source.place_source.place_ids(), np.int64)
    if not 0 < num_shards <= min(len(numbers), MAX_SHARDS):
        raise MapError(
            f"{num_shards} shards cannot be made of map {source.path}, which has {len(numbers)} places; "
            f"ask for 1 to {min(len(numbers), MAX_SHARDS)}"
        )
    if by == "session":
        return _by_session(source, numbers, num_shards)
    xy = positions_xy(*source.store.positions(numbers), source.datum)
    known = ~np.isnan(xy[:, 0])
    parts = _halved(xy, np.flatnonzero(known), num_shards)
    rest = np.array_split(np.flatnonzero(~known), num_shards)
    shards = [numbers[np.sort(np.concatenate(pair))] for pair in zip(parts, rest, strict=True)]
    # Few places with a position and few without may leave one with neither.
    return [shard for shard in shards if len(shard)]


def _halved(xy: NDArray[np.float64], rows: NDArray[np.int64], parts: int) -> list[NDArray[np.int64]]:
    if parts == 1:
        return [rows]
    axis = int(np.argmax(np.ptp(xy[rows], axis=0))) if len(rows) else 0
    ordered = rows[np.argsort(xy[rows, axis], kind="stable")]
    first = parts // 2
    at = len(rows) * first // parts
    return [*_halved(xy, ordered[:at], first), *_halved(xy, ordered[at:], parts - first)]


def _by_session(source: MapReader, numbers: NDArray[np.int64], num_shards: int) -> list[NDArray[np.int64]]:
    names = source.sessions
    if num_shards > len(names):
        raise MapError(
            f"{num_shards} shards cannot be made of the {len(names)} sessions of map {source.path}; ask for at most "
            f"{len(names)}, or cut it by place"
        )
    position = {name: number for number, name in enumerate(names)}
    session = np.array([position[place.session] for place in _read(source, numbers)], np.int64)
    counts = np.bincount(session, minlength=len(names))
    # Each session goes where its middle falls among equally large shards; none of these stays empty.
    middle = (np.cumsum(counts) - counts / 2) / len(numbers) * num_shards
    lowest = np.arange(len(names)) - len(names) + num_shards
    shard = np.zeros(len(names), np.int64)
    for number in range(len(names)):
        before = shard[number - 1] if number else -1
        wanted = max(int(middle[number]), int(lowest[number]), max(int(before), 0))
        shard[number] = min(wanted, int(before) + 1)
    return [numbers[shard[session] == number] for number in range(num_shards)]


def _read(source: MapReader, numbers: NDArray[np.int64]) -> Iterator[Place]:
    for start in range(0, len(numbers), _READ_PLACES):
        yield from source.place_source.places(numbers[start : start + _READ_PLACES].tolist())


def _write_shard(
    source: MapReader, folder: Path, numbers: NDArray[np.int64], limit: int, progress: Callable[[int], object] | None
) -> None:
    """Copy places with their numbers into a map of their own."""
    with PlaceMap.create(
        folder,
        fingerprint=source.fingerprint,
        name=f"{source.name}/{folder.name}",
        frame_id=source.frame_id,
        datum=source.datum,
        recognition=source.manifest.recognition,
    ) as shard:
        if source.pca is not None:
            shard.set_pca(source.pca)
        frames = PoseFrames()
        for start in range(0, len(numbers), COMMIT_PLACES):
            own = numbers[start : start + COMMIT_PLACES].tolist()
            places = source.place_source.places(own)
            begun = frames
            for place in places:
                begun = begun.begin(place.session, place.place_id, place.own_frame)
            if begun is not frames:
                frames = begun
                shard.set_pose_frames(frames)
            shard.add(whole_places(source, places), own)
            if progress:
                progress(len(own))
        sessions = shard.sessions
        write_origins(shard, {name: origin for name, origin in read_origins(source).items() if name in sessions})
        write_cameras(shard, {name: camera for name, camera in read_cameras(source).items() if name in sessions})
        if len(shard) > limit:
            shard.reindex(limit)
        shard.flush()
