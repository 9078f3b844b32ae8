# Compiled from src/scoring.

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def score(
    codes: NDArray[np.int8],
    cells_xy: NDArray[np.uint8],
    candidates: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    min_similarity: float,
    score: str,
    kernel: str,
) -> NDArray[np.float64]:
    """Score candidates by their mutual matches with a query, while other threads may run.

    Args:
        codes: (N, C) of the query from -7 to 7, N > 0 and C even.
        cells_xy: (N, 2) patch column and row.
        candidates: K pairs of (M, C / 2) packed codes and (M, 2) patch columns and rows; M may be 0.
        min_similarity: T2, pairs at or below this cosine are no matches.
        score: name of the score.
        kernel: one of `kernels`.

    Returns:
        (K, 5) score, number of matches, number of consistent ones, and their mean displacement in x and y.

    Raises:
        ValueError: other shapes, codes or names.
    """

def match(
    codes: NDArray[np.int8],
    cells_xy: NDArray[np.uint8],
    packed: NDArray[np.uint8],
    candidate_cells_xy: NDArray[np.uint8],
    min_similarity: float,
    kernel: str,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Mutual nearest neighbours of a query in one candidate; arguments and errors as of `score`.

    Returns:
        (N,) the candidate's keypoint matched to each of the query's, -1 for none, and (N,) its cosine, 0 for none.
    """

def kernels() -> list[str]:
    """Names of the instructions that this processor can compare with, the fastest first."""
