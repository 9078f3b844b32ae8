"""Store and index of a map in shards: each question goes to the shards that can answer it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.features.image_features import Features, PackedLocal
from effovpr_ros.mapping.checked import integer, text
from effovpr_ros.mapping.index import DescriptorIndex, IndexSummary
from effovpr_ros.mapping.manifest import Manifest
from effovpr_ros.mapping.map_reading import PCA_PROPERTY
from effovpr_ros.mapping.open_shards import OpenShards, Shard
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.shard_numbers import ShardNumbers
from effovpr_ros.mapping.store import PlaceStore

NUMBERS_PROPERTY = "shard_numbers"
SESSIONS_PROPERTY = "shard_sessions"
SHARD_PROPERTIES = (NUMBERS_PROPERTY, SESSIONS_PROPERTY)
"""Names of properties, or what comes before a slash in them, see `name_after`."""
_BLOCK = 2**15
_THREADS = 8

Item = TypeVar("Item")
Of = TypeVar("Of")


def name_after(name: str, num_shards: int) -> str:
    """Name of a property of a map that shards were added to, beside that of the map before."""
    return f"{name}/{num_shards}"


class ShardedStore(PlaceStore):
    """Its own file keeps what belongs to the whole map; the places lie in the shards."""

    def __init__(self, folder: Path, manifest: Manifest, shard_bytes: int, *, writable: bool) -> None:
        """Open the file of the whole map, and no shard.

        Args:
            folder: of the whole map.
            manifest: of it.
            shard_bytes: see `OpenShards`.
            writable: properties may be set.

        Raises:
            MapError: missing or damaged.
        """
        super().__init__(folder, writable=writable)
        # Each with one thread of OpenMP: teams of several would wait for each other.
        self._threads = ThreadPoolExecutor(_THREADS, "shard", faiss.omp_set_num_threads, (1,))
        try:
            self._manifest, self._entries = manifest, manifest.shards
            counts = [entry.num_places for entry in self._entries]
            self.numbers = ShardNumbers.from_bytes(self._of_shards(NUMBERS_PROPERTY), counts)
            pca = self.get_property(PCA_PROPERTY)
            self.shards = OpenShards(folder, self._entries, manifest.fingerprint, pca, shard_bytes)
        except BaseException:
            super().close()
            raise

    def __len__(self) -> int:
        """Number of places."""
        return len(self.numbers)

    @property
    def guessed_below(self) -> int:
        """None of its own places; each shard knows those that an earlier version wrote."""
        return 0

    def place_ids(self) -> Sequence[int]:
        """Numbers of all places, ascending."""
        return array("q", self.numbers.numbers.tobytes())

    def session_starts(self) -> dict[str, int]:
        """The first place of each session, in order of appearance."""
        stored = self._of_shards(SESSIONS_PROPERTY)
        try:
            listed = json.loads(stored or b"")
            return {text(session, "a session"): integer(first, "its first place") for session, first in listed}
        except (ValueError, TypeError, RecursionError, MapFormatError) as error:
            raise MapFormatError(
                f"{self._path}: the sessions of its places are damaged ({error}); restore the map from a copy"
            ) from error

    def _of_shards(self, name: str) -> bytes | None:
        """What is kept of the shards that the manifest names."""
        added = self.get_property(name_after(name, len(self._entries)))
        return self.get_property(name) if added is None else added

    def places(self, place_ids: Sequence[int] | None = None) -> list[Place]:
        """Places by ascending number; all where none are named."""
        asked = self.numbers.numbers.tolist() if place_ids is None else sorted(set(place_ids))
        everything = place_ids is None

        def read(shard: Shard, numbers: Sequence[int]) -> list[Place]:
            return shard.place_source.places(None if everything else numbers)

        return [replace(place, place_id=number) for number, place in zip(asked, self.ask(asked, read), strict=True)]

    def packed_local(self, place_ids: Sequence[int], width: int) -> list[PackedLocal]:
        """Local features of places with packed codes, in the order asked for; see `PlaceStore`."""
        return self.ask(place_ids, lambda shard, numbers: shard.store.packed_local(numbers, width))

    def features(self, place_ids: Sequence[int], dimension: int, width: int) -> list[Features]:
        """All features of places, in the order asked for; see `PlaceStore`."""
        return self.ask(place_ids, lambda shard, numbers: shard.store.features(numbers, dimension, width))

    def points(self, place_ids: Sequence[int]) -> list[bytes | None]:
        """Encoded points of places, in the order asked for; see `PlaceStore`."""
        return self.ask(place_ids, lambda shard, numbers: shard.store.points(numbers))

    def thumbnail(self, place_id: int) -> bytes:
        """JPEG of a place."""
        return self.ask([place_id], lambda shard, numbers: [shard.store.thumbnail(numbers[0])])[0]

    def digest(self, place_id: int) -> str:
        """What tells a place's image from others of its name and time; empty if unknown."""
        return self.ask([place_id], lambda shard, numbers: [shard.store.digest(numbers[0])])[0]

    def positions(self, place_ids: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions of places; see `PlaceStore`."""
        numbers = place_ids.tolist()

        def read(shard: Shard, own: Sequence[int]) -> list[NDArray[np.float64]]:
            return list(np.concatenate(shard.store.positions(np.asarray(own, np.int64)), axis=1))

        values = np.array(self.ask(numbers, read), np.float64).reshape(-1, 5)
        return values[:, :2], values[:, 2:]

    def descriptor_blocks(self, dimension: int, first_id: int, last_id: int) -> Iterator[NDArray[np.float32]]:
        """(M, D) float32 descriptors by ascending number; see `PlaceStore`."""
        every = self.numbers
        first, end = np.searchsorted(every.numbers, [first_id, last_id + 1]).tolist()
        for start in range(first, end, _BLOCK):
            stop = min(start + _BLOCK, end)
            block = np.empty((stop - start, dimension), np.float32)
            for number, rows in enumerate(every.rows):
                within = rows[slice(*np.searchsorted(rows, [start, stop]))]
                if len(within):
                    own = every.numbers[within[[0, -1]]] - self._entries[number].first_number
                    with self.shards.use(number) as shard:
                        read = list(shard.store.descriptor_blocks(dimension, int(own[0]), int(own[1])))
                    block[within - start] = np.concatenate(read)
            yield block

    def sources(self, session: str) -> dict[tuple[str, int | None], set[str]]:
        """Digests of all places of a session by source and stamp_ns."""
        found: dict[tuple[str, int | None], set[str]] = {}
        for number in range(len(self._entries)):
            with self.shards.use(number) as shard:
                for key, digests in shard.store.sources(session).items():
                    found.setdefault(key, set()).update(digests)
        return found

    def checksum(self, num_places: int) -> str:
        """Checksum over the places of all shards, as the manifest has it; of all places alone."""
        if num_places != len(self):
            raise MapError(f"{self._path} lies in shards and has a checksum of all its {len(self)} places alone")
        return self._manifest.places_sha256

    def damaged(self, width: int) -> Iterator[str]:
        """One line for everything that is not as it was written; reads all of it."""
        yield from super().damaged(width)
        for number, entry in enumerate(self._entries):
            try:
                with self.shards.use(number) as shard:
                    yield from (f"shard {entry.name}: {line}" for line in shard.check())
            except MapError as error:
                yield str(error)

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of descriptors, thumbnails, points and index of all shards."""
        total: dict[str, int] = {}
        for number in range(len(self._entries)):
            with self.shards.use(number) as shard:
                for part, size in shard.bytes_by_part().items():
                    total[part] = total.get(part, 0) + size
        return total

    def place_in_shard(self, place_id: int) -> tuple[int, int]:
        """Position of a place's shard in the list, and the place's number there.

        Raises:
            MapError: no such place.
        """
        number = self.numbers.shard_of(place_id)
        if number is None:
            raise MapError(f"map {self._path.parent} has no place {place_id}")
        return number, place_id - self._entries[number].first_number

    def close(self) -> None:
        """Close the shards and the file."""
        self._threads.shutdown()
        self.shards.close()
        super().close()

    def each(self, function: Callable[[Item], Of], items: Sequence[Item]) -> list[Of]:
        """A function of each item, which asks one shard, in their order.

        At a time once all are open; else one after the other, since those in use count against no bound of memory.
        """
        if len(items) > 1 and self.shards.are_all_open:
            return list(self._threads.map(function, items))
        return [function(item) for item in items]

    def ask(self, place_ids: Sequence[int], read: Callable[[Shard, Sequence[int]], Sequence[Of]]) -> list[Of]:
        """What each shard answers about its own places, in the order asked for.

        Args:
            place_ids: in the whole map.
            read: answers for numbers of a shard, in their order.
        """
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for position, place_id in enumerate(place_ids):
            number, own = self.place_in_shard(place_id)
            by_shard.setdefault(number, []).append((position, own))

        def ask_shard(item: tuple[int, list[tuple[int, int]]]) -> dict[int, Of]:
            number, asked = item
            with self.shards.use(number) as shard:
                found = read(shard, [own for _, own in asked])
            return {position: answer for (position, _), answer in zip(asked, found, strict=True)}

        answers: dict[int, Of] = {}
        for part in self.each(ask_shard, list(by_shard.items())):
            answers |= part
        return [answers[position] for position in range(len(place_ids))]


class ShardedIndex(DescriptorIndex):
    """The indices of all shards as one, by rows of the whole map; nothing is added to it."""

    def __init__(self, dimension: int, store: ShardedStore, summary: IndexSummary) -> None:
        """Join them.

        Args:
            dimension: D of the descriptors.
            store: of the whole map.
            summary: of the shards' indices.
        """
        super().__init__(dimension)
        self._store = store
        self._summary = summary

    def __len__(self) -> int:
        """Number of descriptors."""
        return len(self._store)

    @property
    def is_exact(self) -> bool:
        """Whether every search compares with every descriptor."""
        return self._summary.kind == IndexSummary().kind

    @property
    def summary(self) -> IndexSummary:
        """How the shards are searched, and what they find."""
        return self._summary

    def search(
        self, descriptor: NDArray[np.float32], top_k: int, *, among: Sequence[int] | NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Nearest descriptors of all shards that have any of `among`; see `DescriptorIndex`."""
        store = self._store

        def ask_shard(number: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            own = None if among is None else store.numbers.rows_within(number, among)
            if own is not None and not len(own):
                return np.empty(0, np.int64), np.empty(0, np.float32)
            with store.shards.use(number) as shard:
                found, similarity = shard.descriptor_index.search(descriptor, top_k, among=own)
            return store.numbers.rows[number][found], similarity

        parts = store.each(ask_shard, range(len(store.numbers.rows)))
        row, similarity = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.lexsort((row, -similarity))[:top_k]
        return row[order], similarity[order]

    def descriptors(self, first: int, count: int) -> NDArray[np.float32]:
        """Not kept as one: each shard has those of its own."""
        raise MapError("the descriptors of a map in shards are asked of its shards")

    def add(self, descriptors: NDArray[np.float32]) -> None:
        """Nothing is added to a map in shards."""
        raise MapError("a map in shards is not added to; build another shard, or make one map of it first")

    def remove(self, numbers: Collection[int]) -> None:
        """Nothing is removed from a map in shards."""
        raise MapError("places of a map in shards are not removed; make one map of it first")
