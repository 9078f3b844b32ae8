"""More shards for a map that lies in shards: they come beside those that it has, whose places keep their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.files import usable_path
from effovpr_ros.mapping.making import lock_map
from effovpr_ros.mapping.manifest import read_manifest
from effovpr_ros.mapping.session_cameras import read_cameras, write_cameras
from effovpr_ros.mapping.session_origins import read_origins, write_origins
from effovpr_ros.mapping.shard_joining import ShardDescription, checksum_of, require_number, summary_of
from effovpr_ros.mapping.shard_numbers import ShardNumbers
from effovpr_ros.mapping.sharded_map import ShardedMap
from effovpr_ros.mapping.sharded_store import NUMBERS_PROPERTY, SESSIONS_PROPERTY, name_after
from effovpr_ros.mapping.shards import keep_list
from effovpr_ros.mapping.store import PlaceStore


def add_shards(
    folder: Path, descriptions: Sequence[ShardDescription], session_frames: Mapping[str, Mapping[str, str]]
) -> int:
    """Add shards that lie below the folder of a map. After a kill the map is as before or has them all.

    Args:
        folder: of the whole map.
        descriptions: of the shards; their first numbers are given here. Their sessions are new ones.
        session_frames: see `Manifest`, of their sessions.

    Returns:
        Number of places of the map.

    Raises:
        InUseError: another program writes to the map.
        MapError: damaged, too many shards, or it cannot be written.
    """
    folder = usable_path(folder)
    with ShardedMap.open(folder) as before:
        numbers, known = before.numbers, before.store.session_starts()
    lock = lock_map(folder)
    try:
        manifest = read_manifest(folder)
        if manifest.num_places != len(numbers):
            raise MapError(f"map {folder} was changed meanwhile; repeat the command")
        next_number, added = int(numbers.numbers[-1]) + 1, []
        starts = dict(known)
        for described in descriptions:
            added.append(replace(described, entry=replace(described.entry, first_number=next_number)))
            for session, start in described.starts:
                starts.setdefault(session, start + next_number)
            next_number = int(added[-1].places()[-1]) + 1
        entries = (*manifest.shards, *(described.entry for described in added))
        require_number(folder, len(entries))
        every = ShardNumbers.of_shards(
            [*(numbers.numbers[rows] for rows in numbers.rows), *(described.places() for described in added)]
        )
        sessions = sorted(starts.items(), key=lambda item: item[1])
        store = PlaceStore(folder, writable=True)
        try:
            origins, cameras = read_origins(store), read_cameras(store)
            for described in added:
                origins |= read_origins(described)
                cameras |= read_cameras(described)
            # What the map before is read by stays, until the manifest names the new shards.
            store.set_property(name_after(NUMBERS_PROPERTY, len(entries)), every.to_bytes())
            store.set_property(name_after(SESSIONS_PROPERTY, len(entries)), json.dumps(sessions).encode())
            write_origins(store, origins)
            write_cameras(store, cameras)
        finally:
            store.close()
        keep_list(folder)
        replace(
            manifest,
            num_places=len(every),
            sessions=tuple(session for session, _ in sessions),
            session_frames={**manifest.session_frames, **session_frames},
            places_sha256=checksum_of(entries),
            index=summary_of([manifest.index, *(described.index for described in added)]),
            shards=entries,
        ).write(folder)
    finally:
        lock.release()
    return len(every)
