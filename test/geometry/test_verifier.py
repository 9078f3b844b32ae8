"""Geometric verification: points projected by hand, degenerate input, and real pairs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from synthetic import picture

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import CameraError, ConfigError
from effovpr_ros.core.images import RgbImage, read_image
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.depth import depth_at, depth_metres
from effovpr_ros.geometry.pnp import solve_pnp
from effovpr_ros.geometry.points import KINDS, PointExtractor
from effovpr_ros.geometry.two_view import two_view_geometry, yaw_left_rad
from effovpr_ros.geometry.verification_config import VerificationConfig
from effovpr_ros.geometry.verified_matches import VerifiedMatches, verify
from effovpr_ros.geometry.verifier import GeometricVerifier, Method, Verification, View, in_body_frame

FOCAL_PX = 300.0
# The query stands 0.3 m right of the place, 0.1 m lower and 0.2 m ahead, and looks 10 degrees to its left.
ROTATION = Rotation.from_euler("y", -10.0, degrees=True).as_matrix()
TRANSLATION_M = np.array([0.3, 0.1, 0.2])
OPTICAL_IN_BODY = Pose((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))


def scene(count: int, seed: int = 1, plane: bool = False) -> NDArray[np.float64]:
    """(count, 3) points in front of the query's camera."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-2.0, -1.5, 3.0), (2.0, 1.5, 8.0), (count, 3))
    if plane:
        points[:, 2] = 4.0 + 0.3 * points[:, 0]
    return points


def rays_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[:, :2] / points[:, 2:]


def seen_by_the_place(points: NDArray[np.float64], translation: NDArray[np.float64] = TRANSLATION_M):
    return rays_of(points @ ROTATION.T + translation)


def noisy(rays: NDArray[np.float64], std_px: float = 0.3, seed: int = 2) -> NDArray[np.float64]:
    return rays + np.random.default_rng(seed).normal(0.0, std_px / FOCAL_PX, rays.shape)


def test_one_motion_is_found_among_a_third_of_wrong_points():
    points = scene(120)
    query, place = rays_of(points), noisy(seen_by_the_place(points))
    place[:40] = np.random.default_rng(3).uniform(-0.5, 0.5, (40, 2))
    geometry = two_view_geometry(query, place, FOCAL_PX, 1.5)
    assert geometry is not None and not geometry.is_homography
    assert geometry.inliers[40:].mean() > 0.95 and geometry.inliers[:40].mean() < 0.3
    assert math.degrees(yaw_left_rad(geometry.rotation_place_query)) == pytest.approx(10.0, abs=0.5)
    direction = TRANSLATION_M / np.linalg.norm(TRANSLATION_M)
    assert geometry.direction_place_query @ direction > math.cos(math.radians(6.0))


def test_a_turn_is_a_homography_with_its_yaw_and_a_plane_one_without():
    points = scene(60)
    turned = two_view_geometry(rays_of(points), noisy(seen_by_the_place(points, np.zeros(3))), FOCAL_PX, 1.5)
    assert turned is not None and turned.is_homography and turned.inliers.mean() > 0.9
    assert math.degrees(yaw_left_rad(turned.rotation_place_query)) == pytest.approx(10.0, abs=0.5)
    plane = scene(60, plane=True)
    seen = two_view_geometry(rays_of(plane), noisy(seen_by_the_place(plane)), FOCAL_PX, 1.5)
    assert seen is not None and seen.is_homography and seen.inliers.mean() > 0.9
    assert seen.rotation_place_query is None and seen.direction_place_query is None


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_points_fit_nothing(count: int):
    points = scene(count)
    assert two_view_geometry(rays_of(points), seen_by_the_place(points), FOCAL_PX, 1.5) is None
    assert solve_pnp(points, seen_by_the_place(points), FOCAL_PX, 1.5) is None


