"""Metric poses by depth: points projected by hand, and degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.errors import CameraError
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.depth import depth_at, depth_metres
from effovpr_ros.geometry.pnp import PnpPose, in_body_frame, solve_pnp

FOCAL_PX = 300.0
# The query stands 0.3 m right of the place, 0.1 m lower and 0.2 m ahead, and looks 10 degrees to its left.
ROTATION = Rotation.from_euler("y", -10.0, degrees=True).as_matrix()
TRANSLATION_M = np.array([0.3, 0.1, 0.2])
OPTICAL_IN_BODY = Pose((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))


def scene(count: int, seed: int = 1) -> NDArray[np.float64]:
    """(count, 3) points in front of the query's camera."""
    rng = np.random.default_rng(seed)
    return rng.uniform((-2.0, -1.5, 3.0), (2.0, 1.5, 8.0), (count, 3))


def rays_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[:, :2] / points[:, 2:]


def seen_by_the_place(points: NDArray[np.float64], translation: NDArray[np.float64] = TRANSLATION_M):
    return rays_of(points @ ROTATION.T + translation)


def noisy(rays: NDArray[np.float64], std_px: float = 0.3, seed: int = 2) -> NDArray[np.float64]:
    return rays + np.random.default_rng(seed).normal(0.0, std_px / FOCAL_PX, rays.shape)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_points_fit_nothing(count: int):
    points = scene(count)
    assert solve_pnp(points, seen_by_the_place(points), FOCAL_PX, 1.5) is None


def test_points_that_coincide_or_lie_on_a_line_give_no_pose():
    along = np.linspace(-1.0, 1.0, 40)[:, None]
    line = along * [1.0, 0.2, 0.5] + [0.0, 0.0, 5.0]
    same = np.repeat([[0.1, 0.2, 4.0]], 40, axis=0)
    for points in (line, same):
        assert solve_pnp(points, seen_by_the_place(points), FOCAL_PX, 1.5) is None


def test_pnp_finds_the_metric_pose_with_wrong_points_among_them():
    points = scene(100)
    place = noisy(seen_by_the_place(points))
    place[:30] = np.random.default_rng(3).uniform(-0.5, 0.5, (30, 2))
    pose = solve_pnp(points, place, FOCAL_PX, 1.5)
    assert pose is not None
    assert pose.translation_m == pytest.approx(TRANSLATION_M, abs=0.02)
    assert np.abs(pose.rotation - ROTATION).max() < 0.005
    assert pose.inliers[30:].mean() > 0.95 and pose.inliers[:30].mean() < 0.1


def test_the_covariance_of_pnp_covers_the_errors_and_is_not_far_wider():
    errors, spreads = [], []
    for seed in range(40):
        points = scene(30, seed)
        pose = solve_pnp(points, noisy(seen_by_the_place(points), 4.0, seed), FOCAL_PX, 20.0)
        assert pose is not None
        assert np.linalg.eigvalsh(pose.covariance).min() > 0.0
        turn = Rotation.from_matrix(pose.rotation @ ROTATION.T).as_rotvec()
        error = np.concatenate([pose.translation_m - TRANSLATION_M, turn])
        errors.append(error @ np.linalg.solve(pose.covariance, error))
        spreads.append(pose.covariance)
    # Six degrees of freedom: 6 without the floor, which only widens.
    assert 2.5 < np.mean(errors) < 7.0
    assert np.sqrt(np.mean(spreads, axis=0).diagonal()).max() < 0.08


def test_perfect_points_leave_the_floor():
    points = scene(200)
    pose = solve_pnp(points, seen_by_the_place(points), FOCAL_PX, 1.5)
    assert pose is not None and pose.error_px < 1e-3
    position_std, angle_std = np.sqrt(pose.covariance.diagonal()).reshape(2, 3)
    assert (position_std > 0.01).all() and (angle_std > 0.003).all()


def test_a_pose_of_cameras_becomes_one_of_bodies():
    """A camera 1 m ahead of the body's axis; the body turns left by 90 degrees on the spot."""
    mount = Pose((1.0, 0.0, 0.0), OPTICAL_IN_BODY.quat_xyzw)
    # Camera ahead of the body at (1, 0) goes to (0, 1): 1 m left and 1 m back in its own axes.
    covariance = np.diag([0.01, 0.02, 0.03, 0.001, 0.002, 0.003])
    turn = Rotation.from_euler("y", -90.0, degrees=True).as_matrix()
    camera = PnpPose(turn, np.array([-1.0, 0.0, -1.0]), covariance, np.ones(40, bool), 0.5)
    body, moved = in_body_frame(camera, mount, mount)
    assert body.position_xyz == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert body.yaw_rad == pytest.approx(math.pi / 2)
    # Axes change names: the body's x is the camera's z, its yaw the camera's turn about y. The lever swings to (0, 1):
    # an error of yaw moves the body along x, one of pitch does not, one of roll along z.
    assert moved.diagonal() == pytest.approx([0.03 + 0.002, 0.01, 0.02 + 0.003, 0.003, 0.001, 0.002])
    assert np.linalg.eigvalsh(moved).min() > 0.0


def test_two_cameras_that_are_mounted_differently():
    """The place's camera is 1 m ahead, the query's 1 m behind and looks back: both cameras coincide."""
    ahead = Pose((1.0, 0.0, 0.0), OPTICAL_IN_BODY.quat_xyzw)
    back = Rotation.from_euler("z", 180.0, degrees=True) * Rotation.from_quat(OPTICAL_IN_BODY.quat_xyzw)
    behind = Pose((-1.0, 0.0, 0.0), tuple(back.as_quat().tolist()))
    same = PnpPose(np.eye(3), np.zeros(3), np.eye(6) * 1e-4, np.ones(40, bool), 0.5)
    body, _ = in_body_frame(same, ahead, behind)
    # The camera at (1, 0) looks along x; the query's body has it 1 m behind itself and looks the other way.
    assert body.position_xyz == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    assert abs(body.known_yaw_rad) == pytest.approx(math.pi)


def test_depth_images_of_both_encodings_and_what_is_unknown():
    millimetres = np.array([[1500, 0], [65535, 1]], np.uint16)
    assert depth_metres(millimetres).ravel() == pytest.approx([1.5, np.nan, 65.535, 0.001], nan_ok=True)
    metres = np.array([[2.0, np.nan, np.inf, -1.0, 0.0]], np.float32)
    assert depth_metres(metres).ravel() == pytest.approx([2.0] + [np.nan] * 4, nan_ok=True)
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4), np.float32)):
        with pytest.raises(CameraError, match="depth image"):
            depth_metres(bad)


def test_depth_is_taken_at_points_but_not_at_edges_or_gaps():
    depth = np.full((6, 8), 2.0, np.float32)
    depth[:, 5:] = 4.0
    depth[4, 1] = np.nan
    points = np.array([[2.0, 2.0], [4.0, 2.0], [1.0, 4.0], [2.0, 4.0], [6.9, 5.2], [-3.0, 0.0]])
    wanted = [2.0, np.nan, np.nan, 2.0, 4.0, np.nan]
    assert depth_at(depth, points, (8, 6)) == pytest.approx(wanted, nan_ok=True)
    # The image is twice as large: its pixels 4 and 5 lie in pixel 2 of the depth image.
    assert depth_at(depth, points[:1] * 2 + 0.5, (16, 12)) == pytest.approx([2.0])
    assert depth_at(depth, np.empty((0, 2)), (8, 6)).shape == (0,)
