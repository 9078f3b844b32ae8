"""What the loop closure detector found, as messages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, PoseWithCovariance
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.loop_closure.results import Keyframe, LoopClosure
from effovpr_ros.msg import Keyframe as KeyframeMessage
from effovpr_ros.msg import LoopClosure as LoopClosureMessage
from effovpr_ros.nodes.conversions import pose_message, time_from_ns
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


def keyframe_message(keyframe: Keyframe, frame_id: str, *, insert_ms: float, total_ms: float) -> KeyframeMessage:
    """A keyframe as effovpr_ros/Keyframe.

    Args:
        keyframe: that was inserted.
        frame_id: of the odometry.
        insert_ms: time to insert it.
        total_ms: from the receipt of the image to now.
    """
    message = KeyframeMessage(
        header=Header(stamp=time_from_ns(keyframe.stamp_ns), frame_id=frame_id),
        keyframe_id=keyframe.keyframe_id,
        session=keyframe.session,
        has_odom_pose=keyframe.odom_pose is not None,
        distance_m=keyframe.distance_m,
        insert_ms=insert_ms,
        total_ms=total_ms,
    )
    if keyframe.odom_pose is not None:
        message.odom_pose = pose_message(keyframe.odom_pose)
    return message


def closure_message(
    closure: LoopClosure,
    frame_id: str,
    config: RecognizerConfig,
    *,
    bearing_rad: float | None = None,
) -> LoopClosureMessage:
    """A loop closure as effovpr_ros/LoopClosure.

    Args:
        closure: that was found.
        frame_id: of the odometry.
        config: the spread of a place is `same_place_radius_m` and `min_yaw_std_rad`.
        bearing_rad: how much further left the query looks; None where no camera_info tells.
    """
    relative_pose = prior_relative_pose(bearing_rad or 0.0, config)
    measured = closure.pose
    if measured.relative_pose is not None and measured.covariance is not None:
        relative_pose = PoseWithCovariance(
            pose=pose_message(measured.relative_pose), covariance=measured.covariance.ravel()
        )
    message = LoopClosureMessage(
        header=Header(stamp=time_from_ns(closure.query.stamp_ns), frame_id=frame_id),
        query_id=closure.query.keyframe_id,
        match_id=closure.match.keyframe_id,
        query_stamp=time_from_ns(closure.query.stamp_ns),
        match_stamp=time_from_ns(closure.match.stamp_ns),
        query_session=closure.query.session,
        match_session=closure.match.session,
        has_odom_poses=closure.has_odom_poses,
        confidence=closure.confidence,
        is_calibrated=closure.calibrated,
        decided_by=int(closure.decided_by),
        similarity=closure.similarity,
        num_matches=closure.num_matches,
        num_consistent=closure.num_consistent,
        score=closure.score,
        bearing_offset=math.nan if closure.bearing_offset is None else closure.bearing_offset,
        has_bearing_rad=bearing_rad is not None,
        bearing_offset_rad=bearing_rad or 0.0,
        measured_by=measured.measured_by.value,
        num_inliers=measured.num_inliers,
        is_metric=measured.relative_pose is not None,
        relative_pose=relative_pose,
    )
    if closure.query.odom_pose is not None and closure.match.odom_pose is not None:
        message.query_odom_pose = pose_message(closure.query.odom_pose)
        message.match_odom_pose = pose_message(closure.match.odom_pose)
    return message


def prior_relative_pose(yaw_rad: float, config: RecognizerConfig) -> PoseWithCovariance:
    """The pose of one view of a place in another's frame where nothing was measured: at one spot, turned.

    Two views of one place are up to `same_place_radius_m` apart, which counts as two standard deviations, and none is
    smaller than the floors `min_position_std_m` and `min_yaw_std_rad`.
    """
    position_std_m = max(config.same_place_radius_m / 2.0, config.min_position_std_m)
    variances = np.square([position_std_m] * 3 + [config.min_yaw_std_rad] * 3)
    pose = pose_message(Pose.from_yaw(0.0, 0.0, yaw_rad))
    return PoseWithCovariance(pose=pose, covariance=np.diag(variances).ravel())


def loop_markers(keyframes: Sequence[Point], closures: Sequence[Point], frame_id: str) -> MarkerArray:
    """Keyframes as points and closures as lines.

    Args:
        keyframes: N positions.
        closures: 2 M positions, query and match by turns.
        frame_id: of the odometry.
    """
    points = Marker(ns="keyframes", id=0, type=Marker.POINTS, action=Marker.ADD, points=list(keyframes))
    lines = Marker(ns="closures", id=1, type=Marker.LINE_LIST, action=Marker.ADD, points=list(closures))
    points.scale.x = points.scale.y = 0.15
    lines.scale.x = 0.05
    points.color = ColorRGBA(r=0.35, g=0.45, b=0.6, a=0.8)
    lines.color = ColorRGBA(r=0.1, g=0.7, b=0.3, a=1.0)
    for marker in (points, lines):
        marker.header.frame_id = frame_id
        marker.pose.orientation.w = 1.0
    return MarkerArray(markers=[points, lines])
