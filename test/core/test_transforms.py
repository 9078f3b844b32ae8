"""Poses put together, and the tree of frames: what is told late, twice, in loops or anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from effovpr_ros.core.errors import TransformError
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import (
    TransformTree,
    compose,
    interpolate,
    inverse,
    quat_of_vector,
    rotation_vector,
)

S = 10**9
QUARTER = math.pi / 2.0


def near(pose: Pose, x: float, y: float, yaw: float) -> None:
    assert pose.position_xyz[:2] == pytest.approx((x, y), abs=1e-9)
    assert math.remainder(pose.known_yaw_rad - yaw, math.tau) == pytest.approx(0.0, abs=1e-9)


def test_poses_are_put_together_from_the_left():
    # One metre ahead, turned left; from there two metres ahead is two metres to the left.
    near(compose(Pose.from_yaw(1.0, 0.0, QUARTER), Pose.from_yaw(2.0, 0.0, QUARTER)), 1.0, 2.0, math.pi)
    near(inverse(Pose.from_yaw(1.0, 0.0, QUARTER)), 0.0, 1.0, -QUARTER)


def test_rotations_are_those_of_scipy():
    generator = np.random.default_rng(1)
    for a, b in zip(Rotation.random(20, random_state=1), Rotation.random(20, random_state=2), strict=True):
        p, q = (tuple(generator.normal(size=3).tolist()) for _ in range(2))
        first, second = Pose(p, tuple(a.as_quat())), Pose(q, tuple(b.as_quat()))
        both = compose(first, second)
        assert both.known_xyz == pytest.approx(tuple(np.array(p) + a.apply(q)))
        assert (Rotation.from_quat(both.known_quat_xyzw).inv() * a * b).magnitude() < 1e-6
        assert rotation_vector(tuple(a.as_quat())) == pytest.approx(tuple(a.as_rotvec()))
        assert (Rotation.from_quat(quat_of_vector(tuple(b.as_rotvec()))).inv() * b).magnitude() < 1e-6
        between = Slerp([0.0, 1.0], Rotation.concatenate([a, b]))(0.3)
        assert (Rotation.from_quat(interpolate(first, second, 0.3).known_quat_xyzw).inv() * between).magnitude() < 1e-6


def robot() -> TransformTree:
    tree = TransformTree()
    for second in range(3):
        tree.add("odom", "base_footprint", second * S, Pose.from_yaw(float(second), 0.0, 0.0))
    tree.add("base_footprint", "base_link", 0, Pose((0.0, 0.0, 0.2), (0.0, 0.0, 0.0, 1.0)), is_static=True)
    tree.add("base_link", "camera", 0, Pose.from_yaw(0.1, 0.0, QUARTER), is_static=True)
    return tree


def test_a_chain_is_followed_both_ways_and_between_two_times():
    tree = robot()
    pose = tree.lookup("odom", "camera", 3 * S // 2)
    assert pose.known_xyz == pytest.approx((1.6, 0.0, 0.2))
    assert pose.known_yaw_rad == pytest.approx(QUARTER)
    near(compose(tree.lookup("camera", "odom", S), tree.lookup("odom", "camera", S)), 0.0, 0.0, 0.0)
    assert tree.lookup("/odom", "base_link", S).known_xyz == pytest.approx((1.0, 0.0, 0.2))
    assert tree.latest_ns("odom", "camera") == 2 * S
    assert tree.latest_ns("base_link", "camera") is None


@pytest.mark.parametrize(
    ("frames", "stamp_ns", "said"),
    [
        (("map", "base_link"), S, "no transform joins map and base_link; known are .*odom -> base_footprint"),
        (("odom", "base_link"), 3 * S, "known from 0.000 to 2.000 s, not at 3.000 s, 1.000 s after"),
        (("odom", "base_link"), -S, "1.000 s before"),
    ],
)
def test_what_is_not_known_is_said(frames: tuple[str, str], stamp_ns: int, said: str):
    with pytest.raises(TransformError, match=said):
        robot().lookup(*frames, stamp_ns)


def test_a_loop_is_left_out_and_named():
    tree = robot()
    with pytest.raises(TransformError, match=r"camera -> odom would close a loop \(odom -> camera -> base_link"):
        tree.add("camera", "odom", S, Pose.from_yaw(0.0, 0.0, 0.0))
    with pytest.raises(TransformError, match="close a loop"):
        tree.add("odom", "odom", S, Pose.from_yaw(0.0, 0.0, 0.0))
    with pytest.raises(TransformError, match="two names"):
        tree.add("", "odom", S, Pose.from_yaw(0.0, 0.0, 0.0))
    assert tree.lookup("odom", "camera", S).known_xyz == pytest.approx((1.1, 0.0, 0.2))


def test_a_transform_that_changes_counts_from_then_on():
    tree = robot()
    tree.add("base_link", "camera", 0, Pose.from_yaw(0.1, 0.0, QUARTER), is_static=True)
    assert tree.moved == 0
    tree.add("base_link", "camera", 0, Pose.from_yaw(0.5, 0.0, 0.0), is_static=True)
    assert tree.moved == 1
    assert tree.lookup("base_link", "camera", S).known_xyz == pytest.approx((0.5, 0.0, 0.0))
    tree.add("base_footprint", "camera", 0, Pose.from_yaw(0.9, 0.0, 0.0), is_static=True)
    assert tree.moved == 2
    assert tree.lookup("base_footprint", "camera", S).known_xyz == pytest.approx((0.9, 0.0, 0.0))


def test_late_messages_find_their_place_and_a_clock_that_is_set_back_begins_anew():
    tree = TransformTree()
    for second in (0.0, 2.0, 1.5):
        tree.add("odom", "base_link", round(second * S), Pose.from_yaw(second, 0.0, 0.0))
    assert tree.set_back == 0
    assert tree.lookup("odom", "base_link", round(1.75 * S)).position_xyz[0] == pytest.approx(1.75)
    tree.add("odom", "base_link", 0, Pose.from_yaw(7.0, 0.0, 0.0))
    assert tree.set_back == 1
    with pytest.raises(TransformError, match=r"not at 2\.000 s"):
        tree.lookup("odom", "base_link", 2 * S)


def test_memory_is_that_of_ten_seconds():
    tree = TransformTree()
    for tick in range(2000):
        tree.add("odom", "base_link", tick * S // 50, Pose.from_yaw(tick / 50.0, 0.0, 0.0))
    assert tree.lookup("odom", "base_link", 30 * S).position_xyz[0] == pytest.approx(30.0)
    with pytest.raises(TransformError, match=r"known from 29\.980"):
        tree.lookup("odom", "base_link", 29 * S)
