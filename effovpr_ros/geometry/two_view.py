"""Do matched points of two calibrated images agree with one rigid motion, up to its scale?"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_POINTS = 8

_CONFIDENCE = 0.999
_MAX_ITERATIONS = 5000
# A homography is the narrower model (it says where a point lies, not only on which line), so it is preferred where
# it explains nearly as many points.
_HOMOGRAPHY_SHARE = 0.8
# Largest entry by which a homography between rays may differ from a rotation and still be one.
_ROTATION_TOLERANCE = 0.03
# Points that hardly move are at any distance: only behind the camera is wrong.
_FAR = 1e4


@dataclass(frozen=True)
class TwoViewGeometry:
    """The motion that most points agree with.

    Attributes:
        is_homography: one plane or one rotation explains the points; else an essential matrix does.
        inliers: (N,) bool.
        rotation_place_query: (3, 3) float64, turns directions of the query's camera into the place's; None where a
            plane leaves it ambiguous.
        direction_place_query: (3,) float64, unit vector from the place's camera to the query's, in the place's camera
            axes; None for a homography.
    """

    is_homography: bool
    inliers: NDArray[np.bool_]
    rotation_place_query: NDArray[np.float64] | None
    direction_place_query: NDArray[np.float64] | None


def two_view_geometry(
    query_rays: NDArray[np.float64], place_rays: NDArray[np.float64], focal_px: float, max_error_px: float
) -> TwoViewGeometry | None:
    """Fit an essential matrix and a homography by MAGSAC (Barath et al., CVPR 2020) and choose between them.

    Args:
        query_rays: (N, 2) finite normalised image coordinates.
        place_rays: (N, 2) likewise.
        focal_px: turns normalised coordinates into pixels.
        max_error_px: Sampson distance of an essential matrix's inliers, transfer error of a homography's.

    Returns:
        None with fewer than 8 points, and where neither model can be fitted, as to points that coincide.
    """
    if len(query_rays) < MIN_POINTS:
        return None
    # Models are fitted in pixels of an ideal camera, for which OpenCV's thresholds and its numerics were made.
    query_px, place_px = query_rays * focal_px, place_rays * focal_px
    camera = np.diag([focal_px, focal_px, 1.0])
    homography, h_inliers = _homography(query_px, place_px, max_error_px)
    essential = _essential(query_px, place_px, camera, max_error_px)
    num_homography = int(h_inliers.sum())
    num_essential = 0 if essential is None else int(essential.inliers.sum())
    if homography is not None and num_homography and num_homography >= _HOMOGRAPHY_SHARE * num_essential:
        rotation = _as_rotation(np.linalg.inv(camera) @ homography @ camera)
        return TwoViewGeometry(True, h_inliers, rotation, None)
    return essential


def yaw_left_rad(rotation_place_query: NDArray[np.float64]) -> float:
    """How far the query's camera looks left of the place's, from optical axes (REP 103: positive to the left)."""
    axis = rotation_place_query[:, 2]
    return float(np.arctan2(-axis[0], axis[2]))


def _homography(
    query_px: NDArray[np.float64], place_px: NDArray[np.float64], max_error_px: float
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    none = np.zeros(len(query_px), bool)
    found, mask = cv2.findHomography(
        query_px, place_px, cv2.USAC_MAGSAC, max_error_px, maxIters=_MAX_ITERATIONS, confidence=_CONFIDENCE
    )
    if found is None or not np.isfinite(found).all() or abs(np.linalg.det(found)) < 1e-12:
        return None, none
    homography = np.asarray(found, np.float64)
    # MAGSAC weighs beyond its threshold; what counts here is the error itself.
    moved = cv2.perspectiveTransform(query_px.reshape(-1, 1, 2), homography).reshape(-1, 2)
    near = np.linalg.norm(moved - place_px, axis=1) <= max_error_px
    return homography, np.asarray(near & (mask.ravel() > 0), bool)


def _essential(
    query_px: NDArray[np.float64], place_px: NDArray[np.float64], camera: NDArray[np.float64], max_error_px: float
) -> TwoViewGeometry | None:
    essential, mask = cv2.findEssentialMat(
        query_px, place_px, camera, method=cv2.USAC_MAGSAC, prob=_CONFIDENCE, threshold=max_error_px
    )
    if essential is None or essential.shape != (3, 3) or not np.isfinite(essential).all():
        return None
    _, rotation, translation, in_front, _ = cv2.recoverPose(
        essential, query_px, place_px, camera, distanceThresh=_FAR, mask=mask.copy()
    )
    inliers = np.asarray((mask.ravel() > 0) & (in_front.ravel() > 0), bool)
    direction = np.asarray(translation, np.float64).ravel()
    return TwoViewGeometry(False, inliers, np.asarray(rotation, np.float64), direction)


def _as_rotation(homography: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The rotation that a homography between rays is; None if it is that of a plane seen from two spots."""
    scaled = homography / np.cbrt(np.linalg.det(homography))
    left, _, right = np.linalg.svd(scaled)
    rotation = left @ right
    if np.linalg.det(rotation) < 0.0 or np.abs(scaled - rotation).max() > _ROTATION_TOLERANCE:
        return None
    return np.asarray(rotation, np.float64)
