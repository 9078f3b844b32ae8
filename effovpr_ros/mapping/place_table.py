"""Places of an open map in memory: by number, by row of the index, by session."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence

from effovpr_ros.errors import MapError
from effovpr_ros.mapping.place import Place


class PlaceTable:
    """Places by ascending number; rows count from 0 without gaps, numbers may have gaps where places were forgotten."""

    def __init__(self, places: Iterable[Place]) -> None:
        """Take places by ascending number."""
        self._places = list(places)
        self._numbers = [place.place_id for place in self._places]
        self._sessions = dict.fromkeys(place.session for place in self._places)

    def __len__(self) -> int:
        """Number of places."""
        return len(self._places)

    @property
    def next_id(self) -> int:
        """Number of the place that is added next."""
        return self._numbers[-1] + 1 if self._numbers else 0

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions in order of appearance."""
        return list(self._sessions)

    def places(self) -> list[Place]:
        """All places by number."""
        return list(self._places)

    def at_row(self, row: int) -> Place:
        """Place of a row of the index."""
        return self._places[row]

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

    def append(self, places: Sequence[Place]) -> None:
        """Add places whose numbers follow."""
        self._places.extend(places)
        self._numbers.extend(place.place_id for place in places)
        self._sessions.update(dict.fromkeys(place.session for place in places))

    def forget(self, place_ids: Collection[int]) -> None:
        """Remove places; the others keep their numbers, and their rows move up."""
        self._places = [place for place in self._places if place.place_id not in place_ids]
        self._numbers = [place.place_id for place in self._places]
        self._sessions = dict.fromkeys(place.session for place in self._places)
