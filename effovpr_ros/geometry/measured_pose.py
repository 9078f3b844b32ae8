"""The metric pose of a query from pictures of the map whose poses are known: no map of points, no depth.

The pictures are one rig of posed cameras (generalised relative pose). Where points are seen by two of them or more,
they are triangulated and give the first pose (P3P); else PoseLib's six point solver does. Bundle adjustment follows.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import poselib
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.settings import check_limits, ranged
from effovpr_ros.geometry.rig import Array, Rig, RigView, cross_matrix
from effovpr_ros.geometry.rig_adjustment import AdjustedPose, RigAdjustment

MAX_VIEWS = 5
MAX_SPREAD_M = 4.0
MIN_SIDE_PX = 200
"""Longest side of a picture below which points are too coarse to measure by."""

_MIN_MATCHES_OF_VIEW = 10
# Cameras on one body that turns on the spot are as far apart as their lever makes them.
_MIN_BASELINE_M = 0.08
_MAX_POINTS = 200
_MIN_TRIANGULATED = 15
_FIRST_ERROR_PX = 3.0
_EPIPOLAR_PX = 3.0
_INLIER_PX = 4.0
_MIN_SHARE = 0.35
_OTHER_POSE_SHARE = 0.5
_MAX_RIG_SHIFT = 4.0
_MAX_AWAY_M = 10.0
# Errors that points share: of localisation in like texture, of calibration, of the map's poses beyond their prior.
_SAME_COST = 1.2
_SAME_FIRST_M = 0.05
_SAME_POSE = 11.3
_ABSOLUTE_OPTIONS = {"max_reproj_error": _FIRST_ERROR_PX, "max_iterations": 300, "min_iterations": 30}
_RELATIVE_OPTIONS = {"max_epipolar_error": 1.5, "max_iterations": 300, "min_iterations": 30}
_INFLATION = 2.5
_FLOOR_M = 0.005
_FLOOR_RAD = 0.001


class PoseOutcome(enum.Enum):
    """Whether a pose was measured, and if not, why."""

    MEASURED = "measured"
    NOT_ASKED = "not asked for"
    NO_CAMERA = "no calibration"
    GUESSED_CAMERA = "the calibration is a guess"
    NO_MOUNTING = "the camera's mounting is unknown"
    OTHER_CAMERA = "the picture is not of the calibrated camera"
    SMALL_PICTURE = "the picture is too small"
    NO_POSE = "no pose of the map to measure against"
    TOO_FEW_POINTS = "too few points agree"
    COARSE_POINTS = "the map keeps no points, and its pictures are too small to measure by"
    SHORT_BASELINE = "the map's pictures are too close together to tell a scale"
    SCALE_UNKNOWN = "the points tell no scale"
    CONTRADICTION = "points and poses of the map contradict each other"
    TWO_POSES = "two poses explain the points"
    FAR_AWAY = "the pose is far from the place"


@dataclass(frozen=True)
class PoseConfig:
    """What is measured, and what is refused.

    Each field's metadata holds `description`, `min` and `max`, both allowed.
    """

    pose_min_inliers: int = ranged(30, 8, 10000, "A pose is measured if so many points agree with it.")
    pose_max_std_m: float = ranged(
        0.2, 0.001, 1000.0, "A measured position is refused if its foretold standard deviation along an axis is above."
    )
    map_position_std_m: float = ranged(
        0.01, 0.0001, 10.0, "Standard deviation of the map's positions against their neighbours', for measured poses."
    )
    map_angle_std_rad: float = ranged(
        0.002, 0.0001, 0.5, "Standard deviation of the map's orientations, for measured poses."
    )

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata."""
        check_limits(self)


@dataclass(frozen=True, eq=False)
class PoseMeasurement:
    """What measuring gave.

    Attributes:
        outcome: MEASURED, or why there is no pose.
        reason: the figures, for people.
        pose: of the body in the frame of the map's poses; only where measured.
        covariance: (6, 6) float64 positive definite, order x y z roll pitch yaw about the fixed axes of that frame
            (geometry_msgs/PoseWithCovariance); m^2 and rad^2.
        num_inliers: points that agree with the pose.
        num_views: pictures of the map that see them.
    """

    outcome: PoseOutcome
    reason: str
    pose: Pose | None = None
    covariance: NDArray[np.float64] | None = field(default=None, repr=False)
    num_inliers: int = 0
    num_views: int = 0

    @property
    def is_measured(self) -> bool:
        """Whether there is a pose."""
        return self.outcome is PoseOutcome.MEASURED


