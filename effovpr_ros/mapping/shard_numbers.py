"""Numbers of the places of a sharded map: which shard a place lies in, and its row there."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, MapFormatError

_COLUMNS = 3


class ShardNumbers:
    """All places by ascending number. Rows count from 0 without gaps, in the whole map and in each shard.

    Twenty bytes a place in memory.

    Attributes:
        numbers: (N,) int64 of all places, ascending.
        rows: for each shard the rows of its places in the whole map, ascending.
    """

    def __init__(self, numbers: NDArray[np.int64], owner: NDArray[np.int32], num_shards: int) -> None:
        """Take what `of_shards` or `from_bytes` made.

        Args:
            numbers: (N,) ascending.
            owner: (N,) shard of each.
            num_shards: how many there are; each has a place.
        """
        self.numbers = numbers
        self._owner = owner
        by_shard = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=num_shards))
        self.rows: tuple[NDArray[np.int64], ...] = tuple(
            by_shard[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)
        )

    @classmethod
    def of_shards(cls, numbers: Sequence[NDArray[np.int64]]) -> ShardNumbers:
        """Join the numbers, in the whole map, of the places of each shard.

        Raises:
            MapError: two shards have a number in common.
        """
        together = np.concatenate(numbers)
        owner = np.repeat(np.arange(len(numbers), dtype=np.int32), [len(part) for part in numbers])
        order = np.argsort(together, kind="stable")
        together, owner = together[order], owner[order]
        twice = np.flatnonzero(together[1:] == together[:-1])
        if len(twice):
            raise MapError(f"place {together[twice[0]]} is in two shards; make the map again from its images")
        return cls(together, owner, len(numbers))

    def to_bytes(self) -> bytes:
        """As stored with a map: runs of following numbers of one shard, compressed."""
        follows = (self.numbers[1:] == self.numbers[:-1] + 1) & (self._owner[1:] == self._owner[:-1])
        first = np.concatenate([[0], np.flatnonzero(~follows) + 1])
        count = np.diff([*first.tolist(), len(self.numbers)])
        start = self.numbers[first]
        gap = np.diff(start, prepend=0) - np.concatenate([[0], count[:-1]])
        return zlib.compress(np.stack([self._owner[first], gap, count]).astype("<i8").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes | None, counts: Sequence[int]) -> ShardNumbers:
        """Inverse of `to_bytes`.

        Args:
            data: as stored.
            counts: places of each shard.

        Raises:
            MapFormatError: missing, damaged, or of other shards.
        """
        total = sum(counts)
        longest = 8 * _COLUMNS * total
        try:
            stored = zlib.decompressobj().decompress(data or b"", longest + 1)
            owner, gap, count = np.frombuffer(stored, "<i8").reshape(_COLUMNS, -1).astype(np.int64)
        except (zlib.error, ValueError) as error:
            raise MapFormatError(f"the numbers of its places are damaged ({error}); {_REMEDY}") from error
        fits = len(stored) <= longest and count.min(initial=1) > 0 and gap.min(initial=0) >= 0
        fits = fits and owner.min(initial=0) >= 0 and owner.max(initial=0) < len(counts) and gap.max(initial=0) < 2**40
        fits = fits and count.max(initial=0) <= total and count.sum() == total
        if not fits or np.bincount(owner, count, len(counts)).tolist() != list(counts):
            raise MapFormatError(f"the numbers of its places do not fit its shards; {_REMEDY}")
        before = np.concatenate([[0], np.cumsum(count)[:-1]])
        start = np.cumsum(gap) + before
        numbers = np.repeat(start - before, count) + np.arange(total)
        return cls(numbers, np.repeat(owner.astype(np.int32), count), len(counts))

    def __len__(self) -> int:
        """Number of places."""
        return len(self.numbers)

    def shard_of(self, number: int) -> int | None:
        """Shard of a place; None where there is no such place."""
        row = int(np.searchsorted(self.numbers, number))
        return int(self._owner[row]) if row < len(self) and self.numbers[row] == number else None

    def rows_within(self, shard: int, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64] | range | None:
        """Which of some rows of the whole map a shard has, as its own rows; None for all of them."""
        own = self.rows[shard]
        if isinstance(rows, range) and rows.step == 1 and rows.start == 0:
            below = int(np.searchsorted(own, rows.stop))
            return None if below == len(own) else range(below)
        asked = np.asarray(rows, np.int64)
        asked = asked[self._owner[asked] == shard]
        return np.asarray(np.searchsorted(own, asked), np.int64)


_REMEDY = "restore the map from a copy"
