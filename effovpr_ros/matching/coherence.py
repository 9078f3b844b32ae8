"""Do matches agree on how they moved? By neighbours, and by one displacement for the whole image.

Patches that are neighbours in the query and show one scene are matched to neighbours in the candidate too, whatever
the viewpoint, while false matches point anywhere (motion smoothness; Bian et al., "GMS: Grid-based Motion Statistics",
CVPR 2017). Unlike one displacement for the whole image this allows for scale, rotation and parallax.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.mutual_nn import BatchMatches

_RADIUS = 2
# One of each pair of opposite offsets within the 5x5 neighbourhood, as (rows, columns).
_OFFSETS = [(0, 1), (0, 2)] + [(row, column) for row in (1, 2) for column in range(-_RADIUS, _RADIUS + 1)]
_MAX_DIFFERENCE = 1
# Nothing beside it passes the comparison with a displacement of patches: cells are below 256.
_NO_MATCH = 10_000


def neighbour_support(
    query: LocalFeatures, candidates: Sequence[LocalFeatures], matches: BatchMatches
) -> NDArray[np.int64]:
    """For each match, how many of the matches around it moved alike.

    Around are the other patches of the 5x5 around the query's patch; alike is a displacement (query cell - candidate
    cell) that differs by at most one cell in each direction.

    Args:
        query: N keypoints.
        candidates: K sets of keypoints.
        matches: of the query in the candidates.

    Returns:
        (K, N) int64 in [0, 24]; 0 where there is no match.
    """
    support = np.zeros(matches.candidate_index.shape, np.int64)
    number, keypoint = np.nonzero(matches.candidate_index >= 0)
    if len(number) == 0:
        return support
    rows, columns = (int(query.cells_xy[:, axis].max()) + 1 for axis in (1, 0))
    column, row = query.cells_xy[keypoint].astype(np.int64).T
    # Candidates come last, so that each operation runs over long stretches of memory.
    displacement = np.full((2, rows, columns, len(candidates)), _NO_MATCH, np.int16)
    displacement[:, row, column, number] = _displacements(query, candidates, matches, number, keypoint)
    # Raised by what is allowed, a difference is from 0 to twice that, and without its sign a negative one is large.
    raised = displacement + np.int16(_MAX_DIFFERENCE)
    votes = np.zeros((rows, columns, len(candidates)), np.int8)
    for down, right in _OFFSETS:
        here, there = _overlap(rows, columns, down, right)
        near = (raised[(slice(None), *here)] - displacement[(slice(None), *there)]).view(
            np.uint16
        ) <= 2 * _MAX_DIFFERENCE
        alike = (near[0] & near[1]).view(np.int8)
        votes[here] += alike
        votes[there] += alike
    # Patches without a match agree with each other too; their counts are not used.
    support[number, keypoint] = votes[row, column, number]
    return support


def spatial_consensus(
    query: LocalFeatures, candidates: Sequence[LocalFeatures], matches: BatchMatches
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many matches of each candidate agree on one displacement of patch cells, and on which.

    Displacements (query cell - candidate cell) are voted into a histogram of one bin a cell; the 3x3 bins
    with the largest sum win. Equal sums: the one with the fuller centre bin, then the smaller row, then the
    smaller column.

    Args:
        query: N keypoints.
        candidates: K sets of keypoints.
        matches: of the query in the candidates.

    Returns:
        (K,) int64 largest 3x3 sums and (K, 2) float64 mean (x, y) displacement of the matches in it, (0, 0)
        if none.
    """
    num_candidates = len(candidates)
    votes, displacements = np.zeros(num_candidates, np.int64), np.zeros((num_candidates, 2))
    number, query_index = np.nonzero(matches.candidate_index >= 0)
    if len(number) == 0:
        return votes, displacements
    displacement = _displacements(query, candidates, matches, number, query_index)

    # Two empty bins on each side: 3x3 bins fit around each that borders on an occupied one, so that who wins among
    # equals does not depend on what other candidates occupy.
    lowest = displacement.min(axis=1) - 2
    width, height = displacement.max(axis=1) - lowest + 3
    column, row = displacement - lowest[:, None]
    bins = np.bincount((number * height + row) * width + column, minlength=num_candidates * height * width)
    histogram = bins.astype(np.int32).reshape(num_candidates, height, width)
    of_columns = histogram[:, :, :-2] + histogram[:, :, 1:-1] + histogram[:, :, 2:]
    sums = of_columns[:, :-2] + of_columns[:, 1:-1] + of_columns[:, 2:]
    centre_breaks_ties = sums * np.int64(len(query) + 1) + histogram[:, 1:-1, 1:-1]
    winner = centre_breaks_ties.reshape(num_candidates, -1).argmax(axis=1)
    votes = sums.reshape(num_candidates, -1)[np.arange(num_candidates), winner]

    winning_row, winning_column = np.divmod(winner, width - 2)
    row_apart, column_apart = row - 1 - winning_row[number], column - 1 - winning_column[number]
    in_window = (np.abs(row_apart) <= 1) & (np.abs(column_apart) <= 1)
    for axis in (0, 1):
        total = np.bincount(number[in_window], displacement[axis, in_window], minlength=num_candidates)
        displacements[:, axis] = total / np.maximum(votes, 1)
    return votes, displacements


def _displacements(
    query: LocalFeatures,
    candidates: Sequence[LocalFeatures],
    matches: BatchMatches,
    number: NDArray[np.int64],
    keypoint: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(2, M) query cell - candidate cell as (x, y) of the matches of candidates `number` and query `keypoint`."""
    first_cell = np.concatenate([[0], np.cumsum([len(candidate) for candidate in candidates])])
    all_cells = np.concatenate([candidate.cells_xy for candidate in candidates])
    matched = all_cells[first_cell[number] + matches.candidate_index[number, keypoint]]
    return np.asarray(np.subtract(query.cells_xy[keypoint].T, matched.T, dtype=np.int64, order="C"))


def _overlap(rows: int, columns: int, down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a grid whose patches have a neighbour `down` and `right` of them, and the part of the neighbours."""
    left, shifted = max(0, -right), max(0, right)
    width = max(0, columns - abs(right))
    height = max(0, rows - down)
    here = (slice(0, height), slice(left, left + width))
    there = (slice(down, down + height), slice(shifted, shifted + width))
    return here, there
