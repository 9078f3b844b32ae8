"""First poses of a query against a rig, by PoseLib's minimal solvers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import poselib

from effovpr_ros.geometry.query_rays import Array, Index, QueryRays
from effovpr_ros.geometry.rig import Rig
from effovpr_ros.matching.parallel import beside

_MIN_TRIANGULATED = 15
_ERROR_PX = 3.0
# A point is far from a pose beyond.
_OTHER_PX = 8.0
_MIN_SHARE = 0.35
_SAME_M = 0.05
_ABSOLUTE_OPTIONS = {"max_reproj_error": _ERROR_PX, "max_iterations": 300, "min_iterations": 30}
_RELATIVE_OPTIONS = {"max_epipolar_error": 1.5, "max_iterations": 300, "min_iterations": 30}


def first_poses(query: QueryRays, rig: Rig) -> Iterator[tuple[Array, Array]]:
    """Rotation (body to map) and centre by P3P, then by PoseLib's six point solver for rigs where it finds another.

    Points that several views see tell the scale where all views lie on one line with the query; the epipolar
    geometry of all views tells two poses apart that a plane of triangulated points leaves open. The second is sought
    in another thread while the caller works with the first.
    """
    start = _from_triangulated(query, rig)
    soon = beside(partial(_by_epipolar_geometry, query, rig, start))
    first = None if start is None else _of_body(start)
    if first is not None:
        yield first
    second = soon()
    if second is not None and (first is None or np.linalg.norm(second[1] - first[1]) >= _SAME_M):
        yield second


def _by_epipolar_geometry(query: QueryRays, rig: Rig, start: poselib.CameraPose | None) -> tuple[Array, Array] | None:
    matches: list[poselib.PairwiseMatches] = []
    numbers, views = np.unique(rig.view, return_inverse=True)
    camera = query.camera[rig.point]
    for place in range(len(numbers)):
        for own_camera in np.unique(camera[views.ravel() == place]).tolist():
            own = (views.ravel() == place) & (camera == own_camera)
            pair = poselib.PairwiseMatches()
            pair.cam_id1, pair.cam_id2 = place, own_camera
            pair.x1 = rig.rays[own] * rig.focal_px[numbers[place]]
            pair.x2 = query.rays[rig.point[own]] * query.focal_px[own_camera]
            matches.append(pair)
    found, info = poselib.estimate_generalized_relative_pose(
        matches,
        [_camera_pose(rig.rotation[view].T, -rig.rotation[view].T @ rig.centre_m[view]) for view in numbers],
        [_pinhole(float(rig.focal_px[view])) for view in numbers],
        [_camera_pose(turn.T, -turn.T @ centre) for turn, centre in zip(query.rotation, query.centre_m, strict=True)],
        [_pinhole(float(focal)) for focal in query.focal_px],
        _RELATIVE_OPTIONS,
        {},
        start,
    )
    return _of_body(found) if info["num_inliers"] else None


def support_of_another_pose(query: QueryRays, rig: Rig, rotation: Array, centre_m: Array) -> tuple[int, int]:
    """How many triangulated points agree with a pose, and how many of those far from it with one other pose.

    Args:
        query: N points.
        rig: everything that was matched.
        rotation: (3, 3) turns directions of the body into the map's frame.
        centre_m: (3,) of the body.
    """
    numbers, points_m = rig.triangulated(len(query), _ERROR_PX)
    errors_px = query.only(numbers).errors_px(points_m, rotation, centre_m)
    far = errors_px > _OTHER_PX
    camera, others, others_m = _of_best_camera(query, numbers[far], points_m[far])
    num_others = _absolute(query, camera, others, others_m)[1] if len(others) >= _MIN_TRIANGULATED else 0
    return int((errors_px <= _ERROR_PX).sum()), num_others


def _triangulated(query: QueryRays, rig: Rig) -> tuple[int, Index, Array]:
    """Points that two views see or more: the camera that sees most of them, and its points' numbers and places."""
    return _of_best_camera(query, *rig.triangulated(len(query), _ERROR_PX))


def _of_best_camera(query: QueryRays, numbers: Index, points_m: Array) -> tuple[int, Index, Array]:
    counts = np.bincount(query.camera[numbers], minlength=len(query.focal_px))
    camera = int(counts.argmax())
    own = query.camera[numbers] == camera
    return camera, numbers[own], points_m[own]


def _absolute(query: QueryRays, camera: int, numbers: Index, points_m: Array) -> tuple[poselib.CameraPose, int]:
    focal_px = float(query.focal_px[camera])
    pose, info = poselib.estimate_absolute_pose(
        query.rays[numbers] * focal_px, points_m, _pinhole(focal_px), _ABSOLUTE_OPTIONS
    )
    return pose, int(info["num_inliers"])


def _from_triangulated(query: QueryRays, rig: Rig) -> poselib.CameraPose | None:
    """T_body_map by the camera that sees most of the triangulated points; the others come in later."""
    camera, numbers, points_m = _triangulated(query, rig)
    if len(numbers) < _MIN_TRIANGULATED:
        return None
    pose, num_inliers = _absolute(query, camera, numbers, points_m)
    if num_inliers < max(_MIN_TRIANGULATED, _MIN_SHARE * len(numbers)):
        return None
    turn, centre = query.rotation[camera], query.centre_m[camera]
    return _camera_pose(turn @ pose.R, turn @ pose.t + centre)


def _of_body(pose: poselib.CameraPose) -> tuple[Array, Array] | None:
    rotation, shift = np.asarray(pose.R, np.float64), np.asarray(pose.t, np.float64)
    if not (np.isfinite(rotation).all() and np.isfinite(shift).all()):
        return None
    return rotation.T, -rotation.T @ shift


def _camera_pose(rotation: Array, shift: Array) -> poselib.CameraPose:
    pose = poselib.CameraPose()
    pose.R, pose.t = rotation, shift
    return pose


def _pinhole(focal_px: float) -> dict[str, object]:
    """Of pixels of an ideal camera, for which PoseLib's thresholds and its numerics were made."""
    return {"model": "SIMPLE_PINHOLE", "width": 640, "height": 480, "params": [focal_px, 0.0, 0.0]}
