"""ShardedMap: many maps of one model that answer as one; and the one function that opens either kind of map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.core.files import usable_path
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.making import lock_map
from effovpr_ros.mapping.manifest import read_manifest
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.shard_numbers import ShardNumbers
from effovpr_ros.mapping.sharded_store import ShardedIndex, ShardedStore
from effovpr_ros.mapping.shards import Box, ShardEntry, extent_of

SHARD_BYTES = 2**32
"""Of shards that stay open while nobody uses them."""


def open_map(path: str | Path, *, writable: bool = False, shard_bytes: int = SHARD_BYTES) -> MapReader:
    """Open a map, whether its places lie in its folder or in shards.

    A map in shards opens no shard before it is asked for, and lets go of those that were not used for longest.

    Args:
        path: folder of the map.
        writable: places may be added to a map of one folder, and properties be set of either kind.
        shard_bytes: that the indices and tables of shards may take which stay open while nobody uses them; a query
            needs at least one shard at a time.

    Returns:
        A `PlaceMap` or a `ShardedMap`.

    Raises:
        MapError: missing, damaged, a shard is missing, or not writable though wanted.
        MapFormatError: of another format version, or a shard is not the one that the map names.
    """
    if shard_bytes < 0:
        raise MapError(f"shards cannot be kept in {shard_bytes} bytes; give a number of bytes, 0 or more")
    folder = usable_path(path)
    if read_manifest(folder).shards:
        return ShardedMap.open(folder, writable=writable, shard_bytes=shard_bytes)
    return PlaceMap.open(folder, writable=writable)


class ShardedMap(MapReader):
    """An open map in shards; see `open_map`. Its places have numbers of the whole map."""

    _store: ShardedStore

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False, shard_bytes: int = SHARD_BYTES) -> ShardedMap:
        """Open a map that lies in shards; see `open_map`."""
        folder = usable_path(path)
        lock: FileLock | None = lock_map(folder) if writable else None
        try:
            manifest = read_manifest(folder)
            store = ShardedStore(folder, manifest, shard_bytes, writable=writable)
            try:
                return cls(folder, manifest, store, lock)
            except BaseException:
                store.close()
                raise
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        """What the map is made of."""
        return self._manifest.shards

    @property
    def numbers(self) -> ShardNumbers:
        """Which shard each place lies in."""
        return self._store.numbers

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the shards that are open now."""
        return self._store.shards.names

    def shard_of(self, place_id: int) -> tuple[ShardEntry, int]:
        """The shard of a place, and the place's number there; a MapError where there is no such place."""
        number, own = self._store.place_in_shard(place_id)
        return self.shards[number], own

    def folder_of(self, place_id: int) -> tuple[Path, int]:
        """Folder of the shard that a place lies in, and its number there; a MapError where there is none."""
        shard, own = self.shard_of(place_id)
        return self.path / shard.path, own

    def rows_near(self, centre_xy: tuple[float, float], radius_m: float) -> NDArray[np.int64]:
        """Rows of the places within a horizontal radius; shards that end farther away are not opened."""
        found = [np.empty(0, np.int64)]
        for number, entry in enumerate(self.shards):
            if entry.is_near(centre_xy, radius_m):
                with self._store.shards.use(number) as shard:
                    found.append(self._store.numbers.rows[number][shard.rows_near(centre_xy, radius_m)])
        return np.sort(np.concatenate(found))

    def extent_xy(self) -> Box | None:
        """Least x and y and greatest x and y of the places, as the shards are known to have them; opens none."""
        boxes = [entry.extent_xy for entry in self.shards if entry.extent_xy is not None]
        return extent_of(np.array(boxes).reshape(-1, 2)) if boxes else None

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on disk of descriptors, thumbnails, points and index, of all shards."""
        return self._store.bytes_by_part()

    def check(self) -> list[str]:
        """Read all shards and compare them with their checksums; returns problems."""
        return list(self._store.damaged(self.fingerprint.local_dim))

    def _load_index(self, dimension: int) -> DescriptorIndex:
        return ShardedIndex(dimension, self._store, self._manifest.index)
