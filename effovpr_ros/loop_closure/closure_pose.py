"""The relative pose of a loop closure, in metres: by depth where there is some, else by the match's neighbours."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose, inverse
from effovpr_ros.geometry.depth import depth_at
from effovpr_ros.geometry.measured_pose import (
    MAX_SPREAD_M,
    MAX_VIEWS,
    MIN_SIDE_PX,
    PoseMeasurement,
    PoseOutcome,
    measure_pose,
    refused,
)
from effovpr_ros.geometry.pnp import in_body_frame, solve_pnp
from effovpr_ros.geometry.points import Points
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.geometry.query_rays import QueryPicture
from effovpr_ros.geometry.rig import RigView
from effovpr_ros.geometry.verified_matches import with_fundamental
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.session_cameras import read_cameras
from effovpr_ros.recognition.posing import rig_view, working
from effovpr_ros.recognition.third_stage import ThirdStage, Verified, VerifiedCandidate

DepthImage = NDArray[np.float32]

# Keyframes on either side of the match that are looked at; the best five are the rig.
_NEIGHBOURS = 4
_MAX_TURN_RAD = 0.8
# Of ids on either side, of which some may be forgotten.
_MAX_IDS = 20
# What odometry may err by between neighbours, a metre driven: usual for wheels.
_DRIFT = 0.02
_TURN_RAD_PER_M = 0.005
# The match's own pose is what the relative one is told against.
_MATCH_STD_M, _MATCH_STD_RAD = 1e-3, 2e-4
_MAX_REPROJECTION_PX = 1.5
_MIN_DEPTH_SHARE = 0.33


class MeasuredBy(enum.Enum):
    """What the relative pose of a closure rests on; values as in msg/LoopClosure."""

    NOTHING = 0
    NEIGHBOURS = 1
    DEPTH = 2


@dataclass(frozen=True)
class ClosurePose:
    """The relative pose of a closure, or why none was measured.

    Attributes:
        measured_by: what it rests on.
        reason: the figures, or what was missing, for people.
        relative_pose: T_match_query of the body (odometry's child frame) [m]; only where measured.
        covariance: (6, 6) float64 positive definite, order x y z roll pitch yaw about the fixed axes of the match's
            body (geometry_msgs/PoseWithCovariance); m^2 and rad^2.
        num_inliers: points that agree with it.
    """

    measured_by: MeasuredBy
    reason: str
    relative_pose: Pose | None = None
    covariance: NDArray[np.float64] | None = field(default=None, repr=False)
    num_inliers: int = 0


NOT_ASKED = ClosurePose(MeasuredBy.NOTHING, PoseOutcome.NOT_ASKED.value)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A closure as far as it is measured: the match, points of the query, places verified, and both cameras."""

    match: Place
    query_id: int
    query: Points
    known: Sequence[VerifiedCandidate]
    camera: MountedCamera
    mounting: Pose
    match_camera: MountedCamera
    match_mounting: Pose


class ClosurePoses:
    """Measures closures of one growing map; for one thread."""

    def __init__(self, place_map: MapReader, third_stage: ThirdStage, config: PoseConfig, max_depth_m: float) -> None:
        """Keep what is needed.

        Args:
            place_map: of the keyframes.
            third_stage: of that map.
            config: limits.
            max_depth_m: points farther away by the depth image are not used.
        """
        self._place_map = place_map
        self._third_stage = third_stage
        self._config = config
        self._max_depth_m = max_depth_m

    def measure(
        self,
        match: Place,
        query_id: int,
        points: Callable[[], Points],
        verified: Verified | None,
        camera: MountedCamera | None,
        depth: Callable[[], DepthImage | None] | None,
    ) -> ClosurePose:
        """Measure one closure.

        Args:
            match: the older keyframe.
            query_id: of the newer keyframe.
            points: of the newer keyframe's image.
            verified: what the third stage found for it, if it ran.
            camera: that took it, with its mounting.
            depth: gives the depth image registered to it [m], NaN where not known.
        """
        if camera is None:
            return _none(refused(PoseOutcome.NO_CAMERA, "no usable camera_info"))
        if camera.body_from_camera is None:
            return _none(refused(PoseOutcome.NO_MOUNTING, "set camera_pose"))
        stored = read_cameras(self._place_map).get(match.session)
        if stored is None or stored.body_from_camera is None:
            return _none(refused(PoseOutcome.NO_CAMERA, f"the map keeps none for session {match.session!r}"))
        if not self._third_stage.load():
            return _none(refused(PoseOutcome.TOO_FEW_POINTS, "the network of the points cannot be used; see the log"))
        query = points() if verified is None else verified.query
        for size_wh, mounted in ((query.image_size_wh, camera), (match.image_size_wh, stored)):
            if not mounted.camera.fits(size_wh):
                figures = f"it has {size_wh} pixels, the camera {mounted.camera.image_size_wh}"
                return _none(refused(PoseOutcome.OTHER_CAMERA, figures))
        known = () if verified is None else verified.candidates
        mountings = camera.body_from_camera, stored.body_from_camera
        pair = _Pair(match, query_id, query, known, camera, mountings[0], stored, mountings[1])
        depth_m = None if depth is None else depth()
        by_depth = None if depth_m is None else self._by_depth(pair, depth_m)
        if by_depth is not None and by_depth.relative_pose is not None:
            return by_depth
        by_rig = self._by_neighbours(pair)
        if by_depth is not None and by_rig.relative_pose is None:
            return replace(by_rig, reason=f"{by_depth.reason}; {by_rig.reason}")
        return by_rig

    def _by_depth(self, pair: _Pair, depth_m: DepthImage) -> ClosurePose:
        (item,) = self._compared(pair, [pair.match])
        seen, place = working(pair.query), working(item.points)
        query_xy = seen.keypoints_xy[item.matches.query_index].astype(np.float64)
        place_xy = place.keypoints_xy[item.matches.candidate_index].astype(np.float64)
        query_rays = pair.camera.camera.scaled(seen.image_size_wh).undistort(query_xy)
        model = pair.match_camera.camera.scaled(place.image_size_wh)
        place_rays = model.undistort(place_xy)
        metres = depth_at(depth_m, query_xy, seen.image_size_wh)
        # NaN compares as False, so that points without depth are dropped too.
        near = (metres <= self._max_depth_m) & np.isfinite(query_rays).all(axis=1) & np.isfinite(place_rays).all(axis=1)
        points_m = np.column_stack([query_rays[near], np.ones(near.sum())]) * metres[near, None]
        pose = solve_pnp(points_m, place_rays[near], float(np.mean(model.focal_xy_px)), _MAX_REPROJECTION_PX)
        num_inliers = 0 if pose is None else int(pose.inliers.sum())
        figures = f"by depth {num_inliers} of {int(near.sum())} points agree"
        if pose is None or num_inliers < max(self._config.pose_min_inliers, _MIN_DEPTH_SHARE * near.sum()):
            return ClosurePose(MeasuredBy.NOTHING, figures, num_inliers=num_inliers)
        moved, covariance = in_body_frame(pose, pair.match_mounting, pair.mounting)
        return ClosurePose(MeasuredBy.DEPTH, f"{figures}, {pose.error_px:.2f} px", moved, covariance, num_inliers)

    def _by_neighbours(self, pair: _Pair) -> ClosurePose:
        match = pair.match
        if match.pose is None or match.pose.position_xyz[2] is None or match.pose.quat_xyzw is None:
            return _none(refused(PoseOutcome.NO_POSE, f"keyframe {match.place_id} has no odometry"))
        driven_m = dict(self._neighbours(match, pair.query_id))
        places = [match, *(self._place_map.place(number) for number in driven_m)]
        found = self._compared(pair, places)
        found = [item for item in found if len(item.matches) and not self._third_stage.is_coarse(item.place_id)]
        if not found and self._third_stage.is_coarse(match.place_id):
            return _none(refused(PoseOutcome.COARSE_POINTS, "set points to stored"))
        # The match itself first: the others tell the scale.
        found.sort(key=lambda item: (item.place_id != match.place_id, -item.matches.num_homography))
        found = found[:MAX_VIEWS]
        fitted = with_fundamental(pair.query, [(item.matches, item.points) for item in found])
        views = [
            self._view(replace(item, matches=matches), pair.match_camera, driven_m.get(item.place_id))
            for item, matches in zip(found, fitted, strict=True)
        ]
        seen = working(pair.query)
        camera = pair.camera.camera.scaled(seen.image_size_wh)
        picture = QueryPicture(seen.keypoints_xy.astype(np.float64), camera, pair.mounting)
        measured = measure_pose([picture], views, self._config)
        if measured.pose is None or measured.covariance is None:
            return _none(measured)
        relative, covariance = _relative(match.pose, measured.pose, measured.covariance)
        return ClosurePose(MeasuredBy.NEIGHBOURS, measured.reason, relative, covariance, measured.num_inliers)

    def _compared(self, pair: _Pair, places: Sequence[Place]) -> list[VerifiedCandidate]:
        """Places matched with the query, those that were already as they are."""
        by_id = {item.place_id: item for item in pair.known}
        new = self._third_stage.matched(pair.query, [place for place in places if place.place_id not in by_id])
        by_id.update({item.place_id: item for item in new})
        return [by_id[place.place_id] for place in places]

    def _neighbours(self, match: Place, query_id: int) -> Iterator[tuple[int, float]]:
        """Keyframes of the match's track made just before and after it, and how far the robot drove between."""
        for step in (-1, 1):
            last, driven_m, seen = match, 0.0, 0
            for number in range(match.place_id + step, match.place_id + step * _MAX_IDS, step):
                place = self._kept(number)
                if seen == _NEIGHBOURS or number >= query_id:
                    break
                if place is None:
                    continue
                driven_m += _driven_m(last, place)
                if not driven_m <= MAX_SPREAD_M:
                    break
                last, seen = place, seen + 1
                if max(place.image_size_wh) >= MIN_SIDE_PX and _turned_rad(match, place) < _MAX_TURN_RAD:
                    yield number, driven_m

    def _kept(self, place_id: int) -> Place | None:
        """None for a keyframe that was forgotten, and where there never was one."""
        try:
            return self._place_map.place(place_id) if place_id >= 0 else None
        except MapError:
            return None

    def _view(self, item: VerifiedCandidate, mounted: MountedCamera, driven_m: float | None) -> RigView:
        place = self._place_map.place(item.place_id)
        view = rig_view(item, place.pose, mounted)
        if driven_m is None:
            return replace(view, position_std_m=_MATCH_STD_M, angle_std_rad=_MATCH_STD_RAD)
        return replace(
            view,
            position_std_m=math.hypot(self._config.map_position_std_m, _DRIFT * driven_m),
            angle_std_rad=math.hypot(self._config.map_angle_std_rad, _TURN_RAD_PER_M * driven_m),
        )


def _none(measured: PoseMeasurement) -> ClosurePose:
    return ClosurePose(MeasuredBy.NOTHING, measured.reason)


def _driven_m(before: Place, after: Place) -> float:
    """Infinite where the two poses do not relate."""
    related = (before.session, before.own_frame) == (after.session, after.own_frame)
    if before.pose is None or after.pose is None or not related:
        return math.inf
    return before.pose.distance_m(after.pose)


def _turned_rad(match: Place, place: Place) -> float:
    turned = None if match.pose is None or place.pose is None else match.pose.turn_rad(place.pose)
    return math.inf if turned is None else turned


def _relative(match: Pose, query: Pose, covariance: NDArray[np.float64]) -> tuple[Pose, NDArray[np.float64]]:
    """The query's pose and its covariance along the axes of the match."""
    turn = np.kron(np.eye(2), Rotation.from_quat(match.known_quat_xyzw).inv().as_matrix())
    turned = turn @ covariance @ turn.T
    return compose(inverse(match), query), (turned + turned.T) / 2.0
