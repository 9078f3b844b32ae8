"""Scores of candidates whose packed codes lie on a GPU, computed there from beginning to end.

The query and the numbers of rows go in by one copy, the scores come out by another; between them nothing waits and
nothing asks the device. What is computed, and who wins among equals, is as `matching.reranking` has it on a CPU: sums
of small integers are exact in float32, so that matches and counts are equal and scores differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.core.errors import DescriptorShapeError
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore

# A GPU wants few large launches; of so many keypoints the similarities to 529 take 139 MB.
_BLOCK_ROWS = 65536
_RADIUS = 2
_MAX_DIFFERENCE = 1
# Beyond what passes the comparison with a displacement of patches: cells are below 256.
_NO_MATCH = 10_000


@dataclass(frozen=True, eq=False)
class CodesOnDevice:
    """Local features of many places, keypoint after keypoint.

    Attributes:
        packed: (R, C / 2) uint8 on the device, two codes a byte as `features.codes.pack` makes them.
        cells_xy: (R, 2) uint8 on the device, patch column and row.
        end: columns and rows of patches are below it.
    """

    packed: Tensor
    cells_xy: Tensor
    end: int


@dataclass(frozen=True, eq=False)
class _Query:
    """On the device: (C, N) float32 codes, (N,) float32 1 / norms, (N, 2) int32 cells; and their end."""

    columns: Tensor
    inverse_norms: Tensor
    cells_xy: Tensor
    end: int


@torch.inference_mode()
def score_on_device(
    query: LocalFeatures,
    codes: CodesOnDevice,
    first: NDArray[np.int64],
    count: NDArray[np.int64],
    config: RerankConfig,
) -> list[CandidateScore]:
    """Score each candidate by all keypoints, as `Reranker.score` does.

    Args:
        query: N keypoints; may be none.
        codes: of places.
        first: (K,) row of each candidate's first keypoint.
        count: (K,) number of its keypoints, which follow each other; may be 0.
        config: how to score.

    Returns:
        K scores in the order of the candidates.

    Raises:
        DescriptorShapeError: codes of another model than the query's.
    """
    if len(query) and query.codes.shape[1] != 2 * codes.packed.shape[1]:
        raise DescriptorShapeError(
            f"places have local descriptors of length {2 * codes.packed.shape[1]}, the query of "
            f"{query.codes.shape[1]}; were both made by the same model?"
        )
    if not len(query) or not count.any():
        return [CandidateScore(0.0, 0, 0, (0.0, 0.0))] * len(count)
    # Neighbours in size share a block, so that little is spent on repetitions.
    by_size = np.argsort(count, kind="stable")
    first, count = first[by_size], count[by_size]
    starts, counts, norms, query_codes, cells = _moved(
        [first, count, query.inverse_norms, query.codes, query.cells_xy], codes.packed.device
    )
    asked = _Query(query_codes.float().T.contiguous(), norms, cells.int(), int(query.cells_xy.max()) + 1)
    found = [
        _score_block(asked, codes, starts[block], counts[block], int(count[block.stop - 1]), config)
        for block in _blocks(count, len(query))
    ]
    table = np.empty((len(count), 5))
    table[by_size] = torch.cat(found).cpu().numpy()
    return CandidateScore.of_rows(table)


def _moved(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Arrays on a device, by one copy; the wider an item the earlier, so that each begins where its type may."""
    whole = np.concatenate([np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays])
    parts = torch.split(torch.from_numpy(whole).to(device), [array.nbytes for array in arrays])
    kinds = [torch.from_numpy(np.empty(0, array.dtype)).dtype for array in arrays]
    return [part.view(kind).view(array.shape) for part, kind, array in zip(parts, kinds, arrays, strict=True)]


def _blocks(counts: NDArray[np.int64], num_query: int) -> list[slice]:
    """Runs of candidates by ascending count, each of at most `_BLOCK_ROWS` rows or of one candidate."""
    blocks, start = [], 0
    for end in range(1, len(counts) + 1):
        if end == len(counts) or max(int(counts[end]), num_query) * (end + 1 - start) > _BLOCK_ROWS:
            blocks.append(slice(start, end))
            start = end
    return blocks


