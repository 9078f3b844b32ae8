"""Mutual nearest neighbours on a CPU, one candidate after the other.

Nearly all the time goes into passes over the similarities of a candidate, so there are few, made where these lie in the
cache of a core, by whichever of torch and NumPy has the faster kernel. What is left is done for all candidates at once,
since while Python is at work no other thread can be.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.features.extractor import LocalFeatures

_logger = logging.getLogger(__name__)

# Rows that begin where a line of the cache does are passed over faster.
_VECTOR = 16


def nearest_on_cpu(
    query: LocalFeatures, candidates: Sequence[LocalFeatures], *, integer: bool, only_positive: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """What mutual nearest neighbours follow from.

    Args:
        query: N > 0 keypoints.
        candidates: K sets of M_k > 0 keypoints, M at most.
        integer: multiply 8-bit codes rather than float32 ones.
        only_positive: negative cosines are not needed; they may then be compared wrongly.

    Returns:
        (K, M) int64, the first of the query's keypoints that are nearest to each of the candidate's; (K, M) float32,
        its cosine, -inf beyond M_k; (K, N) float32, highest cosine of each of the query's keypoints.
    """
    shape = (len(candidates), max(len(candidate) for candidate in candidates))
    nearest, cosine = np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32)
    highest = np.empty((len(candidates), len(query)), np.float32)
    cosines_of = _Cosines(query, shape[1], integer=integer)
    # Floats that are not negative are ordered as their bits are, and integers are compared faster.
    kind = torch.int32 if only_positive else torch.float32
    for place, candidate in enumerate(candidates):
        found = cosines_of(candidate)
        values, count = found.view(kind), len(candidate)
        values.numpy().argmax(axis=1, out=nearest[place, :count])
        cosine[place, :count] = found.numpy()[cosines_of.rows[:count], nearest[place, :count]]
        highest[place] = values.amax(dim=0).view(torch.float32).numpy()[: len(query)]
    return nearest, cosine, highest


@functools.cache
def has_integer_kernel() -> bool:
    """Whether torch multiplies int8 matrices on this CPU, and faster than float32 ones."""
    if not hasattr(torch, "_int_mm") or not getattr(torch.cpu, "_is_vnni_supported", lambda: False)():
        _logger.info("no 8-bit dot product instructions: local descriptors are compared in float32")
        return False
    return True


class _Cosines:
    """Cosines of one query with candidates, in memory that each candidate uses again; for one thread.

    Attributes:
        rows: (M,) int64, 0 and up.
    """

    def __init__(self, query: LocalFeatures, most_keypoints: int, *, integer: bool) -> None:
        columns = -(-len(query) // _VECTOR) * _VECTOR
        # The last keypoint is repeated. Of equals the first is chosen, so that repetitions never are.
        padded = np.minimum(np.arange(columns), len(query) - 1)
        # Torch's own memory begins where a vector does; products with columns that do not take twice as long.
        transposed = torch.from_numpy(query.codes[padded].T).clone(memory_format=torch.contiguous_format)
        self._columns = transposed if integer else transposed.float()
        self._inverse_norms = torch.from_numpy(query.inverse_norms[padded])
        self._products = torch.empty((most_keypoints, columns), dtype=torch.int32)
        self.rows = np.arange(most_keypoints)

    def __call__(self, candidate: LocalFeatures) -> Tensor:
        """(M_k, N and more) float32; the next call overwrites them.

        Codes are at most 7, so products of width up to 340,000 fit into float32's 24 bits: the fast integer kernel
        of a CPU with 8-bit dot product instructions and the float32 fallback give the same numbers.
        """
        products = self._products[: len(candidate)]
        codes, scale = (
            torch.from_numpy(np.require(values, requirements=["C", "W"]))
            for values in (candidate.codes, candidate.inverse_norms[:, None])
        )
        cosines = products.view(torch.float32)
        if codes.dtype == self._columns.dtype:
            torch._int_mm(codes, self._columns, out=products)
            # In place, since twice the memory would not fit into the cache.
            cosines.copy_(products)
        else:
            torch.mm(codes.float(), self._columns, out=cosines)
        return cosines.mul_(self._inverse_norms).mul_(scale)
