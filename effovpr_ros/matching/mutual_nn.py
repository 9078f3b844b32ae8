"""Mutual nearest neighbours: of one pair of images, and of one query against K candidates at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.core.errors import DescriptorShapeError
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.cpu import has_integer_kernel, nearest_on_cpu


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
    """Pair descriptors that are each other's nearest by cosine similarity (EffoVPR, section 3.2).

    Equally similar ones: a descriptor of the candidate chooses the first of the query's, and of those that choose one
    of the query's, the first is its pair.

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
    pair, _ = mutual_pairs(similarity[None], min_similarity)
    query_index = (pair[0] >= 0).nonzero()[:, 0]
    return torch.stack([query_index, pair[0, query_index]], dim=1)


@torch.inference_mode()
def match_candidates(
    query: LocalFeatures,
    candidates: Sequence[LocalFeatures],
    min_similarity: float,
    *,
    norms: bool = True,
) -> BatchMatches:
    """Match a query to K candidates on the CPU, each as `mutual_nearest_neighbours` would.

    Args:
        query: N keypoints.
        candidates: K sets of M_k keypoints; N and any M_k may be 0.
        min_similarity: pairs at or below this cosine are dropped (T2).
        norms: compare cosines; else what they nearly are, the products of codes by the square of their usual norm.

    Returns:
        Matches in the order of the candidates.

    Raises:
        DescriptorShapeError: a candidate's descriptors have another C than the query's; names the candidate.
    """
    require_same_width(query, candidates)
    num_query = len(query)
    matches = BatchMatches(
        np.full((len(candidates), num_query), -1, dtype=np.int64),
        np.zeros((len(candidates), num_query), dtype=np.float32),
    )
    occupied = [number for number, candidate in enumerate(candidates) if len(candidate)]
    if num_query == 0 or not occupied:
        return matches
    chosen = [candidates[number] for number in occupied]
    nearest, cosine, highest = nearest_on_cpu(
        query, chosen, integer=has_integer_kernel(), only_positive=min_similarity >= 0.0, norms=norms
    )
    agreed = (cosine == np.take_along_axis(highest, nearest, axis=1)) & (cosine > min_similarity)
    # Of equals the first is to stay, so it is written last.
    place, keypoint = (index[::-1] for index in np.nonzero(agreed))
    number = np.asarray(occupied)[place]
    matches.candidate_index[number, nearest[place, keypoint]] = keypoint
    matches.similarity[number, nearest[place, keypoint]] = cosine[place, keypoint]
    return matches


def require_same_width(query: LocalFeatures, candidates: Sequence[LocalFeatures]) -> None:
    """Refuse candidates of another model.

    Raises:
        DescriptorShapeError: a candidate's descriptors have another C than the query's; names the candidate.
    """
    for number, candidate in enumerate(candidates):
        if len(query) and len(candidate) and candidate.codes.shape[-1] != query.codes.shape[1]:
            raise DescriptorShapeError(
                f"candidate {number} has local descriptors {candidate.codes.shape}, the query "
                f"{query.codes.shape}: C must agree; were both made by the same model?"
            )


def mutual_pairs(similarity: Tensor, min_similarity: float) -> tuple[Tensor, Tensor]:
    """Find the candidate's keypoint that is matched to each of the query's.

    Args:
        similarity: (B, M, N) cosine of candidate keypoint and query keypoint, M > 0 and N > 0.
        min_similarity: T2.

    Returns:
        (B, N) int64, -1 for none, and (B, N) float32 cosines, 0 for none.
    """
    highest = similarity.amax(dim=1)
    nearest = similarity.argmax(dim=2)
    cosine = similarity.gather(2, nearest[:, :, None])[:, :, 0]
    agreed = (cosine == highest.gather(1, nearest)) & (cosine > min_similarity)
    beyond = similarity.shape[1]
    keypoint = torch.arange(beyond, device=similarity.device).where(agreed, beyond)
    first = torch.full_like(highest, beyond, dtype=torch.int64).scatter_reduce_(1, nearest, keypoint, "amin")
    matched = first < beyond
    return first.where(matched, -1), highest.where(matched, 0.0)
