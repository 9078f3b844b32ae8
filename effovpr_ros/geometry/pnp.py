"""Metric pose of one camera against another from points whose depth is known in one of them (PnP)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.rig import cross_matrix

MIN_POINTS = 8

_CONFIDENCE = 0.999
_MAX_ITERATIONS = 2000
# What no residual tells: feature positions are shared errors of a thumbnail's pixels, calibration and depth have
# scale errors, and points of one surface err together. See docs/verification.md for how well it fits.
_MIN_PIXEL_STD = 0.5
_MIN_POSITION_STD_M = 0.01
_MIN_ANGLE_STD_RAD = 0.003
_POSITION_STD_PER_DEPTH = 0.005


@dataclass(frozen=True)
class PnpPose:
    """Pose of the query's camera in the place's camera, optical axes.

    Attributes:
        rotation: (3, 3) float64, turns directions of the query's camera into the place's.
        translation_m: (3,) float64, of the query's camera in the place's.
        covariance: (6, 6) float64 positive definite, order x y z and turns about the fixed x, y, z axes of the
            place's camera; m^2 and rad^2.
        inliers: (N,) bool.
        error_px: root mean square of the inliers' reprojection errors.
    """

    rotation: NDArray[np.float64]
    translation_m: NDArray[np.float64]
    covariance: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    error_px: float


def solve_pnp(
    query_points_m: NDArray[np.float64], place_rays: NDArray[np.float64], focal_px: float, max_error_px: float
) -> PnpPose | None:
    """Fit the pose that projects points of the query onto where the place sees them, by MAGSAC, then least squares.

    Args:
        query_points_m: (N, 3) finite, in the query's camera, optical axes.
        place_rays: (N, 2) finite normalised image coordinates in the place.
        focal_px: turns normalised coordinates into pixels of the place's image.
        max_error_px: reprojection error of inliers.

    Returns:
        None with fewer than 8 points or inliers, and where no pose can be fitted, as to points on a line.
    """
    if len(query_points_m) < MIN_POINTS:
        return None
    camera = np.diag([focal_px, focal_px, 1.0])
    points, pixels = np.ascontiguousarray(query_points_m), np.ascontiguousarray(place_rays * focal_px)
    try:
        found, turn, translation, chosen = cv2.solvePnPRansac(
            points,
            pixels,
            camera,
            None,
            iterationsCount=_MAX_ITERATIONS,
            reprojectionError=max_error_px,
            confidence=_CONFIDENCE,
            flags=cv2.USAC_MAGSAC,
        )
    except cv2.error:
        # OpenCV's solvers raise where points are so degenerate that no minimal sample has a solution.
        return None
    if not found or chosen is None or len(chosen) < MIN_POINTS:
        return None
    inliers = np.zeros(len(points), bool)
    inliers[chosen.ravel()] = True
    # Refined on the inliers, which may then be a few others.
    for _ in range(2):
        turn, translation = cv2.solvePnPRefineLM(points[inliers], pixels[inliers], camera, None, turn, translation)
        if not (np.isfinite(turn).all() and np.isfinite(translation).all()):
            return None
        rotation = np.asarray(cv2.Rodrigues(turn)[0], np.float64)
        shift_m = np.asarray(translation, np.float64).ravel()
        in_place = points @ rotation.T + shift_m
        inliers = _agrees(in_place, pixels, focal_px, max_error_px)
        if inliers.sum() < MIN_POINTS:
            return None
    return _with_covariance(rotation, shift_m, in_place, pixels, focal_px, inliers)


def _agrees(
    in_place: NDArray[np.float64], pixels: NDArray[np.float64], focal_px: float, max_error_px: float
) -> NDArray[np.bool_]:
    in_front = in_place[:, 2] > 0.0
    depth = np.where(in_front, in_place[:, 2], 1.0)
    error = np.linalg.norm(focal_px * in_place[:, :2] / depth[:, None] - pixels, axis=1)
    return np.asarray(in_front & (error <= max_error_px))


def _with_covariance(
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
    in_place: NDArray[np.float64],
    pixels: NDArray[np.float64],
    focal_px: float,
    inliers: NDArray[np.bool_],
) -> PnpPose | None:
    """First-order propagation: residual variance times the inverse of J^T J, and a floor."""
    x, y, z = in_place[inliers].T
    zero = np.zeros_like(x)
    # Rows of d(u, v) / d(x, y, z of the point in the place's camera).
    by_point = focal_px * np.stack(
        [np.stack([1 / z, zero, -x / z**2], axis=1), np.stack([zero, 1 / z, -y / z**2], axis=1)], axis=1
    )
    # A turn w about the place's axes moves the turned point r by w x r = -[r]x w.
    r = in_place[inliers] - translation
    rx, ry, rz = r.T
    by_turn = -np.stack([zero, -rz, ry, rz, zero, -rx, -ry, rx, zero], axis=1).reshape(-1, 3, 3)
    jacobian = np.concatenate([by_point, by_point @ by_turn], axis=2).reshape(-1, 6)
    residuals = (focal_px * np.stack([x / z, y / z], axis=1) - pixels[inliers]).ravel()
    variance = max(float(residuals @ residuals) / (len(residuals) - 6), _MIN_PIXEL_STD**2)
    information = jacobian.T @ jacobian
    # Metres and radians are of one order here, so that a plain condition number tells a line of points.
    if not np.isfinite(information).all() or np.linalg.cond(information) > 1e12:
        return None
    position_floor = _MIN_POSITION_STD_M**2 + (_POSITION_STD_PER_DEPTH * float(np.median(z))) ** 2
    floor = np.diag([position_floor] * 3 + [_MIN_ANGLE_STD_RAD**2] * 3)
    covariance = variance * np.linalg.inv(information)
    covariance = (covariance + covariance.T) / 2.0 + floor
    error = float(np.sqrt(residuals @ residuals / inliers.sum()))
    return PnpPose(rotation, translation, covariance, inliers, error)


def in_body_frame(pose: PnpPose, place_mounting: Pose, query_mounting: Pose) -> tuple[Pose, NDArray[np.float64]]:
    """Pose of the query's body in the place's, and its covariance, from those of their cameras.

    Args:
        pose: of the cameras.
        place_mounting: T_body_camera of the place.
        query_mounting: of the query.

    Returns:
        The pose [m], and (6, 6) float64 positive definite, order x y z roll pitch yaw about the fixed axes of the
        place's body (geometry_msgs/PoseWithCovariance); m^2 and rad^2.
    """
    mount = Rotation.from_quat(place_mounting.known_quat_xyzw)
    rotation = mount * Rotation.from_matrix(pose.rotation) * Rotation.from_quat(query_mounting.known_quat_xyzw).inv()
    # T_body = T_body_camera T_place_query T_camera_body.
    swung = rotation.apply(np.array(query_mounting.known_xyz))
    x, y, z = (mount.apply(pose.translation_m) + np.array(place_mounting.known_xyz) - swung).tolist()
    qx, qy, qz, qw = rotation.as_quat().tolist()
    # A small turn w about the place's axes turns the lever too: it moves the body by -w x swung = [swung]x w.
    turned = mount.as_matrix()
    jacobian = np.block([[turned, cross_matrix(swung) @ turned], [np.zeros((3, 3)), turned]])
    moved = jacobian @ pose.covariance @ jacobian.T
    return Pose((x, y, z), (qx, qy, qz, qw)), (moved + moved.T) / 2.0