def _score_block(
    query: _Query, codes: CodesOnDevice, first: Tensor, count: Tensor, longest: int, config: RerankConfig
) -> Tensor:
    """(B, 5) float64: score, number of matches, of consistent ones, and their mean displacement in x and y."""
    # The last keypoint is repeated. Of equals the first is chosen, so that repetitions never are.
    following = torch.arange(max(longest, 1), device=first.device).minimum(count[:, None] - 1)
    rows = (first[:, None] + following).clamp_(0, len(codes.packed) - 1)
    pair, cosine = _mutual_pairs(_cosines(query, codes.packed[rows]), config.min_similarity)
    matched = (pair >= 0) & (count > 0)[:, None]
    cells = codes.cells_xy[rows].gather(1, pair.clamp(min=0)[:, :, None].expand(-1, -1, 2))
    displacement = query.cells_xy - cells.int()
    num_matches = matched.sum(dim=1)
    votes, mean = _consensus(displacement, matched, query.end, codes.end)
    if config.score == "count":
        score = num_matches.double()
    elif config.score == "weighted":
        excess = cosine.double() - config.min_similarity
        score = excess.where(matched, 0.0).sum(dim=1) / (1.0 - config.min_similarity)
    elif config.score == "coherent":
        worth = (_neighbour_support(query, displacement, matched) + 2).double().log()
        score = worth.where(matched, 0.0).sum(dim=1) + votes
    else:
        score = votes.double()
    return torch.cat([torch.stack([score, num_matches.double(), votes.double()], dim=1), mean], dim=1)


def _cosines(query: _Query, packed: Tensor) -> Tensor:
    """(B, M, N) cosines of (B, M, C / 2) packed codes and those of the query."""
    values = torch.stack((packed & 0x0F, packed >> 4), dim=-1).flatten(2).float() - 8.0
    squares = values.square().sum(dim=2)
    inverse_norms = (1.0 / squares.double().clamp(min=1.0).sqrt()).where(squares > 0, 0.0).float()
    # In place, since this is by far the largest.
    products = values.flatten(0, 1) @ query.columns
    return products.mul_(query.inverse_norms).mul_(inverse_norms.view(-1, 1)).view(*values.shape[:2], -1)


def _mutual_pairs(similarity: Tensor, min_similarity: float) -> tuple[Tensor, Tensor]:
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


def _consensus(displacement: Tensor, matched: Tensor, query_end: int, places_end: int) -> tuple[Tensor, Tensor]:
    """Matches that agree on one displacement, and on which: (B,) int32 votes and (B, 2) float64 mean displacements."""
    # Two empty bins on each side, so that 3x3 bins fit around each that borders on an occupied one.
    lowest, width = -(places_end - 1) - 2, query_end + places_end - 1 + 4
    at = (displacement - lowest).long()
    histogram = torch.zeros((len(at), width * width), dtype=torch.int32, device=at.device)
    histogram.scatter_add_(1, at[..., 1] * width + at[..., 0], matched.int())
    bins = histogram.view(-1, width, width)
    of_columns = bins[:, :, :-2] + bins[:, :, 1:-1] + bins[:, :, 2:]
    sums = of_columns[:, :-2] + of_columns[:, 1:-1] + of_columns[:, 2:]
    centre_breaks_ties = sums.long() * (displacement.shape[1] + 1) + bins[:, 1:-1, 1:-1]
    winner = centre_breaks_ties.flatten(1).argmax(dim=1, keepdim=True)
    votes = sums.flatten(1).gather(1, winner)
    centre = torch.cat([winner % (width - 2), winner // (width - 2)], dim=1) + 1
    in_window = ((at - centre[:, None]).abs() <= 1).all(dim=2) & matched
    total = (displacement * in_window[:, :, None]).sum(dim=1)
    return votes[:, 0], total.double() / votes.clamp(min=1)


def _neighbour_support(query: _Query, displacement: Tensor, matched: Tensor) -> Tensor:
    """How many matches in the 5x5 around each moved alike: (B, N) int64, of no meaning where there is no match."""
    side = query.end + 2 * _RADIUS
    cell = ((query.cells_xy[:, 1] + _RADIUS) * side + query.cells_xy[:, 0] + _RADIUS).long()
    grid = torch.full((len(displacement), side * side, 2), _NO_MATCH, dtype=torch.int32, device=cell.device)
    grid[:, cell] = displacement.where(matched[:, :, None], _NO_MATCH)
    apart = torch.arange(-_RADIUS, _RADIUS + 1, device=cell.device)
    around = cell[:, None] + (apart[:, None] * side + apart).flatten()
    alike = ((grid[:, around] - displacement[:, :, None]).abs() <= _MAX_DIFFERENCE).all(dim=3)
    # The match itself is among those around it.
    return alike.sum(dim=2) - 1
