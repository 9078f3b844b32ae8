"""Verified matches: points of a query and of candidates that show the same, and how many agree on one geometry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effovpr_ros.geometry.integer_kernel import as_tensor, has_integer_kernel
from effovpr_ros.geometry.points import DESCRIPTOR_SCALE, SIFT, XFEAT, Points
from effovpr_ros.matching.parallel import beside, map_in_threads

MIN_COSINE = {XFEAT: 0.82, SIFT: 0.9}
"""Least cosine of two descriptors that match: of XFeat its authors' value."""
MIN_MATCHES = 8
"""Fewer matches verify nothing: as many as a fundamental matrix is fitted to."""
FUNDAMENTAL_PX, HOMOGRAPHY_PX = 1.5, 4.0
"""Greatest errors of inliers, in pixels of the pictures that points are looked for in (at most 640 wide or high)."""

# More find no more: right and wrong candidates of four sets have the same inliers after 100 to 1,000.
_ITERATIONS = 300
_CONFIDENCE = 0.999
_SEED = 20240518
# Points that spread less across their main direction lie on a line, which any fundamental matrix and homography fits.
_MIN_SPREAD_PX = 2.0
# Descriptors of a candidate whose products with the query's fit into the cache of a core.
_BLOCK = 256

Float = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Mask = NDArray[np.bool_]
Matched = tuple[NDArray[np.int64], NDArray[np.int64], Float]
"""Numbers of points of the query, ascending, of the candidate, and cosines."""


@dataclass(frozen=True, eq=False)
class VerifiedMatches:
    """Matched points of a query and a candidate.

    Attributes:
        query_index: (P,) int64, numbers of points of the query, ascending; P may be 0.
        candidate_index: (P,) int64, their points of the candidate, no one twice.
        query_xy: (P, 2) float32 pixels of the query's `image_size_wh`.
        candidate_xy: (P, 2) float32 pixels of the candidate's `image_size_wh`.
        similarity: (P,) float32 cosines.
        on_homography: (P,) whether they agree with the homography that most agree with.
        on_fundamental: (P,) likewise with the fundamental matrix; None where none was asked for.
        kind: of the points.
    """

    query_index: NDArray[np.int64]
    candidate_index: NDArray[np.int64]
    query_xy: Float
    candidate_xy: Float
    similarity: Float
    on_homography: Mask
    on_fundamental: Mask | None = None
    kind: str = XFEAT

    def __len__(self) -> int:
        """P."""
        return len(self.query_index)

    @property
    def num_homography(self) -> int:
        """Inliers of the homography."""
        return int(self.on_homography.sum())

    @property
    def num_fundamental(self) -> int | None:
        """Inliers of the fundamental matrix; None where none was asked for."""
        return None if self.on_fundamental is None else int(self.on_fundamental.sum())


def verify(query: Points, candidates: Sequence[Points], *, num_fundamental: int | None = None) -> list[VerifiedMatches]:
    """Match a query's points with those of candidates, and count which agree on one geometry.

    Mutual nearest neighbours of a cosine of at least `MIN_COSINE`; then MAGSAC (Barath et al., CVPR 2020) with a fixed
    seed, so that an answer repeats. Fewer than 8 matches, and such as lie on a line, have no inliers.

    Args:
        query: N points.
        candidates: K sets of points; of another kind than the query's, they have no matches.
        num_fundamental: a fundamental matrix is fitted for the first so many candidates; None: for all.

    Returns:
        One a candidate, in their order.
    """
    wanted = len(candidates) if num_fundamental is None else num_fundamental

    def match() -> list[Matched]:
        products = _Products(query)
        return [_matched(query, candidate, products) for candidate in candidates]

    def fit_share(share: Sequence[tuple[Points, bool, Matched]]) -> list[VerifiedMatches]:
        return [_verified(query, *item) for item in share]

    # Matching is many short calls, after each of which threads would wait for each other; fitting is a few long ones.
    matched = beside(match)()
    return map_in_threads(
        fit_share,
        [
            (candidate, number < wanted, matches)
            for number, (candidate, matches) in enumerate(zip(candidates, matched, strict=True))
        ],
    )