def refused(outcome: PoseOutcome, figures: str = "") -> PoseMeasurement:
    """No pose, and why."""
    return PoseMeasurement(outcome, f"{outcome.value}: {figures}" if figures else outcome.value)


def measure_pose(
    points_xy: Array,
    camera: CameraModel,
    body_from_camera: Pose,
    views: Sequence[RigView],
    config: PoseConfig,
) -> PoseMeasurement:
    """Measure where a query was taken.

    Args:
        points_xy: (N, 2) pixels of the query's points.
        camera: of the query, for an image of the size that the points are in.
        body_from_camera: T_body_camera of the query.
        views: pictures of the map with poses of one frame, that the query was matched with; best first.
        config: limits.
    """
    if max(camera.image_size_wh) < MIN_SIDE_PX:
        return refused(PoseOutcome.SMALL_PICTURE, f"{camera.image_size_wh} pixels, wanted {MIN_SIDE_PX}")
    views = [view for view in views if len(view.query_index) >= _MIN_MATCHES_OF_VIEW][:MAX_VIEWS]
    if not views:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"no picture shares {_MIN_MATCHES_OF_VIEW}")
    rays = camera.undistort(np.asarray(points_xy, np.float64))
    rig = Rig.from_views(views, np.asarray(np.isfinite(rays).all(axis=1)))
    if rig.baseline_m < max(_MIN_BASELINE_M, 3.0 * config.map_position_std_m):
        return refused(PoseOutcome.SHORT_BASELINE, f"{len(views)} pictures within {rig.baseline_m:.2f} m")
    rays, rig, num_matched = _best_points(rays, rig)
    if num_matched < config.pose_min_inliers:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"{num_matched} matched, wanted {config.pose_min_inliers}")
    focal_px = float(np.mean(camera.focal_xy_px))
    firsts = _first_poses(rays, focal_px, rig)
    if not firsts:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"no pose fits {num_matched}")
    answers = [_refined(rays, focal_px, rig, first, config) for first in firsts]
    refined = sorted((answer for answer in answers if answer is not None), key=lambda answer: answer.cost)
    if not refined:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"fewer than {config.pose_min_inliers} of {num_matched} agree")
    best = refined[0]
    if len(refined) > 1 and best.differs_from(refined[1]) and refined[1].cost < _SAME_COST * best.cost:
        return refused(PoseOutcome.TWO_POSES, f"of {num_matched} points")
    return _judged(best, body_from_camera, rays, rig, focal_px, config)


@dataclass(frozen=True, eq=False)
class _Refined:
    """An adjusted pose, (M,) which observations it was adjusted to and agree with it, and truncated squared errors."""

    adjusted: AdjustedPose
    agrees: NDArray[np.bool_]
    cost: float

    def differs_from(self, other: _Refined) -> bool:
        """Whether the two are two poses, and not one that is not known any better."""
        apart = self.adjusted.centre_m - other.adjusted.centre_m
        spread = self.adjusted.covariance[:3, :3] + other.adjusted.covariance[:3, :3]
        return float(apart @ np.linalg.solve(_INFLATION**2 * spread + _FLOOR_M**2 * np.eye(3), apart)) > _SAME_POSE


def _refined(rays: Array, focal_px: float, rig: Rig, first: tuple[Array, Array], config: PoseConfig) -> _Refined | None:
    """Adjust to what is near the epipolar geometry of a first pose, and again to what then agrees.

    Returns:
        None where too few points agree.
    """
    near = rig.sampson_px(rays, *first) <= _EPIPOLAR_PX
    once = _adjusted(rays, focal_px, rig.only(near), first, config)
    if once is None:
        return None
    agrees = _agreeing(rig, near, once)
    adjusted = _adjusted(rays, focal_px, rig.only(agrees), (once.rotation, once.centre_m), config)
    if adjusted is None:
        return None
    errors_px = adjusted.errors_px[adjusted.errors_px <= _INLIER_PX]
    agrees = _agreeing(rig, agrees, adjusted)
    return _Refined(adjusted, agrees, float(errors_px @ errors_px) + _INLIER_PX**2 * float((~agrees).sum()))


def _agreeing(rig: Rig, used: NDArray[np.bool_], adjusted: AdjustedPose) -> NDArray[np.bool_]:
    """(M,) which observations agree with a pose that those that were used were adjusted to.

    One view's epipolar geometry is easily met by chance: a point counts where most of the views that it was matched
    in agree with one position of it.
    """
    agrees = used.copy()
    agrees[used] = adjusted.errors_px <= _INLIER_PX
    size = int(rig.point[-1]) + 1
    total, good = np.bincount(rig.point, minlength=size), np.bincount(rig.point[agrees], minlength=size)
    return np.asarray(agrees & (2 * (total - good) < total)[rig.point])


