"""Codes of a map's places that stay on a GPU, so that re-ranking neither reads nor copies them again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from effovpr_ros.core.errors import MapError
from effovpr_ros.features.image_features import LocalFeatures, PackedLocal
from effovpr_ros.matching.on_device import CodesOnDevice, score_on_device
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore

if TYPE_CHECKING:
    from effovpr_ros.mapping.map_reading import MapReader

_logger = logging.getLogger(__name__)

# Of the memory that is free at first. Twice as much is taken for a moment when the memory grows.
_SHARE = 1 / 3
# Of the places of larger maps those are read that queries ask for: reading all would delay the first answer.
_MOST_FILLED = 100_000
_CHUNK = 256


def room_on(device: str) -> int:
    """Bytes of a GPU that codes may take: a third of what is free."""
    return int(torch.cuda.mem_get_info(torch.device(device))[0] * _SHARE)


class ResidentCodes:
    """Packed codes and cells of places, kept on a device once they were read; for any number of threads.

    Where they do not all fit, the first that were asked for stay; each of the others is read and copied for every
    query that needs it, which the log says once.

    Attributes:
        device: torch device.
    """

    def __init__(self, place_map: MapReader, device: str, max_bytes: int | None = None) -> None:
        """Keep nothing yet.

        Args:
            place_map: whose places they are; it may grow, and forget places.
            device: torch device.
            max_bytes: that they may take; None: as `room_on` the GPU.
        """
        self._map = place_map
        self.device = device
        half = place_map.fingerprint.local_dim // 2
        self._max_rows = (room_on(device) if max_bytes is None else max_bytes) // (half + 2)
        self._lock = threading.Lock()
        self._is_filled = self._is_told = False
        self._codes = self._nothing()
        self._places: dict[int, tuple[int, int]] = {}
        self._used = 0

    def __len__(self) -> int:
        """Number of places that are kept."""
        return len(self._places)

    @property
    def summary(self) -> str:
        """How many places are kept, for people."""
        rows, half = self._codes.packed.shape
        megabytes = rows * (half + 2) / 1e6
        return f"{len(self)} places on {self.device} ({megabytes:.0f} MB) of a map of {len(self._map)}"

    def fill(self) -> None:
        """Read what fits now rather than when queries ask for it; once, and at most 100,000 places."""
        if self._is_filled:
            return
        self._is_filled = True
        place_ids = self._map.place_source.place_ids()[:_MOST_FILLED]
        for start in range(0, len(place_ids), _CHUNK):
            try:
                with self._lock:
                    if self._add(place_ids[start : start + _CHUNK]):
                        break
            except MapError as error:
                _logger.warning("%s; left out until a query asks for it", error)
        _logger.info("local descriptors: %s", self.summary)

    def score(self, query: LocalFeatures, place_ids: Sequence[int], config: RerankConfig) -> list[CandidateScore]:
        """Scores of places for a query by all keypoints, in the order asked for.

        Raises:
            DescriptorShapeError: the query is of another model.
            MapError: no such place, or damaged.
        """
        with self._lock:
            others = self._add(place_ids)
            # What other threads add meanwhile lies behind these rows, or in other memory.
            kept = self._codes, {number: self._places[number] for number in place_ids if number in self._places}
        scores: dict[int, CandidateScore] = {}
        for codes, places in (kept, self._copied(others)) if others else (kept,):
            if places:
                first, count = np.array(list(places.values()), np.int64).T
                scores |= zip(places, score_on_device(query, codes, first, count, config), strict=True)
        return [scores[number] for number in place_ids]

    def _add(self, place_ids: Sequence[int]) -> dict[int, PackedLocal]:
        """Read those that are not kept, keep what fits, and give back the others."""
        missing = [number for number in dict.fromkeys(place_ids) if number not in self._places]
        if not missing:
            return {}
        read = self._map.store.packed_local(missing, self._map.fingerprint.local_dim)
        ends = np.cumsum([len(local) for local in read])
        if self._used + ends[-1] > self._max_rows and len(self) > len(self._map):
            # Some of the room is taken by places that the map has forgotten.
            self._codes, self._places, self._used = self._nothing(), {}, 0
            return self._add(place_ids)
        fitting = int(np.searchsorted(ends, self._max_rows - self._used, side="right"))
        if fitting:
            expected_rows = int(ends[-1]) * len(self._map) // len(read)
            self._keep(dict(zip(missing[:fitting], read[:fitting], strict=True)), expected_rows)
        if fitting < len(read) and not self._is_told:
            self._is_told = True
            _logger.warning("local descriptors: %s; there is no room for more, which are copied anew", self.summary)
        return dict(zip(missing[fitting:], read[fitting:], strict=True))

    @torch.inference_mode()
    def _keep(self, places: Mapping[int, PackedLocal], expected_rows: int) -> None:
        """Append places that fit; `expected_rows` are what the whole map may take."""
        added, where = self._copied(places)
        packed, cells = self._codes.packed, self._codes.cells_xy
        used, end = self._used, self._used + len(added.packed)
        if end > len(packed):
            rows = min(self._max_rows, max(end, 2 * len(packed), expected_rows))
            packed, cells = (old.new_empty((rows, old.shape[1])) for old in (packed, cells))
            packed[:used], cells[:used] = self._codes.packed[:used], self._codes.cells_xy[:used]
        packed[used:end], cells[used:end] = added.packed, added.cells_xy
        self._codes = CodesOnDevice(packed, cells, max(self._codes.end, added.end))
        self._places |= {number: (used + first, count) for number, (first, count) in where.items()}
        self._used = end

    @torch.inference_mode()
    def _copied(self, places: Mapping[int, PackedLocal]) -> tuple[CodesOnDevice, dict[int, tuple[int, int]]]:
        """Places on the device on their own, and first row and number of rows of each."""
        counts = [len(local) for local in places.values()]
        first = (np.cumsum(counts) - counts).tolist()
        packed = np.concatenate([local.codes for local in places.values()])
        cells = np.concatenate([local.cells_xy for local in places.values()])
        codes = CodesOnDevice(
            torch.from_numpy(packed).to(self.device),
            torch.from_numpy(cells).to(self.device),
            int(cells.max(initial=0)) + 1,
        )
        return codes, dict(zip(places, zip(first, counts, strict=True), strict=True))

    @torch.inference_mode()
    def _nothing(self) -> CodesOnDevice:
        half = self._map.fingerprint.local_dim // 2
        empty = torch.empty((0, half), dtype=torch.uint8, device=self.device)
        return CodesOnDevice(empty, empty.new_empty((0, 2)), 0)