def with_fundamental(query: Points, pairs: Sequence[tuple[VerifiedMatches, Points]]) -> list[VerifiedMatches]:
    """The same matches with a fundamental matrix fitted, where it was not.

    Args:
        query: whose matches they are.
        pairs: matches and the candidate's points that they belong to.
    """

    def fit_share(share: Sequence[tuple[VerifiedMatches, Points]]) -> list[VerifiedMatches]:
        return [
            matches
            if matches.on_fundamental is not None
            else replace(
                matches,
                on_fundamental=_on_fundamental(
                    *_working_pixels(matches.query_xy, matches.candidate_xy, query, candidate)
                ),
            )
            for matches, candidate in share
        ]

    return map_in_threads(fit_share, pairs)


def mutual_matches(query: Points, candidate: Points) -> Matched:
    """Points that choose each other by the cosine of their descriptors.

    Returns:
        (P,) numbers of points of the query, ascending, (P,) of the candidate, and (P,) cosines. Of equally similar
        ones, a point of the candidate chooses the first of the query's, and no point has two partners.
    """
    return _matched(query, candidate, _Products(query))


class _Products:
    """Inner products of one query's descriptors with those of candidates, in memory that each uses again."""

    def __init__(self, query: Points) -> None:
        # Torch's own memory begins where a vector does; products with columns that do not take twice as long.
        self._columns = torch.from_numpy(query.descriptors.T).clone(memory_format=torch.contiguous_format)
        self._memory = torch.empty((_BLOCK, len(query)), dtype=torch.int32)

    def nearest(self, descriptors: NDArray[np.int8]) -> tuple[NDArray[np.int64], Int32, Int32]:
        """What mutual nearest neighbours follow from; block by block, so that products are read while they are near.

        Args:
            descriptors: (M, C), M > 0.

        Returns:
            (M,) the first of the query's points that are nearest to each, (M,) its product, and (N,) the highest
            product of each of the query's points.
        """
        nearest, product = np.empty(len(descriptors), np.int64), np.empty(len(descriptors), np.int32)
        highest: Int32 | None = None
        for start in range(0, len(descriptors), _BLOCK):
            products = self._of(descriptors[start : start + _BLOCK])
            values, here = products.numpy(), slice(start, start + len(products))
            values.argmax(axis=1, out=nearest[here])
            product[here] = values[np.arange(len(values)), nearest[here]]
            best = products.amax(dim=0).numpy()
            highest = best if highest is None else np.maximum(highest, best, out=highest)
        assert highest is not None
        return nearest, product, highest

    def _of(self, descriptors: NDArray[np.int8]) -> Tensor:
        """(M, N) int32, exact; the next call overwrites them."""
        rows, products = as_tensor(descriptors), self._memory[: len(descriptors)]
        if has_integer_kernel():
            return torch._int_mm(rows, self._columns, out=products)
        # At most 128 products of 127 x 127: integers that float32 holds exactly.
        return products.copy_(rows.float() @ self._columns.float())


def _matched(query: Points, candidate: Points, products_of: _Products) -> Matched:
    """See `mutual_matches`."""
    none = np.empty(0, np.int64)
    if query.kind != candidate.kind or len(query) == 0 or len(candidate) == 0:
        return none, none, np.empty(0, np.float32)
    nearest, product, highest = products_of.nearest(candidate.descriptors)
    # The squared length of a descriptor is that of its scale, but for rounding.
    length = DESCRIPTOR_SCALE[query.kind] ** 2
    agreed = (product == highest[nearest]) & (product >= MIN_COSINE[query.kind] * length)
    candidate_index = np.flatnonzero(agreed)
    query_index, first = np.unique(nearest[candidate_index], return_index=True)
    candidate_index = candidate_index[first]
    similarity = np.minimum(product[candidate_index] / length, 1.0)
    return query_index, candidate_index, similarity.astype(np.float32)