def _adjusted(
    rays: Array, focal_px: float, rig: Rig, first: tuple[Array, Array], config: PoseConfig
) -> AdjustedPose | None:
    """None where too few points are seen, or nothing fits them."""
    kept_rays, kept = _compact(rays, rig)
    if len(kept_rays) < config.pose_min_inliers:
        return None
    return RigAdjustment(kept_rays, focal_px, kept, config.map_position_std_m, config.map_angle_std_rad).solve(*first)


def _best_points(rays: Array, rig: Rig) -> tuple[Array, Rig, int]:
    """The points that most views see; renumbered. Also how many there were."""
    count = np.bincount(rig.point, minlength=len(rays))
    matched = np.flatnonzero(count)
    # Of equals every n-th, so that they spread over the picture's strengths.
    order = matched[np.lexsort((np.arange(len(matched)) % 7, -count[matched]))][:_MAX_POINTS]
    chosen = np.zeros(len(rays), bool)
    chosen[order] = True
    kept_rays, kept = _compact(rays, rig.only(chosen[rig.point]))
    return kept_rays, kept, len(matched)


def _compact(rays: Array, rig: Rig) -> tuple[Array, Rig]:
    """Only the points that a view sees, numbered from 0."""
    used, renumbered = np.unique(rig.point, return_inverse=True)
    return rays[used], Rig(rig.rotation, rig.centre_m, rig.focal_px, rig.view, renumbered.ravel(), rig.rays)


def _first_poses(rays: Array, focal_px: float, rig: Rig) -> list[tuple[Array, Array]]:
    """Rotation (camera to map) and centre by P3P and by PoseLib's six point solver for rigs; one where both agree.

    Points that several views see tell the scale where all views lie on one line with the query; the epipolar
    geometry of all views tells two poses apart that a plane of triangulated points leaves open.
    """
    matches: list[poselib.PairwiseMatches] = []
    extrinsics: list[poselib.CameraPose] = []
    cameras: list[dict[str, object]] = []
    for view in np.unique(rig.view).tolist():
        own = rig.view == view
        pair = poselib.PairwiseMatches()
        pair.cam_id1, pair.cam_id2 = len(matches), 0
        pair.x1, pair.x2 = rig.rays[own] * rig.focal_px[view], rays[rig.point[own]] * focal_px
        pose = poselib.CameraPose()
        pose.R, pose.t = rig.rotation[view].T, -rig.rotation[view].T @ rig.centre_m[view]
        matches.append(pair)
        cameras.append(_pinhole(float(rig.focal_px[view])))
        extrinsics.append(pose)
    start = _from_triangulated(rays, focal_px, rig)
    found, info = poselib.estimate_generalized_relative_pose(
        matches, extrinsics, cameras, [poselib.CameraPose()], [_pinhole(focal_px)], _RELATIVE_OPTIONS, {}, start
    )
    poses = [_of_camera(found) if info["num_inliers"] else None, None if start is None else _of_camera(start)]
    firsts = [pose for pose in poses if pose is not None]
    if len(firsts) == 2 and np.linalg.norm(firsts[0][1] - firsts[1][1]) < _SAME_FIRST_M:
        return firsts[1:]
    return firsts


def _from_triangulated(rays: Array, focal_px: float, rig: Rig) -> poselib.CameraPose | None:
    numbers, points_m = rig.triangulated(len(rays), _FIRST_ERROR_PX)
    if len(numbers) < _MIN_TRIANGULATED:
        return None
    pose, info = poselib.estimate_absolute_pose(
        rays[numbers] * focal_px, points_m, _pinhole(focal_px), _ABSOLUTE_OPTIONS
    )
    return pose if info["num_inliers"] >= max(_MIN_TRIANGULATED, _MIN_SHARE * len(numbers)) else None


def _of_camera(pose: poselib.CameraPose) -> tuple[Array, Array] | None:
    rotation, shift = np.asarray(pose.R, np.float64), np.asarray(pose.t, np.float64)
    if not (np.isfinite(rotation).all() and np.isfinite(shift).all()):
        return None
    return rotation.T, -rotation.T @ shift


def _pinhole(focal_px: float) -> dict[str, object]:
    """Of pixels of an ideal camera, for which PoseLib's thresholds and its numerics were made."""
    return {"model": "SIMPLE_PINHOLE", "width": 640, "height": 480, "params": [focal_px, 0.0, 0.0]}


