"""Drifting odometry and the pose graph that mends it, worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("gtsam")
pytest.importorskip("evo")

from effovpr_ros.core.errors import ConfigError, SimulationError
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.odometry import DriftingOdometry, OdometryConfig
from effovpr_ros.lab.simulation.pose_graph import (
    ClosureFactor,
    GraphConfig,
    GraphKeyframe,
    OptimizedGraph,
    closure_covariance,
    optimize,
)
from effovpr_ros.lab.simulation.slam_score import trajectory_error

PERFECT = OdometryConfig(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
HERE = Pose.from_yaw(0.0, 0.0, 0.0)
ONE_PLACE = np.diag([2.5**2] * 3 + [0.17**2] * 3)


def report(config: OdometryConfig, poses: list[Pose]) -> list[Pose]:
    odometry = DriftingOdometry(config)
    return [odometry.advance(pose) for pose in poses]


def square_laps(laps: int) -> list[Pose]:
    """Laps round a square of 10 m, a pose a metre, turning at the corners."""
    corners = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)]
    poses = []
    for side in range(4 * laps):
        (x, y), yaw = corners[side % 4], math.pi / 2.0 * (side % 4)
        poses += [Pose.from_yaw(x + k * math.cos(yaw), y + k * math.sin(yaw), yaw) for k in range(10)]
    return poses


def test_odometry_without_errors_starts_at_its_origin():
    # A start elsewhere, turned by 90 degrees; then 2 m ahead, 1 m aside, and a turn on the spot.
    path = [(5.0, 1.0, math.pi / 2), (5.0, 3.0, math.pi / 2), (4.0, 3.0, math.pi / 2), (4.0, 3.0, -math.pi)]
    reported = report(PERFECT, [Pose.from_yaw(*pose) for pose in path])
    assert [pose.position_xyz[:2] for pose in reported] == [
        pytest.approx(xy, abs=1e-9) for xy in ((0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (2.0, 1.0))
    ]
    assert [pose.yaw_rad for pose in reported] == pytest.approx([0.0, 0.0, 0.0, math.pi / 2])


def test_systematic_errors_grow_with_the_way():
    ahead = [Pose.from_yaw(float(x), 0.0, 0.0) for x in range(11)]
    assert report(replace(PERFECT, scale_error=0.1), ahead)[-1].position_xyz == pytest.approx((11.0, 0.0, 0.0))
    curved = report(replace(PERFECT, yaw_bias_rad_per_m=0.02), ahead)
    assert curved[-1].yaw_rad == pytest.approx(0.2)
    # Chords of a circle of 50 m radius: the sum of the sines of 0.01, 0.03, ... 0.19 rad.
    assert curved[-1].position_xyz[1] == pytest.approx(sum(math.sin(0.02 * k + 0.01) for k in range(10)))
    turned = report(replace(PERFECT, turn_scale_error=0.1), [HERE, Pose.from_yaw(0.0, 0.0, 1.0)])
    assert turned[-1].yaw_rad == pytest.approx(1.1)


def test_random_errors_are_repeatable_and_of_the_size_asked_for():
    ahead = [HERE, Pose.from_yaw(4.0, 0.0, 0.0)]
    ends = [report(replace(PERFECT, distance_noise_m=0.1, seed=seed), ahead)[1].position_xyz[0] for seed in range(400)]
    # The square root of four metres is two.
    assert np.std(ends) == pytest.approx(0.2, rel=0.1)
    assert np.mean(ends) == pytest.approx(4.0, abs=0.03)
    assert report(OdometryConfig(seed=3), square_laps(1)) == report(OdometryConfig(seed=3), square_laps(1))


def test_a_closure_divides_the_error_by_the_variance_of_the_steps():
    # Ten metres ahead and ten back; the odometry read 11 and 9, so it ends 2 m from where it began.
    odometry = [GraphKeyframe(7, 1, HERE), GraphKeyframe(8, 2, Pose.from_yaw(11.0, 0.0, 0.0))]
    odometry.append(GraphKeyframe(9, 3, Pose.from_yaw(2.0, 0.0, 0.0)))
    closure = ClosureFactor(9, 7, HERE, np.eye(6) * 1e-8, 1.0, is_metric=True)
    config = GraphConfig(min_position_std_m=1e-6, max_metric_error=1e6)
    optimized = optimize(odometry, [closure], config)
    # Variances are as 11 to 9: of the 2 m, the first step takes 1.1 m.
    assert [pose.position_xyz[0] for pose in optimized.poses] == pytest.approx([0.0, 9.9, 0.0], abs=1e-3)
    assert optimized.accepted == (True,)


def test_without_closures_the_odometry_stands():
    odometry = [GraphKeyframe(n, n, pose) for n, pose in enumerate(report(OdometryConfig(), square_laps(1)))]
    optimized = optimize(odometry, [])
    assert optimized.weights == ()
    for pose, keyframe in zip(optimized.poses, odometry, strict=True):
        assert pose.position_xyz == pytest.approx(keyframe.odom_pose.position_xyz, abs=1e-6)


def drifted_laps() -> tuple[list[Pose], list[GraphKeyframe]]:
    truth = square_laps(2)
    reported = report(OdometryConfig(yaw_bias_rad_per_m=0.01), truth)
    return truth, [GraphKeyframe(n, n, pose) for n, pose in enumerate(reported)]


def test_the_second_lap_mends_the_first_and_wrong_closures_count_nothing():
    truth, keyframes = drifted_laps()
    right = [ClosureFactor(n + 40, n, HERE, ONE_PLACE, 0.97) for n in range(0, 40, 2)]
    # Opposite corners, and a corner with the middle of a side beyond the next one.
    wrong = [ClosureFactor(60, 0, HERE, ONE_PLACE, 0.99), ClosureFactor(50, 25, HERE, ONE_PLACE, 0.99)]
    optimized = optimize(keyframes, [*right, *wrong])
    assert optimized.accepted == (True,) * len(right) + (False,) * len(wrong)
    assert optimized.weights[-2:] == (0.0, 0.0)
    before = trajectory_error(truth, [keyframe.odom_pose for keyframe in keyframes])
    after = trajectory_error(truth, optimized.poses)
    assert before.aligned_m > 1.2
    assert after.aligned_m < before.aligned_m / 3.0
    # As good as without the wrong ones.
    alone = trajectory_error(truth, optimize(keyframes, right).poses)
    assert after.aligned_m == pytest.approx(alone.aligned_m, rel=0.02)


def test_the_limit_decides_what_is_wrong():
    _, keyframes = drifted_laps()
    right = [ClosureFactor(n + 40, n, HERE, ONE_PLACE, 1.0) for n in range(40)]
    # Keyframes 4 m apart on one side: 1.6 standard deviations of one place.
    near = ClosureFactor(45, 1, HERE, ONE_PLACE, 1.0)
    assert not optimize(keyframes, [*right, near], GraphConfig(max_prior_error=1.2)).accepted[-1]
    assert optimize(keyframes, [*right, near], GraphConfig(max_prior_error=2.4)).accepted[-1]


def test_a_metric_closure_may_err_by_what_was_measured():
    _, keyframes = drifted_laps()
    right = [ClosureFactor(n + 40, n, HERE, ONE_PLACE, 1.0) for n in range(40)]
    # Two poses 5 m apart, said to be 2 m apart with 1 m of standard deviation: three of them.
    ahead, tight = Pose.from_yaw(2.0, 0.0, 0.0), np.diag([1.0] * 6)
    measured = ClosureFactor(45, 0, ahead, tight, 1.0, is_metric=True)
    assert optimize(keyframes, [*right, measured]).accepted[-1]
    assert not optimize(keyframes, [*right, measured], GraphConfig(max_metric_error=2.0)).accepted[-1]
    assert not optimize(keyframes, [*right, replace(measured, is_metric=False)]).accepted[-1]


def test_the_covariance_is_in_gtsams_order_and_wider_for_the_unsure():
    covariance = closure_covariance(ClosureFactor(1, 0, HERE, np.diag([1.0, 2, 3, 4, 5, 6]), 0.5))
    assert np.diag(covariance).tolist() == [8.0, 10.0, 12.0, 2.0, 4.0, 6.0]


def test_a_weight_of_one_half_accepts():
    assert OptimizedGraph((HERE,), (0.0, 0.49, 0.5, 1.0)).accepted == (False, False, True, True)


@pytest.mark.parametrize(
    ("closure", "said"),
    [
        (ClosureFactor(5, 0, HERE, ONE_PLACE, 0.9), "names keyframe 5, which is not among the 2"),
        (ClosureFactor(1, 0, HERE, ONE_PLACE, 0.0), r"closure 0-1 has the confidence 0\.0"),
        (ClosureFactor(1, 0, HERE, np.zeros((6, 6)), 0.9), "closure 0-1 has a covariance that is not positive"),
    ],
)
def test_impossible_closures_are_refused(closure: ClosureFactor, said: str):
    keyframes = [GraphKeyframe(0, 0, HERE), GraphKeyframe(1, 1, Pose.from_yaw(1.0, 0.0, 0.0))]
    with pytest.raises(SimulationError, match=said):
        optimize(keyframes, [closure])


def test_impossible_graphs_are_refused():
    with pytest.raises(SimulationError, match="two keyframes or more, each of its own id; got 1"):
        optimize([GraphKeyframe(0, 0, HERE)], [])
    with pytest.raises(SimulationError, match="each of its own id; got 2"):
        optimize([GraphKeyframe(0, 0, HERE), GraphKeyframe(0, 1, HERE)], [])
    with pytest.raises(ConfigError, match="max_prior_error nan is not positive"):
        GraphConfig(max_prior_error=math.nan)


def test_the_factor_of_the_readme_is_the_one_used_here():
    gtsam = pytest.importorskip("gtsam")
    blocks = (Path(__file__).parents[2] / "docs/tutorials/gtsam.md").read_text(encoding="utf-8").split("```python\n")
    (code,) = (block.split("```")[0] for block in blocks if "t_match_query" in block)
    position, orientation = SimpleNamespace(x=1.0, y=2.0, z=0.0), SimpleNamespace(x=0.0, y=0.0, z=0.6, w=0.8)
    pose = SimpleNamespace(position=position, orientation=orientation)
    covariance = np.diag([1.0, 2, 3, 4, 5, 6])
    relative = SimpleNamespace(pose=pose, covariance=covariance.ravel())
    message = SimpleNamespace(relative_pose=relative, confidence=0.5, match_id=3, query_id=8)
    names = {"np": np, "gtsam": gtsam, "closure": message, "graph": gtsam.NonlinearFactorGraph()}
    exec(code, names)
    factor = names["graph"].at(0)
    assert list(factor.keys()) == [3, 8]
    assert factor.measured().translation().tolist() == [1.0, 2.0, 0.0]
    assert factor.measured().rotation().yaw() == pytest.approx(2.0 * math.asin(0.6))
    here = ClosureFactor(8, 3, Pose((1.0, 2.0, 0.0), (0.0, 0.0, 0.6, 0.8)), covariance, 0.5)
    assert np.allclose(names["noise"].covariance(), closure_covariance(here))
