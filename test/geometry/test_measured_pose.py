"""Metric poses against a rig: known cameras and projected points, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import PoseMeasurement, PoseOutcome, measure_pose
from effovpr_ros.geometry.pose_config import PoseConfig
from effovpr_ros.geometry.query_rays import QueryPicture, QueryRays
from effovpr_ros.geometry.rig import Rig, RigView, cross_matrix

Array = NDArray[np.float64]
CAMERA = CameraModel((640, 480), (400.0, 410.0), (319.5, 239.5))
OPTICAL = Rotation.from_matrix([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
MOUNTING = Pose((0.3, 0.1, 0.5), tuple(OPTICAL.as_quat().tolist()))
IDENTITY = Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
CONFIG = PoseConfig()


def camera_pose(body: Pose) -> tuple[Rotation, Array]:
    turn = Rotation.from_quat(body.quat_xyzw)
    return turn * OPTICAL, np.array(body.position_xyz) + turn.apply(MOUNTING.position_xyz)


def as_pose(turn: Rotation, centre: Array) -> Pose:
    x, y, z = centre.tolist()
    qx, qy, qz, qw = turn.as_quat().tolist()
    return Pose((x, y, z), (qx, qy, qz, qw))


def project(points: Array, body: Pose) -> tuple[Array, NDArray[np.bool_]]:
    turn, centre = camera_pose(body)
    local = turn.inv().apply(points - centre)
    pixels = local[:, :2] / local[:, 2:] * CAMERA.focal_xy_px + CAMERA.centre_xy_px
    inside = (local[:, 2] > 0.2) & (pixels >= 0.0).all(axis=1) & (pixels <= (639.0, 479.0)).all(axis=1)
    return pixels, inside


@dataclass
class Scene:
    """Points ahead of cameras that look along x, seen with noise."""

    points: Array
    noise_px: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def seen(self, body: Pose) -> tuple[Array, NDArray[np.bool_]]:
        pixels, inside = project(self.points, body)
        return pixels + self.random.normal(0.0, self.noise_px, pixels.shape), inside

    def measure(
        self, query: Pose, places: Sequence[Pose], config: PoseConfig = CONFIG, *, wrong: float = 0.0
    ) -> PoseMeasurement:
        query_xy, seen = self.seen(query)
        views = []
        for place in places:
            pixels, inside = self.seen(place)
            shared = np.flatnonzero(seen & inside)
            points = pixels[shared]
            bad = self.random.uniform(size=len(shared)) < wrong
            points[bad] = self.random.uniform((0.0, 0.0), (639.0, 479.0), (int(bad.sum()), 2))
            views.append(RigView(as_pose(*camera_pose(place)), CAMERA, shared, points))
        return measure_pose([QueryPicture(query_xy, CAMERA, MOUNTING)], views, config)


def room(count: int = 400, seed: int = 0) -> Array:
    """Walls and floor of a corridor 6 m wide, along x."""
    random = np.random.default_rng(seed)
    points = random.uniform((2.0, -3.0, -0.5), (14.0, 3.0, 2.5), (count, 3))
    points[::3, 1] = np.where(points[::3, 1] > 0.0, 3.0, -3.0)
    points[1::3, 2] = -0.5
    return points


PLACES = tuple(Pose.from_yaw(x, y, math.radians(yaw)) for x, y, yaw in ((0, 0, 0), (0.5, 0.1, 5), (1.0, -0.2, -4)))
QUERY = Pose.from_yaw(0.4, 0.5, math.radians(8.0), z=0.05)


def error_of(measured: PoseMeasurement, query: Pose) -> Array:
    assert measured.pose is not None
    turn = Rotation.from_quat(measured.pose.quat_xyzw) * Rotation.from_quat(query.quat_xyzw).inv()
    return np.hstack([np.subtract(measured.pose.position_xyz, query.position_xyz), turn.as_rotvec()])


def test_without_noise_the_body_is_where_it_was():
    measured = Scene(room(), noise_px=0.0).measure(QUERY, PLACES)
    assert measured.outcome is PoseOutcome.MEASURED
    assert error_of(measured, QUERY) == pytest.approx(np.zeros(6), abs=1e-4)
    assert measured.num_views == 3


def test_half_of_the_matches_may_be_wrong():
    measured = Scene(room()).measure(QUERY, PLACES, wrong=0.4)
    assert measured.is_measured
    assert np.linalg.norm(error_of(measured, QUERY)[:3]) < 0.05


def test_a_query_on_the_line_of_the_places_is_measured_by_what_two_of_them_see():
    """Epipolar geometry alone cannot: every direction to the query is the same."""
    places = [Pose.from_yaw(x, 0.0, 0.0) for x in (0.0, 0.5, 1.0, 1.5)]
    query = Pose.from_yaw(0.75, 0.0, 0.0)
    measured = Scene(room()).measure(query, places)
    assert measured.is_measured
    assert np.linalg.norm(error_of(measured, query)[:3]) < 0.05


def test_errors_are_as_large_as_foretold():
    """Monte Carlo: within the 99% ellipsoid nearly always, and the ellipsoid not much larger than the errors."""
    distances, errors, foretold = [], [], []
    random = np.random.default_rng(5)
    for trial in range(40):
        offsets = random.normal(0.0, CONFIG.map_position_std_m, (3, 3))
        query = Pose.from_yaw(*random.uniform(-0.5, 0.8, 2).tolist(), float(random.normal(0.0, 0.1)))
        places = [
            Pose((*np.add(place.position_xyz, offset).tolist(),), place.quat_xyzw)  # type: ignore[arg-type]
            for place, offset in zip(PLACES, offsets, strict=True)
        ]
        scene = Scene(room(seed=trial), seed=trial)
        query_xy, seen = scene.seen(query)
        views = []
        for stated, real in zip(PLACES, places, strict=True):
            pixels, inside = scene.seen(real)
            shared = np.flatnonzero(seen & inside)
            views.append(RigView(as_pose(*camera_pose(stated)), CAMERA, shared, pixels[shared]))
        measured = measure_pose([QueryPicture(query_xy, CAMERA, MOUNTING)], views, CONFIG)
        assert measured.is_measured, measured.reason
        assert measured.covariance is not None
        error = error_of(measured, query)
        distances.append(float(error @ np.linalg.solve(measured.covariance, error)))
        errors.append(float(np.linalg.norm(error[:3])))
        foretold.append(math.sqrt(np.trace(measured.covariance[:3, :3])))
    # The 99% quantile of chi-squared with six degrees of freedom.
    assert np.mean(np.array(distances) <= 16.81) >= 0.97
    assert np.median(foretold) <= 3.0 * np.median(errors)


def test_places_of_one_spot_tell_no_scale():
    places = [Pose.from_yaw(0.0, 0.0, yaw) for yaw in (-0.1, 0.0, 0.1)]
    measured = Scene(room()).measure(QUERY, places)
    assert measured.outcome is PoseOutcome.SHORT_BASELINE
    assert (measured.pose, measured.covariance) == (None, None)


def test_a_baseline_that_is_short_against_the_scene_is_refused():
    """Places 10 cm apart, walls at 60 m and more, map positions known to 1 cm: the scale is worth a tenth at best."""
    points = room() * np.array([1.0, 8.0, 8.0]) + np.array([60.0, 0.0, 0.0])
    places = [Pose.from_yaw(0.0, y, 0.0) for y in (0.0, 0.05, 0.1)]
    measured = Scene(points).measure(Pose.from_yaw(0.0, 3.0, 0.0), places)
    assert measured.outcome in (PoseOutcome.SCALE_UNKNOWN, PoseOutcome.TOO_FEW_POINTS)


def test_pure_rotation_against_one_place_is_no_measurement_and_against_several_is_one():
    turned = Pose.from_yaw(0.0, 0.0, 0.2)
    assert Scene(room()).measure(turned, PLACES[:1]).outcome is PoseOutcome.SHORT_BASELINE
    measured = Scene(room()).measure(turned, PLACES)
    assert measured.is_measured
    assert np.linalg.norm(error_of(measured, turned)[:3]) < 0.05


def test_one_plane_gives_the_right_pose_or_none():
    for seed in range(8):
        points = np.random.default_rng(seed).uniform((6.0, -4.0, -1.5), (6.0, 4.0, 3.0), (300, 3))
        measured = Scene(points, seed=seed).measure(QUERY, PLACES)
        assert not measured.is_measured or np.linalg.norm(error_of(measured, QUERY)[:3]) < 0.3, measured.reason


def test_structure_that_repeats_is_told():
    """Half of the matches are those of the same columns one further, as of a colonnade."""
    scene = Scene(room(600))
    shifted = Scene(room(600) + np.array([0.0, 1.5, 0.0]))
    query_xy, seen = scene.seen(QUERY)
    views = []
    places = [Pose.from_yaw(x, y, 0.0) for x, y in ((0.0, 0.0), (0.3, 0.9), (0.6, -0.9), (0.9, 0.4))]
    for place in places:
        one, inside = scene.seen(place)
        other, also_inside = shifted.seen(place)
        first = np.arange(600) % 20 < 10
        shared = np.flatnonzero(seen & inside & also_inside)
        pixels = np.where(first[:, None], one, other)[shared]
        views.append(RigView(as_pose(*camera_pose(place)), CAMERA, shared, pixels))
    measured = measure_pose([QueryPicture(query_xy, CAMERA, MOUNTING)], views, CONFIG)
    assert measured.outcome in (PoseOutcome.TWO_POSES, PoseOutcome.TOO_FEW_POINTS), measured.reason


def test_poses_of_the_map_that_contradict_the_pictures_are_told():
    """One of the places is a metre from where the map says."""
    scene = Scene(room())
    query_xy, seen = scene.seen(QUERY)
    views = []
    for number, place in enumerate(PLACES):
        pixels, inside = scene.seen(place)
        shared = np.flatnonzero(seen & inside)
        said = Pose.from_yaw(*np.add(place.position_xyz[:2], (0.0, 1.0 if number else 0.0)).tolist(), place.yaw_rad)
        views.append(RigView(as_pose(*camera_pose(said)), CAMERA, shared, pixels[shared]))
    measured = measure_pose([QueryPicture(query_xy, CAMERA, MOUNTING)], views, CONFIG)
    assert not measured.is_measured
    assert measured.outcome in (PoseOutcome.CONTRADICTION, PoseOutcome.TOO_FEW_POINTS, PoseOutcome.TWO_POSES)


def test_few_points_and_small_pictures_are_refused():
    assert Scene(room(20)).measure(QUERY, PLACES).outcome is PoseOutcome.TOO_FEW_POINTS
    noise = Scene(room()).measure(QUERY, PLACES, wrong=1.0)
    assert not noise.is_measured
    small = CAMERA.scaled((160, 120))
    assert (
        measure_pose([QueryPicture(np.empty((0, 2)), small, MOUNTING)], [], CONFIG).outcome is PoseOutcome.SMALL_PICTURE
    )
    assert (
        measure_pose([QueryPicture(np.empty((0, 2)), CAMERA, MOUNTING)], [], CONFIG).outcome
        is PoseOutcome.TOO_FEW_POINTS
    )


def test_several_cameras_of_a_body_are_one_query():
    """One looks ahead and one back, each sees its own points; both together tell more than either."""
    back_turn = Rotation.from_euler("z", 180.0, degrees=True) * OPTICAL
    back = as_pose(back_turn, np.array([-0.4, 0.2, 0.6]))
    ahead_scene, points_behind = Scene(room()), room(seed=9) * [-1.0, 1.0, 1.0]
    random = np.random.default_rng(3)

    def seen_behind(body: Pose) -> tuple[Array, NDArray[np.bool_]]:
        turn = Rotation.from_quat(body.quat_xyzw)
        local = (turn * back_turn).inv().apply(points_behind - body.position_xyz - turn.apply(back.position_xyz))
        pixels = local[:, :2] / local[:, 2:] * CAMERA.focal_xy_px + CAMERA.centre_xy_px
        inside = (local[:, 2] > 0.2) & (pixels >= 0.0).all(axis=1) & (pixels <= (639.0, 479.0)).all(axis=1)
        return pixels + random.normal(0.0, 0.5, pixels.shape), inside

    ahead_xy, ahead_seen = ahead_scene.seen(QUERY)
    behind_xy, behind_seen = seen_behind(QUERY)
    views = []
    for place in PLACES:
        pixels, inside = ahead_scene.seen(place)
        shared = np.flatnonzero(ahead_seen & inside)
        views.append(RigView(as_pose(*camera_pose(place)), CAMERA, shared, pixels[shared]))
        pixels, inside = seen_behind(place)
        shared = np.flatnonzero(behind_seen & inside)
        turn = Rotation.from_quat(place.quat_xyzw)
        camera = as_pose(turn * back_turn, np.array(place.position_xyz) + turn.apply(back.position_xyz))
        views.append(RigView(camera, CAMERA, shared, pixels[shared], picture=1))
    pictures = [QueryPicture(ahead_xy, CAMERA, MOUNTING), QueryPicture(behind_xy, CAMERA, back)]
    both = measure_pose(pictures, views, CONFIG)
    assert both.is_measured, both.reason
    assert both.num_views == 6
    assert both.covariance is not None
    error = error_of(both, QUERY)
    assert np.linalg.norm(error[:3]) < 0.03
    assert float(error @ np.linalg.solve(both.covariance, error)) < 16.81
    # The picture behind alone is measured too, and an unmatched one does no harm.
    behind = measure_pose(pictures, views[1::2], CONFIG)
    assert behind.is_measured, behind.reason
    assert np.linalg.norm(error_of(behind, QUERY)[:3]) < 0.05


def test_the_lever_of_a_camera_by_hand():
    """A camera 1 m ahead of the body; the body looks along y, so that the camera is 1 m further along y."""
    camera = CameraModel((640, 480), (400.0, 400.0), (320.0, 240.0))
    query = QueryRays.from_pictures(
        [QueryPicture(np.array([[320.0, 240.0]]), camera, Pose((1.0, 0.0, 0.0), OPTICAL.as_quat()))]
    )
    turn = Rotation.from_euler("z", 90.0, degrees=True).as_matrix()
    assert query.levers_m(turn) == pytest.approx(np.array([[0.0, 1.0, 0.0]]))
    assert query.directions(query.rays, turn) == pytest.approx(np.array([[0.0, 1.0, 0.0]]))


def test_rays_of_a_rig_by_hand():
    """Two cameras 1 m apart across, a point 4 m ahead of the first: rays meet there."""
    camera = CameraModel((640, 480), (400.0, 400.0), (320.0, 240.0))
    views = [
        RigView(IDENTITY, camera, np.array([0]), np.array([[320.0, 240.0]])),
        RigView(Pose((1.0, 0.0, 0.0), IDENTITY.quat_xyzw), camera, np.array([0]), np.array([[220.0, 240.0]])),
    ]
    alone = QueryPicture(np.array([[320.0, 240.0]]), camera, IDENTITY)
    rig = Rig.from_views(views, QueryRays.from_pictures([alone]), 0.01, 0.002)
    assert rig.pose_std.tolist() == [[0.01] * 3 + [0.002] * 3] * 2
    assert rig.baseline_m == pytest.approx(1.0)
    numbers, points = rig.triangulated(1, 1.0)
    assert numbers.tolist() == [0]
    assert points[0] == pytest.approx([0.0, 0.0, 4.0])
    # Seen from 0.5 m along x, the point is at -0.125; one pixel up is one pixel off both epipolar lines' rows.
    query = QueryRays.from_pictures([QueryPicture(np.array([[270.0, 240.0]]), camera, IDENTITY)])
    assert rig.sampson_px(query, np.eye(3), np.array([0.5, 0.0, 0.0])) == pytest.approx([0.0, 0.0], abs=1e-9)
    query = QueryRays.from_pictures([QueryPicture(np.array([[270.0, 241.0]]), camera, IDENTITY)])
    assert rig.sampson_px(query, np.eye(3), np.array([0.5, 0.0, 0.0])) == pytest.approx([2**-0.5] * 2, rel=1e-3)
    assert cross_matrix(np.array([1.0, 0.0, 0.0])) @ np.array([0.0, 1.0, 0.0]) == pytest.approx([0.0, 0.0, 1.0])


def test_impossible_limits_are_refused():
    with pytest.raises(ConfigError, match="pose_max_std_m"):
        PoseConfig(pose_max_std_m=math.nan)