def test_points_that_coincide_or_lie_on_a_line_give_no_pose():
    along = np.linspace(-1.0, 1.0, 40)[:, None]
    line = along * [1.0, 0.2, 0.5] + [0.0, 0.0, 5.0]
    same = np.repeat([[0.1, 0.2, 4.0]], 40, axis=0)
    for points in (line, same):
        assert solve_pnp(points, seen_by_the_place(points), FOCAL_PX, 1.5) is None
        geometry = two_view_geometry(rays_of(points), seen_by_the_place(points), FOCAL_PX, 1.5)
        # Points of a line fit many motions: none of them may be told as the one.
        assert geometry is None or geometry.rotation_place_query is None


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
    camera = Pose((-1.0, 0.0, -1.0), tuple(Rotation.from_euler("y", -90.0, degrees=True).as_quat()))
    covariance = np.diag([0.01, 0.02, 0.03, 0.001, 0.002, 0.003])
    measured = Verification(Method.PNP, True, 50, 40, "", relative_pose=camera, covariance=covariance)
    body = in_body_frame(measured, mount)
    assert body.relative_pose.position_xyz == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert body.relative_pose.yaw_rad == pytest.approx(math.pi / 2)
    # Axes change names: the body's x is the camera's z, its yaw the camera's turn about y. The lever swings to (0, 1):
    # an error of yaw moves the body along x, one of pitch does not, one of roll along z.
    assert body.covariance.diagonal() == pytest.approx([0.03 + 0.002, 0.01, 0.02 + 0.003, 0.003, 0.001, 0.002])
    assert np.linalg.eigvalsh(body.covariance).min() > 0.0
    refused = Verification(Method.PNP, False, 50, 4, "")
    assert in_body_frame(refused, mount) is refused


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


