"""Memory for local features that were read lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from effovpr_ros.features.extractor import LocalFeatures


class LocalCache:
    """Least recently used local features by place, bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty.

        Args:
            max_bytes: of codes and cells; the oldest are forgotten beyond.
        """
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[int, LocalFeatures] = OrderedDict()

    def __contains__(self, place_id: int) -> bool:
        """Whether a place is in memory."""
        return place_id in self._entries

    def get(self, place_id: int) -> LocalFeatures:
        """Features of a place that is in memory."""
        self._entries.move_to_end(place_id)
        return self._entries[place_id]

    def put_all(self, features: Mapping[int, LocalFeatures]) -> None:
        """Remember places that are not in memory yet."""
        for place_id, local in features.items():
            self._entries[place_id] = local
            self._bytes += local.codes.nbytes + local.cells_xy.nbytes
        while self._bytes > self._max_bytes and self._entries:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.codes.nbytes + oldest.cells_xy.nbytes
