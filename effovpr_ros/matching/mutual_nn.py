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
from effovpr_ros.features.extractor import LocalFeatures

_logger = logging.getLogger(__name__)

# Similarities of about two candidates of 500 keypoints stay in the cache of a CPU core; a GPU wants few large
# launches instead.
_CPU_ROWS = 1100
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
    match = _match_on_cpu if device.type == "cpu" else _match_padded
    match(query, candidates, occupied, min_similarity, device, matches)
    return matches


def _match_on_cpu(
    query: LocalFeatures,
    candidates: Sequence[LocalFeatures],
    occupied: Sequence[int],
    min_similarity: float,
    device: torch.device,
    matches: BatchMatches,
) -> None:
    """Fill in `matches`: one matrix product for a few candidates, then each while it is in the cache.

    NumPy finds the largest of a row several times faster than torch does on a CPU; the largest of a column is
    located only where its row agrees.
    """
    dot_products = _DotProducts(query, device)
    for chunk in _chunks(occupied, [len(candidate) for candidate in candidates], _CPU_ROWS):
        chosen = [candidates[number] for number in chunk]
        codes = np.concatenate([candidate.codes for candidate in chosen])
        scale = np.concatenate([candidate.inverse_norms for candidate in chosen])
        stacked = dot_products.cosines(codes, scale).numpy()
        start = 0
        for number, candidate in zip(chunk, chosen, strict=True):
            similarity = stacked[start : start + len(candidate)]
            start += len(candidate)
            nearest_query = similarity.argmax(axis=1)
            best = similarity[np.arange(len(candidate)), nearest_query]
            agreed = np.flatnonzero((best == similarity.max(axis=0)[nearest_query]) & (best > min_similarity))
            # Of equally similar keypoints of the candidate, the query's keypoint chooses the first.
            agreed = agreed[similarity[:, nearest_query[agreed]].argmax(axis=0) == agreed]
            matches.candidate_index[number, nearest_query[agreed]] = agreed
            matches.similarity[number, nearest_query[agreed]] = best[agreed]


def _match_padded(
    query: LocalFeatures,
    candidates: Sequence[LocalFeatures],
    occupied: Sequence[int],
    min_similarity: float,
    device: torch.device,
    matches: BatchMatches,
) -> None:
    """Fill in `matches` by few large launches over padded blocks, as a GPU wants them."""
    dot_products = _DotProducts(query, device)
    width = query.codes.shape[1]
    # Neighbours in size share a block, so that little is spent on padding.
    by_size = sorted(occupied, key=lambda number: len(candidates[number]))
    for chunk in _chunks(by_size, [len(candidate) for candidate in candidates], _GPU_ROWS):
        sizes = [len(candidates[number]) for number in chunk]
        codes = np.zeros((len(chunk), max(sizes), width), np.int8)
        scale = np.zeros((len(chunk), max(sizes)), np.float32)
        for row, number in enumerate(chunk):
            codes[row, : sizes[row]] = candidates[number].codes
            scale[row, : sizes[row]] = candidates[number].inverse_norms
        similarity = dot_products.cosines(codes.reshape(-1, width), scale.reshape(-1))
        similarity = similarity.view(len(chunk), max(sizes), -1)
        if min(sizes) < max(sizes):
            padding = torch.arange(max(sizes), device=device) >= torch.tensor(sizes, device=device)[:, None]
            similarity.masked_fill_(padding[:, :, None], -torch.inf)
        nearest_candidate, best, mutual = _mutual(similarity, min_similarity)
        matches.candidate_index[chunk] = nearest_candidate.where(mutual, -1).cpu().numpy()
        matches.similarity[chunk] = best.where(mutual, 0.0).cpu().numpy()


class _DotProducts:
    """Cosines of one query's codes with those of many candidates, from exact integer dot products.

    Codes are at most 7, so products of width up to 340,000 fit into float32's 24 bits: the fast integer kernel
    of a CPU with 8-bit dot product instructions and the float32 fallback give the same numbers.
    """

    def __init__(self, query: LocalFeatures, device: torch.device) -> None:
        columns = torch.from_numpy(np.ascontiguousarray(query.codes.T)).to(device)
        self._device = device
        self._integer = device.type == "cpu" and _has_integer_kernel()
        self._columns = columns if self._integer else columns.float()
        self._inverse_norms = torch.from_numpy(query.inverse_norms).to(device)
        self._dots = torch.empty((0, len(query)), dtype=torch.int32)
        self._cosines = torch.empty((0, len(query)))

    def cosines(self, codes: NDArray[np.int8], inverse_norms: NDArray[np.float32]) -> Tensor:
        """(R, C) codes of candidates and the inverses of their norms to (R, N) float32 cosines.

        The result is overwritten by the next call.
        """
        rows = torch.from_numpy(codes).to(self._device)
        scale = torch.from_numpy(inverse_norms).to(self._device)
        if not self._integer:
            return (rows.float() @ self._columns).mul_(self._inverse_norms).mul_(scale[:, None])
        # Fresh memory for each product would cost as much as the product.
        if len(rows) > len(self._dots):
            self._dots = torch.empty((len(rows), self._columns.shape[1]), dtype=torch.int32)
            self._cosines = torch.empty(self._dots.shape)
        dots, cosines = self._dots[: len(rows)], self._cosines[: len(rows)]
        torch._int_mm(rows, self._columns, out=dots)
        return torch.mul(dots, self._inverse_norms, out=cosines).mul_(scale[:, None])


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