def textured(seed: int, width: int = 320, height: int = 240) -> RgbImage:
    """A picture with corners everywhere."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def matches_of(query: RgbImage, place: RgbImage, kind: str) -> VerifiedMatches:
    extractor = PointExtractor(kind=kind)
    return verify(extractor.extract(query), [extractor.extract(place)], num_fundamental=0)[0]


def size_of(image: RgbImage) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_without_texture_give_no_points(kind: str):
    blank = np.full((240, 320, 3), 90, np.uint8)
    config = VerificationConfig(verification="two_view")
    camera = CameraModel.from_field_of_view((320, 240), 1.2)
    for image in (blank, blank[:20, :20]):
        view = View(size_of(image), camera)
        answer = GeometricVerifier(config).verify(view, view, matches_of(image, image, kind))
        assert not answer.accepted and answer.num_points == 0 and answer.num_inliers == 0


def rendered(x_m: float, yaw_left: float, camera: CameraModel) -> tuple[RgbImage, NDArray[np.float32]]:
    """View and depth of two walls, 3 m and 5 m ahead of the origin, from a spot x_m to the right."""
    turn = Rotation.from_euler("y", -yaw_left).as_matrix()
    width, height = camera.image_size_wh
    image, depth = np.zeros((height, width, 3), np.uint8), np.full((height, width), np.nan, np.float32)
    # The far wall first; the near one covers its right half.
    for wall_m, left_m, seed in ((5.0, -5.0, 7), (3.0, 0.2, 8)):
        texture = textured(seed, 640, 480)
        per_m = 640 / 10.0
        # Wall to pixel: a point of the wall (u, v) lies at ((u - 320) / per_m, (v - 240) / per_m, wall_m).
        to_world = np.array([[1 / per_m, 0.0, -5.0], [0.0, 1 / per_m, -240 / per_m], [0.0, 0.0, wall_m]])
        to_pixel = camera.matrix @ turn.T @ (to_world - np.array([[0, 0, x_m], [0, 0, 0], [0, 0, 0]]))
        view = cv2.warpPerspective(texture, to_pixel, (width, height))
        mask_texture = np.zeros((480, 640), np.uint8)
        mask_texture[:, round((left_m + 5.0) * per_m) :] = 255
        mask = cv2.warpPerspective(mask_texture, to_pixel, (width, height), flags=cv2.INTER_NEAREST) > 0
        column, row = np.meshgrid(np.arange(width), np.arange(height))
        ray = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(camera.matrix).T
        z = wall_m / (ray @ turn.T)[..., 2]
        image[mask], depth[mask] = view[mask], z[mask]
    return image, depth


@pytest.mark.parametrize("kind", KINDS)
def test_a_rendered_pair_is_measured_in_metres(kind: str):
    """The query stands 0.25 m right of the place and looks 5 degrees to its left."""
    camera = CameraModel.from_field_of_view((320, 240), math.radians(70.0))
    yaw = math.radians(5.0)
    place, _ = rendered(0.0, 0.0, camera)
    query, depth = rendered(0.25, yaw, camera)
    config, size_wh, matches = VerificationConfig(verification="metric"), size_of(query), matches_of(query, place, kind)
    stored = View(size_of(place), camera)
    answer = GeometricVerifier(config).verify(View(size_wh, camera, depth), stored, matches)
    assert answer.method is Method.PNP and answer.accepted, answer.reason
    body = in_body_frame(answer, OPTICAL_IN_BODY)
    assert body.relative_pose.position_xyz == pytest.approx((0.0, -0.25, 0.0), abs=0.04)
    assert body.relative_pose.yaw_rad == pytest.approx(yaw, abs=0.01)
    assert answer.yaw_rad == pytest.approx(yaw, abs=0.01)
    without = GeometricVerifier(config).verify(View(size_wh, camera), stored, matches)
    assert without.accepted and without.relative_pose is None and without.reason.startswith("no depth")
    assert without.method in (Method.ESSENTIAL, Method.HOMOGRAPHY)
    unknown = View(size_wh, camera, np.full_like(depth, np.nan))
    nothing_known = GeometricVerifier(config).verify(unknown, stored, matches)
    assert nothing_known.method is not Method.PNP and nothing_known.accepted


def test_what_was_not_asked_for_or_has_no_camera_is_not_refused():
    camera = CameraModel.from_field_of_view((96, 72), 1.2)
    view, blind, matches = View((96, 72), camera), View((96, 72)), matches_of(picture(1), picture(1), "sift")
    off = GeometricVerifier(VerificationConfig()).verify(view, view, matches)
    unknown = GeometricVerifier(VerificationConfig(verification="two_view")).verify(blind, view, matches)
    for answer in (off, unknown):
        assert answer.method is Method.NOT_VERIFIED and answer.accepted and answer.num_points == 0
    assert "camera_info" in unknown.reason


@pytest.mark.parametrize("bad", [{"verification": "pnp"}, {"min_inliers": -1}, {"max_depth_m": float("nan")}])
def test_impossible_settings_are_refused(bad: dict[str, float | str]):
    with pytest.raises(ConfigError, match=str(next(iter(bad.values())))):
        VerificationConfig(**bad)


def test_methods_have_the_numbers_of_the_message():
    text = (Path(__file__).parents[2] / "msg" / "LoopClosure.msg").read_text(encoding="utf-8")
    for method in Method:
        assert f"uint8 {method.name}={method.value} " in text


@pytest.mark.parametrize("kind", KINDS)
def test_real_pairs_of_one_place_are_accepted_and_of_two_places_refused(real_images: Path, kind: str):
    folder = real_images / "rtabmap_loop"
    with (folder / "loops.csv").open(encoding="utf-8") as file:
        loops = [(row["image"], row["closes_loop_with"]) for row in csv.DictReader(file)]
    # One pair for every fourth frame that closes a loop: with the middle one of the frames it closes a loop with.
    earlier = {query: [place for frame, place in loops if frame == query] for query, _ in loops}
    pairs = [(query, places[len(places) // 2]) for query, places in earlier.items()][::4]
    verifier, extractor = GeometricVerifier(VerificationConfig(verification="two_view")), PointExtractor(kind=kind)

    def accepted(query: str, place: str) -> bool:
        images = read_image(folder / "images" / query), read_image(folder / "images" / place)
        camera = CameraModel.from_field_of_view(images[0].shape[1::-1], math.radians(60.0))
        # As the map keeps them: points of the original picture.
        query_points, place_points = map(extractor.extract, images)
        (matches,) = verify(query_points, [place_points], num_fundamental=0)
        return verifier.verify(View(size_of(images[0]), camera), View(size_of(images[1]), camera), matches).accepted

    same = [accepted(query, place) for query, place in pairs]
    half = len(pairs) // 2
    other = [accepted(query, pairs[(number + half) % len(pairs)][1]) for number, (query, _) in enumerate(pairs)]
    assert sum(same) >= 0.6 * len(same) and len(same) >= 7
    assert not any(other)
