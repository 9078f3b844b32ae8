"""Places of an open map by number, by row of the index, by session; read from the store when they are asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError
from effovpr_ros.mapping.place import Place


class PlaceSource(Protocol):
    """What a table reads, such as `PlaceStore`."""

    def place_ids(self) -> Sequence[int]:
        """Numbers of all places, ascending."""

    def sessions(self) -> list[str]:
        """Names of the sessions in order of appearance."""

    def places(self, place_ids: Sequence[int] | None = None) -> list[Place]:
        """Places by ascending number; all where none are named."""


class PlaceTable:
    """Places by ascending number; rows count from 0 without gaps, numbers may have gaps where places were forgotten.

    In memory are the numbers, eight bytes a place, and those places that were asked for: a map of a million places
    opens in seconds.
    """

    def __init__(self, source: PlaceSource) -> None:
        """Take numbers and sessions."""
        self._source = source
        self._numbers = array("q", source.place_ids())
        self._sessions = dict.fromkeys(source.sessions())
        self._read: dict[int, Place] = {}

    def __len__(self) -> int:
        """Number of places."""
        return len(self._numbers)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(N,) numbers of all places, ascending."""
        return np.array(self._numbers, np.int64)

    @property
    def next_id(self) -> int:
        """Number of the place that is added next."""
        return self._numbers[-1] + 1 if self._numbers else 0

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions in order of appearance."""
        return list(self._sessions)

    def places(self, at_most: int | None = None) -> list[Place]:
        """All places by number; evenly chosen ones where there are more than `at_most`."""
        if at_most is not None and at_most < len(self):
            return self.at_rows(range(0, len(self), -(-len(self) // at_most)))
        if len(self._read) < len(self):
            # Those that were handed out already stay the same objects.
            self._read = {place.place_id: place for place in self._source.places()} | self._read
        return [self._read[number] for number in self._numbers]

    def at_rows(self, rows: Sequence[int]) -> list[Place]:
        """Places of rows of the index, in the order asked for."""
        numbers = [self._numbers[row] for row in rows]
        missing = [number for number in numbers if number not in self._read]
        if missing:
            self._read.update({place.place_id: place for place in self._source.places(missing)})
        return [self._read[number] for number in numbers]

    def place_id(self, row: int) -> int:
        """Number of the place of a row."""
        return self._numbers[row]

    def row_of(self, place_id: int) -> int:
        """Row of a place.

        Raises:
            MapError: no such place.
        """
        row = self.rows_before(place_id)
        if row == len(self) or self._numbers[row] != place_id:
            raise MapError(f"the map has no place {place_id}; it has {len(self)} places below {self.next_id}")
        return row

    def rows_before(self, place_id: int) -> int:
        """How many places have a smaller number."""
        return bisect_left(self._numbers, place_id)

    def admitted(
        self, within: Callable[[Place], bool] | NDArray[np.int64] | None, before: int | None
    ) -> Sequence[int] | NDArray[np.int64] | None:
        """Rows that a search may answer with; None for all.

        Args:
            within: that places must fulfil, or their rows.
            before: only places with a smaller number.
        """
        rows = range(len(self) if before is None else self.rows_before(before))
        if isinstance(within, np.ndarray):
            return within[within < len(rows)]
        if within is not None:
            return [row for row, place in zip(rows, self.places(), strict=False) if within(place)]
        return rows if len(rows) < len(self) else None

    def append(self, places: Sequence[Place]) -> None:
        """Add places whose numbers follow."""
        self._numbers.extend(place.place_id for place in places)
        self._read.update({place.place_id: place for place in places})
        self._sessions.update(dict.fromkeys(place.session for place in places))

    def forget(self, place_ids: Collection[int]) -> None:
        """Leave out places that the store has removed; the others keep their numbers, and their rows move up."""
        self._numbers = array("q", (number for number in self._numbers if number not in place_ids))
        self._read = {number: place for number, place in self._read.items() if number not in place_ids}
        self._sessions = dict.fromkeys(self._source.sessions())
