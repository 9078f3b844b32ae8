"""Mutual nearest neighbours of one pair of images on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import DescriptorShapeError
from effovpr_ros.features.image_features import LocalFeatures, PackedLocal
from effovpr_ros.matching.compiled import kernel_name, scoring


def mutual_nearest_neighbours(
    query: LocalFeatures, candidate: PackedLocal, min_similarity: float, kernel: str | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Mutual nearest neighbours by cosine similarity (EffoVPR, section 3.2).

    Of equally similar ones, a keypoint of the candidate chooses the first of the query's, and of those that choose one
    of the query's, the first is its match.

    Args:
        query: N keypoints; may be none.
        candidate: M keypoints; may be none.
        min_similarity: pairs at or below this cosine are no matches (T2).
        kernel: one of `compiled.kernels`; None: as `kernel_name` says.

    Returns:
        (N,) int32, the candidate's keypoint matched to each of the query's, -1 for none; and (N,) float32, its cosine,
        0 for none.

    Raises:
        DescriptorShapeError: descriptors of different models.
    """
    require_same_width(query, [candidate])
    if not len(query):
        return np.empty(0, np.int32), np.empty(0, np.float32)
    pair = candidate.codes, candidate.cells_xy
    return scoring.match(query.codes, query.cells_xy, *pair, min_similarity, kernel or kernel_name())


def require_same_width(query: LocalFeatures, candidates: Sequence[PackedLocal]) -> None:
    """Refuse candidates of another model: a DescriptorShapeError names the first."""
    for number, candidate in enumerate(candidates):
        if len(query) and len(candidate) and 2 * candidate.codes.shape[1] != query.codes.shape[1]:
            raise DescriptorShapeError(
                f"candidate {number} has local descriptors of length {2 * candidate.codes.shape[1]}, the query of "
                f"{query.codes.shape[1]}; were both made by the same model?"
            )
