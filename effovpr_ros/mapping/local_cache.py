"""Memory for local features that were read lately."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from effovpr_ros.features.image_features import PackedLocal

CACHE_BYTES = 24 * 2**20
"""A thousand places of the default model. Reading takes a quarter of re-ranking: more would hardly be worth it."""


class LocalCache:
    """Least recently used local features by place, bounded in bytes; for any number of threads."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty.

        Args:
            max_bytes: of codes and cells; the oldest are forgotten beyond.
        """
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[int, PackedLocal] = OrderedDict()
        self._lock = threading.Lock()

    def features(
        self, place_ids: Sequence[int], read: Callable[[Sequence[int]], Sequence[PackedLocal]]
    ) -> list[PackedLocal]:
        """Features of places, in the order asked for; `read` gives those that are not in memory, which then are."""
        found = self.found(place_ids)
        missing = [place_id for place_id in dict.fromkeys(place_ids) if place_id not in found]
        if missing:
            fresh = dict(zip(missing, read(missing), strict=True))
            self.put_all(fresh)
            found |= fresh
        return [found[place_id] for place_id in place_ids]

    def found(self, place_ids: Iterable[int]) -> dict[int, PackedLocal]:
        """Features of those places that are in memory; the caller keeps them, whatever is forgotten meanwhile."""
        found = {}
        with self._lock:
            for place_id in place_ids:
                if place_id in self._entries:
                    self._entries.move_to_end(place_id)
                    found[place_id] = self._entries[place_id]
        return found

    def forget(self, place_ids: Iterable[int]) -> None:
        """Forget places, in memory or not."""
        with self._lock:
            for place_id in place_ids:
                if place_id in self._entries:
                    self._bytes -= _bytes(self._entries.pop(place_id))

    def put_all(self, features: Mapping[int, PackedLocal]) -> None:
        """Remember places that are not in memory yet."""
        with self._lock:
            for place_id, local in features.items():
                # Another thread may have read the same place.
                if place_id not in self._entries:
                    self._entries[place_id] = local
                    self._bytes += _bytes(local)
            while self._bytes > self._max_bytes and self._entries:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= _bytes(oldest)


def _bytes(local: PackedLocal) -> int:
    return local.codes.nbytes + local.cells_xy.nbytes
