"""Point correspondences of two images: from matched patches, or from ORB or SIFT features."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.images import RgbImage

# Of the two nearest descriptors the second must be this much farther (Lowe, IJCV 2004, section 7.1).
_SIFT_RATIO = 0.8
_ORB_RATIO = 0.85
# Corners that a threshold for large images misses are what a dim or blurred thumbnail has.
_SIFT_CONTRAST = 0.01
_FAST_THRESHOLD = 7
# A template is a patch and half its neighbours; it is looked for within one patch of where the match puts it.
_MIN_CORRELATION = 0.7


@dataclass(frozen=True)
class MatchedCells:
    """Mutual matches of the patches of two images, as `Reranker.matched_cells` finds them.

    Attributes:
        query_xy: (P, 2) patch column and row in the query, best match first; P may be 0.
        place_xy: (P, 2) likewise in the place.
        grid_wh: columns and rows of patches, the same for both images.
    """

    query_xy: NDArray[np.uint8]
    place_xy: NDArray[np.uint8]
    grid_wh: tuple[int, int]


@dataclass(frozen=True)
class Correspondences:
    """Points of two images that are believed to show the same.

    Attributes:
        query_xy: (N, 2) float64 pixels; N may be 0.
        place_xy: (N, 2) float64 pixels.
    """

    query_xy: NDArray[np.float64]
    place_xy: NDArray[np.float64]

    def __len__(self) -> int:
        """N."""
        return len(self.query_xy)


NO_CORRESPONDENCES = Correspondences(np.empty((0, 2)), np.empty((0, 2)))


def feature_correspondences(query: RgbImage, place: RgbImage, kind: str, max_features: int) -> Correspondences:
    """Match ORB or SIFT features: mutual nearest neighbours that pass the ratio test.

    Args:
        query: (H, W, 3) uint8 RGB.
        place: (h, w, 3) uint8 RGB.
        kind: orb or sift.
        max_features: of each image.
    """
    detector: cv2.Feature2D = cv2.ORB.create(max_features, fastThreshold=_FAST_THRESHOLD)
    norm, ratio = cv2.NORM_HAMMING, _ORB_RATIO
    if kind == "sift":
        detector = cv2.SIFT.create(max_features, contrastThreshold=_SIFT_CONTRAST)
        norm, ratio = cv2.NORM_L2, _SIFT_RATIO
    query_points, query_descriptors = detector.detectAndCompute(_grey(query), None)
    place_points, place_descriptors = detector.detectAndCompute(_grey(place), None)
    # The ratio test needs a second neighbour.
    if min(len(query_points), len(place_points)) < 2:
        return NO_CORRESPONDENCES
    matcher = cv2.BFMatcher(norm)
    forward = matcher.knnMatch(query_descriptors, place_descriptors, k=2)
    backward = {match.queryIdx: match.trainIdx for match in matcher.match(place_descriptors, query_descriptors)}
    kept = [
        best
        for best, second in forward
        if best.distance < ratio * second.distance and backward[best.trainIdx] == best.queryIdx
    ]
    query_xy = np.array([query_points[match.queryIdx].pt for match in kept], np.float64).reshape(-1, 2)
    place_xy = np.array([place_points[match.trainIdx].pt for match in kept], np.float64).reshape(-1, 2)
    # SIFT gives a point once for each of its orientations.
    first = np.unique(np.hstack([query_xy, place_xy]).round(1), axis=0, return_index=True)[1]
    return Correspondences(query_xy[first], place_xy[first])


def patch_correspondences(query: RgbImage, place: RgbImage, cells: MatchedCells, max_patches: int) -> Correspondences:
    """Refine matched patches to points: the best corner of the query's patch, looked for around the place's patch.

    The corner's surroundings are found again by normalised cross-correlation, to a fraction of a pixel by a parabola.
    Patches without texture, and those that are not found, give no point.

    Args:
        query: (H, W, 3) uint8 RGB.
        place: (h, w, 3) uint8 RGB, of about the size of the query.
        cells: matched patches.
        max_patches: the best matches that are used.
    """
    grey_query, grey_place = _grey(query), _grey(place)
    cell_query = np.array(grey_query.shape[::-1]) / cells.grid_wh
    cell_place = np.array(grey_place.shape[::-1]) / cells.grid_wh
    half = max(4, round(0.75 * float(cell_query.max())))
    reach = half + max(3, round(float(cell_place.max())))
    response = np.asarray(cv2.cornerMinEigenVal(grey_query, 5), np.float32)
    found_query, found_place = [], []
    for query_cell, place_cell in zip(cells.query_xy[:max_patches], cells.place_xy[:max_patches], strict=True):
        corner = _best_corner(response, query_cell, cell_query)
        template = _window(grey_query, corner, half)
        # The corner lies at the same spot of its patch in both images, give or take a patch.
        expected = ((corner + 0.5) / cell_query - query_cell + place_cell) * cell_place - 0.5
        centre = np.rint(expected).astype(int)
        area = _window(grey_place, centre, reach)
        if template is None or area is None or template.std() < 4.0:
            continue
        offset = _correlation_peak(area, template)
        if offset is not None:
            found_query.append(corner)
            found_place.append(centre + offset)
    return Correspondences(
        np.array(found_query, np.float64).reshape(-1, 2), np.array(found_place, np.float64).reshape(-1, 2)
    )


def _best_corner(
    response: NDArray[np.float32], cell: NDArray[np.uint8], cell_size: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(2,) pixel x, y of the strongest corner within a patch."""
    left, top = np.floor(cell * cell_size).astype(int)
    right, bottom = np.maximum(np.floor((cell + 1) * cell_size).astype(int), (left + 1, top + 1))
    patch = response[top:bottom, left:right]
    row, column = np.unravel_index(int(patch.argmax()), patch.shape)
    return np.array([left + column, top + row])


def _window(image: NDArray[np.uint8], centre: NDArray[np.int64], half: int) -> NDArray[np.uint8] | None:
    """The square of 2 half + 1 pixels around a pixel; None where it leaves the image."""
    left, top = (int(value) - half for value in centre)
    side = 2 * half + 1
    if left < 0 or top < 0 or left + side > image.shape[1] or top + side > image.shape[0]:
        return None
    return image[top : top + side, left : left + side]


def _correlation_peak(area: NDArray[np.uint8], template: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """(2,) x, y of the template's centre from the area's; None if it is not found inside."""
    scores = cv2.matchTemplate(area, template, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(scores)
    height, width = scores.shape
    if best < _MIN_CORRELATION or not (0 < column < width - 1 and 0 < row < height - 1):
        return None
    sub_x = _parabola(*scores[row, column - 1 : column + 2])
    sub_y = _parabola(*scores[row - 1 : row + 2, column])
    return np.array([column + sub_x - (width - 1) / 2.0, row + sub_y - (height - 1) / 2.0])


def _parabola(before: float, peak: float, after: float) -> float:
    """Where a parabola through three values one apart, the middle one the largest, has its top: in [-0.5, 0.5]."""
    curvature = before - 2.0 * peak + after
    return 0.0 if curvature >= 0.0 else float(0.5 * (before - after) / curvature)


def _grey(image: RgbImage) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