def _judged(
    best: _Refined, body_from_camera: Pose, rays: Array, rig: Rig, focal_px: float, config: PoseConfig
) -> PoseMeasurement:
    """A measurement, or why none is believed."""
    adjusted = best.adjusted
    num_inliers, num_points = len(np.unique(rig.point[best.agrees])), len(rays)
    figures = f"{num_inliers} of {num_points} points agree"
    if num_inliers < max(config.pose_min_inliers, _MIN_SHARE * num_points):
        return refused(PoseOutcome.TOO_FEW_POINTS, f"{figures}, wanted {config.pose_min_inliers} and {_MIN_SHARE:.0%}")
    shift = float(np.abs(adjusted.rig_shift).max())
    if shift > _MAX_RIG_SHIFT:
        return refused(PoseOutcome.CONTRADICTION, f"a picture's pose is off by {shift:.0f} standard deviations")
    away_m = float(np.linalg.norm(rig.centre_m - adjusted.centre_m, axis=1).min())
    if away_m > _MAX_AWAY_M:
        return refused(PoseOutcome.FAR_AWAY, f"{away_m:.1f} m from the nearest picture")
    covariance = _INFLATION**2 * adjusted.covariance + np.diag([_FLOOR_M**2] * 3 + [_FLOOR_RAD**2] * 3)
    std_m = float(np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1]))
    if not std_m <= config.pose_max_std_m:
        return refused(
            PoseOutcome.SCALE_UNKNOWN,
            f"position known to {std_m:.2f} m, wanted {config.pose_max_std_m:g}; baseline {rig.baseline_m:.2f} m",
        )
    others = ~np.isin(rig.point, rig.point[best.agrees])
    num_others = _num_of_another_pose(rays, focal_px, rig.only(others))
    if num_others > _OTHER_POSE_SHARE * num_inliers:
        return refused(PoseOutcome.TWO_POSES, f"{figures}, {num_others} with another pose")
    pose, covariance = body_pose(adjusted.rotation, adjusted.centre_m, covariance, body_from_camera)
    num_views = len(np.unique(rig.view[best.agrees]))
    reason = f"{figures} in {num_views} pictures; position known to {std_m:.3f} m"
    return PoseMeasurement(PoseOutcome.MEASURED, reason, pose, covariance, num_inliers, num_views)


def _num_of_another_pose(rays: Array, focal_px: float, rig: Rig) -> int:
    """How many of the points that disagree with a pose agree with another one."""
    numbers, points_m = rig.triangulated(len(rays), _FIRST_ERROR_PX)
    if len(numbers) < _MIN_TRIANGULATED:
        return 0
    _, info = poselib.estimate_absolute_pose(rays[numbers] * focal_px, points_m, _pinhole(focal_px), _ABSOLUTE_OPTIONS)
    return int(info["num_inliers"])


def body_pose(
    rotation: Array, centre_m: Array, covariance: Array, body_from_camera: Pose
) -> tuple[Pose, NDArray[np.float64]]:
    """Pose and covariance of the body from those of its camera.

    Args:
        rotation: (3, 3) turns directions of the camera into the map's frame.
        centre_m: (3,) of the camera.
        covariance: (6, 6) of position and turns about the map's axes.
        body_from_camera: T_body_camera.
    """
    body = Rotation.from_matrix(rotation) * Rotation.from_quat(body_from_camera.quat_xyzw).inv()
    lever = body.apply(np.array(body_from_camera.position_xyz))
    # A small turn w about the map's axes moves the body by -w x lever = [lever]x w.
    jacobian = np.eye(6)
    jacobian[:3, 3:] = cross_matrix(lever)
    moved = jacobian @ covariance @ jacobian.T
    x, y, z = (centre_m - lever).tolist()
    qx, qy, qz, qw = body.as_quat().tolist()
    return Pose((x, y, z), (qx, qy, qz, qw)), (moved + moved.T) / 2.0


WITHIN_99 = 16.81
"""Quantile of the chi-squared distribution of six degrees of freedom: `mahalanobis` of 99 % of honest measurements."""


def mahalanobis(measured: Pose, truth: Pose, covariance: NDArray[np.float64]) -> float:
    """Squared error of a pose against its covariance, all six degrees of freedom.

    Raises:
        TrajectoryError: height or orientation of one is unknown.
    """
    turn = Rotation.from_quat(measured.known_quat_xyzw) * Rotation.from_quat(truth.known_quat_xyzw).inv()
    error = np.hstack([np.subtract(measured.known_xyz, truth.known_xyz), turn.as_rotvec()])
    return float(error @ np.linalg.solve(covariance, error))