def _verified(
    query: Points,
    candidate: Points,
    fundamental: bool,
    matched: Matched,
) -> VerifiedMatches:
    query_index, candidate_index, similarity = matched
    matched_xy = query.keypoints_xy[query_index], candidate.keypoints_xy[candidate_index]
    points = _working_pixels(*matched_xy, query, candidate)
    return VerifiedMatches(
        query_index,
        candidate_index,
        *matched_xy,
        similarity,
        _on_homography(*points),
        _on_fundamental(*points) if fundamental else None,
        query.kind,
    )


def _working_pixels(query_xy: Float, candidate_xy: Float, query: Points, candidate: Points) -> tuple[Float64, Float64]:
    """(P, 2) each: matched points in pixels of the pictures that points are looked for in."""
    return (
        query_xy.astype(np.float64) * query.working_scale,
        candidate_xy.astype(np.float64) * candidate.working_scale,
    )


def _on_homography(query_px: Float64, candidate_px: Float64) -> Mask:
    """(P,) inliers of the homography that most agree with."""
    none = np.zeros(len(query_px), bool)
    if not _is_spread(query_px, candidate_px, none | True):
        return none
    found, mask = _fitted(cv2.findHomography, query_px, candidate_px, HOMOGRAPHY_PX)
    if found is None or mask is None or not np.isfinite(found).all() or abs(np.linalg.det(found)) < 1e-12:
        return none
    # MAGSAC weighs beyond its threshold; what counts here is the error itself.
    moved = cv2.perspectiveTransform(query_px[:, None], found)[:, 0]
    near = (mask.ravel() > 0) & (np.linalg.norm(moved - candidate_px, axis=1) <= HOMOGRAPHY_PX)
    return near if _is_spread(query_px, candidate_px, near) else none


def _on_fundamental(query_px: Float64, candidate_px: Float64) -> Mask:
    """(P,) inliers of the fundamental matrix that most agree with."""
    none = np.zeros(len(query_px), bool)
    if not _is_spread(query_px, candidate_px, none | True):
        return none
    found, mask = _fitted(cv2.findFundamentalMat, query_px, candidate_px, FUNDAMENTAL_PX)
    if found is None or mask is None or found.shape != (3, 3) or not np.isfinite(found).all():
        return none
    near = np.asarray(mask.ravel() > 0)
    return near if _is_spread(query_px, candidate_px, near) else none


def _fitted(
    find: Callable[..., tuple[Any, Any]], query_px: Float64, candidate_px: Float64, threshold_px: float
) -> tuple[Any, Any]:
    """The matrix that most matches agree with, and its mask; None each where no sample of them gives one."""
    try:
        return find(query_px, candidate_px, _usac(threshold_px))
    except cv2.error:
        # OpenCV fails where its local optimisation comes to nothing (setModelParameters, !model.empty()).
        return None, None


def _is_spread(query_px: Float64, candidate_px: Float64, chosen: Mask) -> bool:
    """Whether at least 8 points are chosen that lie on no line, in either picture."""
    if np.count_nonzero(chosen) < MIN_MATCHES:
        return False
    for points in (query_px[chosen], candidate_px[chosen]):
        x, y = (points - points.mean(axis=0)).T
        xx, yy, xy = x @ x, y @ y, x @ y
        # The smaller eigenvalue of the covariance is the variance across the main direction.
        across = (xx + yy - math.hypot(xx - yy, 2.0 * xy)) / 2.0 / (len(points) - 1)
        if across < _MIN_SPREAD_PX**2:
            return False
    return True


def _usac(threshold_px: float) -> cv2.UsacParams:
    """MAGSAC as `cv2.USAC_MAGSAC` has it, with a seed of its own, in one thread."""
    settings = cv2.UsacParams()
    settings.score = cv2.SCORE_METHOD_MAGSAC
    settings.sampler = cv2.SAMPLING_UNIFORM
    settings.loMethod = cv2.LOCAL_OPTIM_SIGMA
    settings.threshold = threshold_px
    settings.maxIterations = _ITERATIONS
    settings.confidence = _CONFIDENCE
    settings.randomGeneratorState = _SEED
    settings.isParallel = False
    return settings
