"""Mutual nearest neighbours: of one pair of images, and of one query against K candidates at once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.errors import DescriptorShapeError
from effovpr_ros.features.codes import inverse_norms
from effovpr_ros.features.extractor import LocalFeatures

_logger = logging.getLogger(__name__)

# Similarities of about two candidates of 500 keypoints stay in the cache of a CPU core; a GPU wants few large
# launches instead.
_CPU_ROWS = 1024
_GPU_ROWS = 65536


@dataclass(frozen=True)
class BatchMatches:
    """Mutual nearest neighbours of a query of N keypoints in K candidates.

    Attributes:
        candidate_index: (K, N) int64, the candidate's keypoint matched to each query keypoint; -1 for none.
        similarity: (K, N) float32, cosine of the match; 0 for none.
    """

    candidate_index: NDArray[np.int64]
    similarity: NDArray[np.float32]


def mutual_nearest_neighbours(query: Tensor, candidate: Tensor, min_similarity: float) -> Tensor:
    """Pair descriptors that choose each other by cosine similarity (EffoVPR, section 3.2).

    Equally similar neighbours: the lowest index is chosen.

    Args:
        query: (N, C) L2-normalised local descriptors.
        candidate: (M, C) L2-normalised local descriptors.
        min_similarity: pairs at or below this cosine are dropped (T2).

    Returns:
        (P, 2) int64 rows of (query index, candidate index) by ascending query index, P <= min(N, M);
        (0, 2) if either set is empty.

    Raises:
        DescriptorShapeError: the two sets differ in C.
    """
    if len(query) == 0 or len(candidate) == 0:
        return torch.empty((0, 2), dtype=torch.int64, device=query.device)
    if query.ndim != 2 or candidate.ndim != 2 or query.shape[1] != candidate.shape[1]:
        raise DescriptorShapeError(
            f"query descriptors {tuple(query.shape)} and candidate descriptors {tuple(candidate.shape)} must "
            "be (N, C) and (M, C) with one C; were both made by the same model?"
        )
    similarity = candidate.float() @ query.float().T
    nearest_candidate, _, mutual = _mutual(similarity[None], min_similarity)
    query_index = mutual[0].nonzero()[:, 0]
    return torch.stack([query_index, nearest_candidate[0, query_index]], dim=1)


@torch.inference_mode()
def match_candidates(
    query: LocalFeatures,
    candidates: Sequence[LocalFeatures],
    min_similarity: float,
    device: str | torch.device = "cpu",
) -> BatchMatches:
    """Match a query to K candidates, each as `mutual_nearest_neighbours` would.

    Args:
        query: N keypoints.
        candidates: K sets of M_k keypoints; N and any M_k may be 0.
        min_similarity: pairs at or below this cosine are dropped (T2).
        device: where to compute.

    Returns:
        Matches in the order of the candidates.

    Raises:
        DescriptorShapeError: a candidate's descriptors have another C than the query's; names the candidate.
    """
    num_query, width = query.codes.shape
    matches = BatchMatches(
        np.full((len(candidates), num_query), -1, dtype=np.int64),
        np.zeros((len(candidates), num_query), dtype=np.float32),
    )
    occupied = [number for number, candidate in enumerate(candidates) if len(candidate)]
    if num_query == 0 or not occupied:
        return matches
    for number in occupied:
        if candidates[number].codes.shape[-1] != width:
            raise DescriptorShapeError(
                f"candidate {number} has local descriptors {candidates[number].codes.shape}, the query "
                f"{query.codes.shape}: C must agree; were both made by the same model?"
            )
    device = torch.device(device)
    dot_products = _DotProducts(query.codes, device)
    max_rows = _CPU_ROWS if device.type == "cpu" else _GPU_ROWS
    # Neighbours in size share a block, so that little is spent on padding.
    by_size = sorted(occupied, key=lambda number: len(candidates[number]))
    for chunk in _chunks(by_size, [len(candidate) for candidate in candidates], max_rows):
        sizes = [len(candidates[number]) for number in chunk]
        similarity = dot_products.cosines([candidates[number].codes for number in chunk])
        if min(sizes) < max(sizes):
            padding = torch.arange(max(sizes), device=device) >= torch.tensor(sizes, device=device)[:, None]
            similarity.masked_fill_(padding[:, :, None], -torch.inf)
        nearest_candidate, best, mutual = _mutual(similarity, min_similarity)
        matches.candidate_index[chunk] = nearest_candidate.where(mutual, -1).cpu().numpy()
        matches.similarity[chunk] = best.where(mutual, 0.0).cpu().numpy()
    return matches


class _DotProducts:
    """Cosines of one query's codes with those of many candidates, from exact integer dot products.

    Codes are at most 7, so products of width up to 340,000 fit into float32's 24 bits: the fast integer kernel
    of a CPU with 8-bit dot product instructions and the float32 fallback give the same numbers.
    """

    def __init__(self, query: NDArray[np.int8], device: torch.device) -> None:
        columns = torch.from_numpy(np.ascontiguousarray(query.T)).to(device)
        self._device = device
        self._integer = device.type == "cpu" and _has_integer_kernel()
        self._columns = columns if self._integer else columns.float()
        self._inverse_norms = torch.from_numpy(inverse_norms(query)).to(device)

    def cosines(self, candidates: Sequence[NDArray[np.int8]]) -> Tensor:
        """(M_k, C) codes of B candidates to (B, max M, N) float32 cosines; rows of padding are zero."""
        longest, width = max(len(codes) for codes in candidates), self._columns.shape[0]
        block = np.zeros((len(candidates), longest, width), np.int8)
        for row, codes in zip(block, candidates, strict=True):
            row[: len(codes)] = codes
        flat = block.reshape(-1, width)
        rows = torch.from_numpy(flat).to(self._device)
        dots = torch._int_mm(rows, self._columns).float() if self._integer else rows.float() @ self._columns
        scale = torch.from_numpy(inverse_norms(flat)).to(self._device)
        dots.mul_(scale[:, None]).mul_(self._inverse_norms)
        return dots.view(len(candidates), longest, -1)


@functools.cache
def _has_integer_kernel() -> bool:
    """Whether torch multiplies int8 matrices on this CPU, and faster than float32 ones."""
    if not hasattr(torch, "_int_mm") or not getattr(torch.cpu, "_is_vnni_supported", lambda: False)():
        _logger.info("no 8-bit dot product instructions: local descriptors are compared in float32")
        return False
    return True


def _mutual(similarity: Tensor, min_similarity: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find each query keypoint's nearest candidate keypoint, its cosine, and whether it is a match.

    Args:
        similarity: (B, M, N) cosine of candidate keypoint and query keypoint, M > 0 and N > 0.
        min_similarity: T2.

    Returns:
        (B, N) int64, (B, N) float32, (B, N) bool.
    """
    best, nearest_candidate = similarity.max(dim=1)
    nearest_query = similarity.argmax(dim=2)
    own_index = torch.arange(similarity.shape[2], device=similarity.device)
    mutual = nearest_query.gather(1, nearest_candidate) == own_index
    return nearest_candidate, best, mutual & (best > min_similarity)


def _chunks(numbers: Sequence[int], sizes: Sequence[int], max_rows: int) -> Iterator[list[int]]:
    """Split candidates into runs whose padded blocks have at most `max_rows` rows, or one candidate."""
    chunk: list[int] = []
    longest = 0
    for number in numbers:
        longest = max(longest, sizes[number])
        if chunk and longest * (len(chunk) + 1) > max_rows:
            yield chunk
            chunk, longest = [], sizes[number]
        chunk.append(number)
    if chunk:
        yield chunk
