"""The metric pose of a query from pictures of the map whose poses are known: no map of points, no depth.

The pictures are one rig of posed cameras (generalised relative pose). Where points are seen by two of them or more,
they are triangulated and give the first pose (P3P); else PoseLib's six point solver does. Bundle adjustment follows.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.first_poses import first_poses, support_of_another_pose
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.geometry.query_rays import Array, QueryPicture, QueryRays
from effovpr_ros.geometry.rig import Rig, RigView
from effovpr_ros.geometry.rig_adjustment import AdjustedPose, RigAdjustment

MAX_VIEWS = 5
MAX_SPREAD_M = 4.0
MIN_SIDE_PX = 200
"""Longest side of a picture below which points are too coarse to measure by."""

_MIN_MATCHES_OF_VIEW = 10
# Cameras on one body that turns on the spot are as far apart as their lever makes them.
_MIN_BASELINE_M = 0.08
_MAX_POINTS = 200
_EPIPOLAR_PX = 3.0
_INLIER_PX = 4.0
_MIN_SHARE = 0.35
_OTHER_POSE_SHARE = 0.5
_MAX_RIG_SHIFT = 4.0
_MAX_AWAY_M = 10.0
# Errors that points share: of localisation in like texture, of calibration, of the map's poses beyond their prior.
_SAME_COST = 1.2
_SAME_POSE = 11.3
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


def measure_pose(pictures: Sequence[QueryPicture], views: Sequence[RigView], config: PoseConfig) -> PoseMeasurement:
    """Measure where a query was taken.

    Args:
        pictures: of the query; several where its body has several cameras that took them at one time.
        views: pictures of the map with poses of one frame, that the query was matched with; best first. The first
            five of each of the query's pictures count.
        config: limits.
    """
    sides = [max(picture.camera.image_size_wh) for picture in pictures]
    if not sides or max(sides) < MIN_SIDE_PX:
        sizes = [picture.camera.image_size_wh for picture in pictures]
        return refused(PoseOutcome.SMALL_PICTURE, f"{sizes} pixels, needed {MIN_SIDE_PX}")
    views = _best_views(views, [side >= MIN_SIDE_PX for side in sides])
    if not views:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"no picture shares {_MIN_MATCHES_OF_VIEW}")
    query = QueryRays.from_pictures(pictures)
    rig = Rig.from_views(views, query, config.map_position_std_m, config.map_angle_std_rad)
    if rig.baseline_m < max(_MIN_BASELINE_M, 3.0 * float(np.median(rig.pose_std[:, 0]))):
        return refused(PoseOutcome.SHORT_BASELINE, f"{len(views)} pictures within {rig.baseline_m:.2f} m")
    seen, everything = (
        query,
        Rig.from_views(
            [_with_others(view) for view in views], query, config.map_position_std_m, config.map_angle_std_rad
        ),
    )
    query, rig, num_matched = _best_points(query, rig)
    if num_matched < config.pose_min_inliers:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"{num_matched} matched, needed {config.pose_min_inliers}")
    answers = [_refined(query, rig, first, config) for first in first_poses(query, rig)]
    if not answers:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"no pose fits {num_matched}")
    refined = sorted((answer for answer in answers if answer is not None), key=lambda answer: answer.cost)
    if not refined:
        return refused(PoseOutcome.TOO_FEW_POINTS, f"fewer than {config.pose_min_inliers} of {num_matched} agree")
    best = refined[0]
    if len(refined) > 1 and best.differs_from(refined[1]) and refined[1].cost < _SAME_COST * best.cost:
        return refused(PoseOutcome.TWO_POSES, f"of {num_matched} points")
    measured = _judged(best, query, rig, config)
    if not measured.is_measured:
        return measured
    own, others = support_of_another_pose(seen, everything, best.adjusted.rotation, best.adjusted.centre_m)
    if others > _OTHER_POSE_SHARE * own:
        return refused(PoseOutcome.TWO_POSES, f"{measured.reason}; {own} points with it, {others} with another pose")
    return measured


def _with_others(view: RigView) -> RigView:
    """A view whose matches are all counted, those that agree with its epipolar geometry or not."""
    if view.other_index is None or view.other_xy is None:
        return view
    index, points_xy = np.concatenate([view.query_index, view.other_index]), np.vstack([view.points_xy, view.other_xy])
    return replace(view, query_index=index, points_xy=points_xy)


def _best_views(views: Sequence[RigView], is_usable: Sequence[bool]) -> list[RigView]:
    """Of each picture of the query that is large enough, those that share points enough; at most five."""
    best: list[RigView] = []
    for picture in np.flatnonzero(is_usable).tolist():
        own = [view for view in views if view.picture == picture and len(view.query_index) >= _MIN_MATCHES_OF_VIEW]
        best += own[:MAX_VIEWS]
    return best


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


def _refined(query: QueryRays, rig: Rig, first: tuple[Array, Array], config: PoseConfig) -> _Refined | None:
    """Adjust to what is near the epipolar geometry of a first pose, and again to what then agrees.

    Returns:
        None where too few points agree.
    """
    near = rig.sampson_px(query, *first) <= _EPIPOLAR_PX
    once = _adjusted(query, rig.only(near), first, config)
    if once is None:
        return None
    agrees = _agreeing(rig, near, once)
    adjusted = _adjusted(query, rig.only(agrees), (once.rotation, once.centre_m), config)
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


def _adjusted(query: QueryRays, rig: Rig, first: tuple[Array, Array], config: PoseConfig) -> AdjustedPose | None:
    """None where too few points are seen, or nothing fits them."""
    seen, kept = _compact(query, rig)
    return RigAdjustment(seen, kept).solve(*first) if len(seen) >= config.pose_min_inliers else None


def _best_points(query: QueryRays, rig: Rig) -> tuple[QueryRays, Rig, int]:
    """The points that most views see; renumbered. Also how many there were."""
    count = np.bincount(rig.point, minlength=len(query))
    matched = np.flatnonzero(count)
    # Of equals every n-th, so that they spread over the picture's strengths.
    order = matched[np.lexsort((np.arange(len(matched)) % 7, -count[matched]))][:_MAX_POINTS]
    chosen = np.zeros(len(query), bool)
    chosen[order] = True
    seen, kept = _compact(query, rig.only(chosen[rig.point]))
    return seen, kept, len(matched)


def _compact(query: QueryRays, rig: Rig) -> tuple[QueryRays, Rig]:
    """Only the points that a view sees, numbered from 0."""
    used, renumbered = np.unique(rig.point, return_inverse=True)
    return query.only(used), replace(rig, point=renumbered.ravel())


def _judged(best: _Refined, query: QueryRays, rig: Rig, config: PoseConfig) -> PoseMeasurement:
    """A measurement, or why none is believed."""
    adjusted = best.adjusted
    num_inliers, num_points = len(np.unique(rig.point[best.agrees])), len(query)
    figures = f"{num_inliers} of {num_points} points agree"
    if num_inliers < max(config.pose_min_inliers, _MIN_SHARE * num_points):
        return refused(PoseOutcome.TOO_FEW_POINTS, f"{figures}, needed {config.pose_min_inliers} and {_MIN_SHARE:.0%}")
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
            f"position known to {std_m:.2f} m, needed {config.pose_max_std_m:g}; baseline {rig.baseline_m:.2f} m",
        )
    num_views = len(np.unique(rig.view[best.agrees]))
    reason = f"{figures} in {num_views} pictures; position known to {std_m:.3f} m"
    x, y, z = adjusted.centre_m.tolist()
    qx, qy, qz, qw = Rotation.from_matrix(adjusted.rotation).as_quat().tolist()
    pose = Pose((x, y, z), (qx, qy, qz, qw))
    return PoseMeasurement(PoseOutcome.MEASURED, reason, pose, covariance, num_inliers, num_views)


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
