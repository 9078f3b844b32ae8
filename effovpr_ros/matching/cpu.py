"""Mutual nearest neighbours on a CPU, one candidate after the other.

Nearly all the time goes into passes over the similarities of a candidate, so they are made once, where they lie in the
cache of a core, and by whichever of torch and NumPy has the faster kernel.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.features.extractor import LocalFeatures

# About the square root of the keypoints of an image, which makes the search for equals cheapest.
_BLOCK = 23
# Rows that begin where a line of the cache does are passed over faster.
_VECTOR = 16


class CpuMatcher:
    """Matches one query with candidates, in memory that each candidate uses again; for one thread."""

    def __init__(self, query: LocalFeatures, most_keypoints: int, min_similarity: float, *, integer: bool) -> None:
        """Prepare the query.

        Args:
            query: N > 0 keypoints.
            most_keypoints: that a candidate has.
            min_similarity: T2.
            integer: multiply 8-bit codes rather than float32 ones.
        """
        rows, columns = _up_to(_BLOCK, most_keypoints), _up_to(_VECTOR, len(query))
        # The last keypoint is repeated. Of equals the first is chosen, so that repetitions never are.
        padded = np.minimum(np.arange(columns), len(query) - 1)
        transposed = torch.from_numpy(np.ascontiguousarray(query.codes[padded].T))
        self._columns = transposed if integer else transposed.float()
        self._inverse_norms = torch.from_numpy(query.inverse_norms[padded])
        self._min_similarity = min_similarity
        self._codes = torch.empty((rows, query.codes.shape[1]), dtype=torch.int8)
        self._scale = torch.empty((rows, 1))
        self._products = torch.empty((rows, columns), dtype=torch.int32)
        self._first_of_row = np.arange(rows) * columns

    def match(self, candidate: LocalFeatures) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Mutual nearest neighbours.

        Args:
            candidate: M > 0 keypoints.

        Returns:
            (P,) keypoints of the candidate, (P,) keypoints of the query that they are matched to, and (P,) cosines.
        """
        cosines = self._cosines(candidate)
        num_rows, num_columns = cosines.shape
        # Floats that are not negative are ordered as their bits are, and integers are compared faster.
        values = cosines.view(torch.int32) if self._min_similarity >= 0.0 else cosines
        of_blocks = values.view(-1, _BLOCK, num_columns).amax(dim=1)
        of_columns = of_blocks.amax(dim=0).numpy()

        nearest = values.numpy().argmax(axis=1)
        flat, first_of_row = values.numpy().reshape(-1), self._first_of_row[:num_rows]
        best = flat.take(first_of_row + nearest)
        above = best.view(np.float32) > self._min_similarity
        agreed = np.flatnonzero((best == of_columns.take(nearest)) & above)

        # Of equally similar keypoints of the candidate, the query's keypoint chooses the first: in the first block
        # with its largest value, the first row with it.
        column, value = nearest[agreed], best[agreed, None]
        blocks = of_blocks.numpy().reshape(-1).take(column[:, None] + first_of_row[: len(of_blocks)])
        top = (blocks == value).argmax(axis=1) * _BLOCK
        inside = flat.take((top * num_columns + column)[:, None] + first_of_row[:_BLOCK])
        chosen = top + (inside == value).argmax(axis=1) == agreed
        return agreed[chosen], column[chosen], value[chosen, 0].view(np.float32)

    def _cosines(self, candidate: LocalFeatures) -> Tensor:
        """(R, N) float32, keypoints of both up to whole blocks and vectors; the next call overwrites them.

        Codes are at most 7, so products of width up to 340,000 fit into float32's 24 bits: the fast integer kernel
        of a CPU with 8-bit dot product instructions and the float32 fallback give the same numbers.
        """
        num_rows = _up_to(_BLOCK, len(candidate))
        codes, scale, products = self._codes[:num_rows], self._scale[:num_rows], self._products[:num_rows]
        for padded, given in ((codes, candidate.codes), (scale, candidate.inverse_norms[:, None])):
            padded.numpy()[: len(given)] = given
            padded.numpy()[len(given) :] = given[-1]
        cosines = products.view(torch.float32)
        if codes.dtype == self._columns.dtype:
            torch._int_mm(codes, self._columns, out=products)
            # In place, since twice the memory would not fit into the cache.
            cosines.copy_(products)
        else:
            torch.mm(codes.float(), self._columns, out=cosines)
        return cosines.mul_(self._inverse_norms).mul_(scale)


def _up_to(unit: int, count: int) -> int:
    """The multiple of a unit from a count on."""
    return -(-count // unit) * unit
