"""Mutual nearest neighbours on a CPU, one block of few candidates after the other.

Nearly all the time goes into passes over the similarities of a block, so there are few, made where these lie in the
cache of a core, by whichever of torch and NumPy has the faster kernel. What is left is done for all candidates at once,
since while Python is at work no other thread can be.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.features.codes import usual_norm
from effovpr_ros.features.image_features import LocalFeatures

_logger = logging.getLogger(__name__)

# Rows that begin where a line of the cache does are passed over faster.
_VECTOR = 16
# What a block of products takes, so that the passes over it find it in the cache of a core.
_CACHED_BYTES = 1_200_000
# Rows and columns of the products that choose the kernel.
_TRIAL = 512


def nearest_on_cpu(
    query: LocalFeatures, candidates: Sequence[LocalFeatures], *, integer: bool, only_positive: bool, norms: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """What mutual nearest neighbours follow from.

    Args:
        query: N > 0 keypoints.
        candidates: K sets of M_k > 0 keypoints, M at most.
        integer: multiply 8-bit codes rather than float32 ones.
        only_positive: negative cosines are not needed; they may then be compared wrongly.
        norms: divide by the norms of codes; else by the usual one, which spares passes.

    Returns:
        (K, M) int64, the first of the query's keypoints that are nearest to each of the candidate's; (K, M) float32,
        its cosine, -inf beyond M_k; (K, N) float32, highest cosine of each of the query's keypoints.
    """
    counts = [len(candidate) for candidate in candidates]
    shape = (len(candidates), max(counts))
    nearest, cosine = np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32)
    highest = np.empty((len(candidates), len(query)), np.float32)
    products_of = _Products(query, integer=integer, norms=norms)
    # Floats that are not negative are ordered as their bits are, and integers are compared faster.
    kind = torch.int32 if only_positive or products_of.dtype is torch.int32 else torch.float32
    for block in _blocks(counts, products_of.most_rows):
        found, count = products_of(candidates[block]), counts[block.start]
        values = found.view(kind)
        nearest[block, :count] = values.numpy().argmax(axis=1).reshape(-1, count)
        here = found.numpy().reshape(-1, count, found.shape[1])
        cosine[block, :count] = np.take_along_axis(here, nearest[block, :count, None], axis=2)[:, :, 0]
        best = values.view(here.shape).amax(dim=1).view(found.dtype).numpy()
        highest[block] = best[:, : len(query)]
    if not norms:
        scale = np.float32(usual_norm(query.codes.shape[1]) ** -2)
        cosine, highest = cosine * scale, highest * scale
    return nearest, cosine, highest


def _blocks(counts: Sequence[int], most_rows: int) -> Iterator[slice]:
    """Runs of candidates with as many keypoints, of `most_rows` at most or one candidate."""
    start = 0
    for end in range(1, len(counts) + 1):
        if end == len(counts) or counts[end] != counts[start] or (end + 1 - start) * counts[start] > most_rows:
            yield slice(start, end)
            start = end


@functools.cache
def has_integer_kernel() -> bool:
    """Whether torch multiplies int8 matrices faster than float32 ones here, as a trial of some milliseconds tells.

    The names of instructions do not: oneDNN has a kernel for some CPUs without 8-bit dot products, and can be held back
    from those that the CPU has (`ONEDNN_MAX_CPU_ISA`).
    """
    if not hasattr(torch, "_int_mm"):
        return False
    codes, columns = torch.ones((_TRIAL, 96), dtype=torch.int8), torch.ones((96, _TRIAL), dtype=torch.int8)
    products, floats = torch.empty((_TRIAL, _TRIAL), dtype=torch.int32), columns.float()

    def spent_s(multiply: Callable[[], object]) -> float:
        started = time.perf_counter()
        multiply()
        return time.perf_counter() - started

    trials = [
        (
            spent_s(lambda: torch._int_mm(codes, columns, out=products)),
            spent_s(lambda: torch.mm(codes.float(), floats, out=products.view(torch.float32))),
        )
        for _ in range(3)
    ]
    integer_s, float_s = (min(times) for times in zip(*trials, strict=True))
    _logger.info("local descriptors are compared in %s", "8 bits" if integer_s < float_s else "float32")
    return bool(integer_s < float_s)


class _Products:
    """Inner products of one query's codes with those of candidates, in memory that each block uses again.

    For one thread.

    Attributes:
        dtype: of the products: float32, or int32 where they are those of codes and the CPU multiplies codes.
        most_rows: keypoints of a block.
    """

    def __init__(self, query: LocalFeatures, *, integer: bool, norms: bool) -> None:
        columns = -(-len(query) // _VECTOR) * _VECTOR
        # The last keypoint is repeated. Of equals the first is chosen, so that repetitions never are.
        padded = np.minimum(np.arange(columns), len(query) - 1)
        # Torch's own memory begins where a vector does; products with columns that do not take twice as long.
        transposed = torch.from_numpy(query.codes[padded].T).clone(memory_format=torch.contiguous_format)
        self._columns = transposed if integer else transposed.float()
        self._inverse_norms = torch.from_numpy(query.inverse_norms[padded]) if norms else None
        self._memory = torch.empty((0, columns), dtype=torch.int32)
        self.dtype = torch.int32 if integer and not norms else torch.float32
        self.most_rows = max(1, _CACHED_BYTES // (4 * columns))

    def __call__(self, candidates: Sequence[LocalFeatures]) -> Tensor:
        """(rows, N and more), cosines where norms are asked for; the next call overwrites them.

        Codes are at most 7, so products of width up to 340,000 fit into float32's 24 bits: the fast integer kernel
        of a CPU with 8-bit dot product instructions and the float32 fallback give the same numbers.

        Args:
            candidates: a block, whose rows come one after the other.
        """
        codes = _rows([candidate.codes for candidate in candidates])
        if len(self._memory) < len(codes):
            self._memory = torch.empty((len(codes), self._memory.shape[1]), dtype=torch.int32)
        products = self._memory[: len(codes)]
        cosines = products.view(torch.float32)
        if codes.dtype == self._columns.dtype:
            torch._int_mm(codes, self._columns, out=products)
            if self.dtype is torch.int32:
                return products
            # In place, since twice the memory would not fit into the cache.
            cosines.copy_(products)
        else:
            torch.mm(codes.float(), self._columns, out=cosines)
        if self._inverse_norms is None:
            return cosines
        scale = _rows([candidate.inverse_norms for candidate in candidates])
        return cosines.mul_(self._inverse_norms).mul_(scale[:, None])


def _rows(parts: Sequence[NDArray[Any]]) -> Tensor:
    """Arrays one after the other."""
    return as_tensor(parts[0] if len(parts) == 1 else np.concatenate(parts))


def as_tensor(values: NDArray[Any]) -> Tensor:
    """In the memory of an array, or of a copy where torch could not read it or would warn that it is read-only."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
