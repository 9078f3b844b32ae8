"""Messages and diagnostics of the loop closure detector; no DDS."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point

from effovpr_ros.core.poses import Pose
from effovpr_ros.loop_closure.keyframes import Condition
from effovpr_ros.loop_closure.results import Keyframe, LoopClosure
from effovpr_ros.msg import LoopClosure as LoopClosureMessage
from effovpr_ros.nodes.loop_conversions import (
    closure_message,
    keyframe_message,
    loop_markers,
    prior_relative_pose,
)
from effovpr_ros.nodes.loop_health import ODOMETRY_MISSING, STATES, InputHealth
from effovpr_ros.recognition.decision import DecidedBy
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

QUERY = Keyframe(40, 9_500_000_000, "b", Pose.from_yaw(1.0, 2.0, 0.5), 33.0)
MATCH = Keyframe(3, 1_000_000_000, "a", Pose.from_yaw(4.0, 5.0, 0.0), 2.0)


def closure(match: Keyframe = MATCH) -> LoopClosure:
    return LoopClosure(QUERY, match, 0.75, True, DecidedBy.SEQUENCE, 0.5, 30, 20, 25.5, -0.125)


def test_every_field_of_a_keyframe_reaches_the_message():
    message = keyframe_message(QUERY, "odom", insert_ms=1.5, total_ms=20.0)
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (9, 500_000_000, "odom")
    assert (message.keyframe_id, message.session, message.distance_m) == (40, "b", 33.0)
    assert (message.insert_ms, message.total_ms) == (1.5, 20.0)
    assert message.has_odom_pose
    assert (message.odom_pose.position.x, message.odom_pose.position.y) == (1.0, 2.0)
    unposed = keyframe_message(Keyframe(0, 0, "b", None, 0.0), "map", insert_ms=0.0, total_ms=0.0)
    assert not unposed.has_odom_pose
    assert unposed.odom_pose.orientation.w == 1.0


def test_every_field_of_a_closure_reaches_the_message():
    message = closure_message(closure(), "odom", RecognizerConfig(), bearing_rad=0.25)
    assert (message.header.stamp.sec, message.header.frame_id) == (9, "odom")
    assert (message.query_id, message.match_id, message.query_session, message.match_session) == (40, 3, "b", "a")
    assert (message.query_stamp.nanosec, message.match_stamp.sec) == (500_000_000, 1)
    assert message.has_odom_poses
    assert (message.query_odom_pose.position.x, message.match_odom_pose.position.x) == (1.0, 4.0)
    assert (message.confidence, message.is_calibrated, message.decided_by) == (0.75, True, LoopClosureMessage.SEQUENCE)
    assert (message.similarity, message.num_matches, message.num_consistent, message.score) == (0.5, 30, 20, 25.5)
    assert (message.bearing_offset, message.has_bearing_rad, message.bearing_offset_rad) == (-0.125, True, 0.25)
    assert (message.measured_by, message.num_inliers, message.is_metric) == (0, 0, False)
    assert message.relative_pose.pose.orientation.z == pytest.approx(math.sin(0.125))


def test_a_closure_without_poses_or_camera_says_so():
    lone = Keyframe(3, 1_000_000_000, "a", None, 0.0)
    message = closure_message(closure(lone), "odom", RecognizerConfig())
    assert not message.has_odom_poses
    assert message.query_odom_pose.position.x == 0.0
    assert (message.has_bearing_rad, message.bearing_offset_rad) == (False, 0.0)
    assert message.relative_pose.pose.orientation.w == 1.0


def test_the_prior_spreads_as_a_place_does():
    config = RecognizerConfig(same_place_radius_m=6.0, min_position_std_m=0.5, min_yaw_std_rad=0.1)
    covariance = np.array(prior_relative_pose(0.0, config).covariance).reshape(6, 6)
    np.testing.assert_allclose(covariance, np.diag([9.0, 9.0, 9.0, 0.01, 0.01, 0.01]))
    small = RecognizerConfig(same_place_radius_m=0.1, min_position_std_m=0.5)
    assert prior_relative_pose(0.0, small).covariance[0] == 0.25


def test_markers_join_query_and_match():
    points, lines = loop_markers([Point(x=1.0), Point(x=2.0)], [Point(x=2.0), Point(x=1.0)], "odom").markers
    assert [point.x for point in points.points] == [1.0, 2.0]
    assert [point.x for point in lines.points] == [2.0, 1.0]
    assert points.header.frame_id == lines.header.frame_id == "odom"


def test_the_worst_state_of_the_last_five_seconds_counts():
    health = InputHealth()
    assert health.worst(108.0) is None
    health.saw(STATES.get(Condition.NORMAL), 100.0)
    health.saw(STATES[Condition.ODOMETRY_JUMPED], 104.0)
    health.saw(STATES[Condition.CAMERA_FROZEN], 102.0)
    worst = health.worst(106.0)
    assert worst is not None
    assert (worst.level, worst.text.split(":")[0]) == (DiagnosticStatus.ERROR, "the camera is frozen")
    assert health.worst(108.0) == STATES[Condition.ODOMETRY_JUMPED]
    assert health.worst(109.5) is None
    health.saw(ODOMETRY_MISSING, 109.0)
    assert health.worst(110.0) == ODOMETRY_MISSING
    assert health.worst(120.0) is None


def test_every_condition_but_the_harmless_ones_has_a_word():
    assert set(Condition) - set(STATES) == {Condition.NORMAL, Condition.IMAGE_REPEATED}
