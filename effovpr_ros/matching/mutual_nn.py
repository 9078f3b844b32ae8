"""Mutual nearest neighbours on a CPU, by compiled code; and which of its kernels is in use."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError, DescriptorShapeError
from effovpr_ros.features.image_features import LocalFeatures, PackedLocal

try:
    from effovpr_ros.matching import _scoring
except ImportError as error:
    raise ImportError(
        f"effovpr_ros/matching/_scoring, which src/scoring is compiled to, cannot be loaded ({error}); build the "
        "package with colcon build, or with pip install ."
    ) from error

KERNEL_VARIABLE = "EFFOVPR_KERNEL"
"""Environment variable that names one of the kernels to compare with, for measurements."""


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
        kernel: one of `kernels`; None: as `kernel_name` says.

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
    return _scoring.match(query.codes, query.cells_xy, *pair, min_similarity, kernel or kernel_name())


def kernels() -> list[str]:
    """Names of the instructions that this processor can compare with, the fastest first; all give the same numbers."""
    return _scoring.kernels()


def kernel_name() -> str:
    """The kernel in use: the fastest, or the one that the environment variable `EFFOVPR_KERNEL` names.

    Raises:
        ConfigError: it names another.
    """
    name = os.environ.get(KERNEL_VARIABLE) or kernels()[0]
    if name not in kernels():
        raise ConfigError(f"{KERNEL_VARIABLE}={name} is no kernel of this processor; use {', '.join(kernels())}")
    return name


def require_same_width(query: LocalFeatures, candidates: Sequence[PackedLocal]) -> None:
    """Refuse candidates of another model: a DescriptorShapeError names the first."""
    for number, candidate in enumerate(candidates):
        if len(query) and len(candidate) and 2 * candidate.codes.shape[1] != query.codes.shape[1]:
            raise DescriptorShapeError(
                f"candidate {number} has local descriptors of length {2 * candidate.codes.shape[1]}, the query of "
                f"{query.codes.shape[1]}; were both made by the same model?"
            )
