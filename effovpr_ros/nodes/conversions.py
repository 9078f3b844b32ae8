"""Core types to messages and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseWithCovariance, PoseWithCovarianceStamped
from geometry_msgs.msg import Pose as PoseMessage
from sensor_msgs.msg import NavSatFix, NavSatStatus
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import FARTHEST_M, Pose
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.msg import PlaceCandidate, PlaceMatch
from effovpr_ros.recognition.recognizer import DecidedBy, Hint, Recognition, Status

LATENCY_STAGES = ("extract", "search", "rerank", "verify", "decide", "total")
"""In messages, whose decide holds the pose's time too."""
"""Stages of effovpr_ros/PlaceMatch; each is a field with the suffix _ms."""

_COLOURS = {
    Status.NO_MATCH: ColorRGBA(r=0.8, g=0.2, b=0.2, a=1.0),
    Status.AMBIGUOUS: ColorRGBA(r=0.9, g=0.6, b=0.1, a=1.0),
    Status.MATCH: ColorRGBA(r=0.1, g=0.7, b=0.3, a=1.0),
}


def time_from_ns(stamp_ns: int) -> Time:
    """Nanoseconds to a message; stamps before 1970 become 0."""
    seconds, nanoseconds = divmod(max(stamp_ns, 0), 10**9)
    return Time(sec=seconds, nanosec=nanoseconds)


def ns_from_time(stamp: Time) -> int:
    """A message's nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def pose_message(pose: Pose) -> PoseMessage:
    """A pose as geometry_msgs/Pose, which cannot say that something is unknown.

    An unknown height becomes 0 and an unknown orientation the identity; the covariance or the flags beside the message
    say so.
    """
    message = PoseMessage(position=_point(pose))
    orientation = message.orientation
    orientation.x, orientation.y, orientation.z, orientation.w = pose.quat_xyzw or (0.0, 0.0, 0.0, 1.0)
    return message


def candidate_message(candidate: Candidate) -> PlaceCandidate:
    """A candidate as effovpr_ros/PlaceCandidate."""
    place = candidate.place
    message = PlaceCandidate(
        place_id=place.place_id,
        place_stamp=time_from_ns(place.stamp_ns or 0),
        session=place.session,
        source=place.source,
        similarity=candidate.similarity,
        num_matches=candidate.num_matches,
        num_consistent=candidate.num_consistent,
        score=candidate.score,
        is_verified=candidate.points is not None,
        num_verified=candidate.points.homography if candidate.points is not None else 0,
        has_pose=place.map_pose is not None,
        has_height=place.map_pose is not None and place.map_pose.position_xyz[2] is not None,
        has_heading=place.map_pose is not None and place.map_pose.quat_xyzw is not None,
        has_geo=place.geo is not None,
    )
    if place.map_pose is not None:
        message.pose = pose_message(place.map_pose)
    if place.geo is not None:
        message.latitude = place.geo.latitude_deg
        message.longitude = place.geo.longitude_deg
        message.altitude = math.nan if place.geo.altitude_m is None else place.geo.altitude_m
    return message


def match_message(
    recognition: Recognition, header: Header, *, map_name: str, num_candidates: int, total_ms: float
) -> PlaceMatch:
    """A recognition as effovpr_ros/PlaceMatch.

    Args:
        recognition: of the query.
        header: stamp of the query, frame of the map.
        map_name: of the map.
        num_candidates: at most so many are passed on.
        total_ms: from the receipt of the image to now.
    """
    latency = recognition.latency_ms
    pose = PoseWithCovariance()
    if recognition.pose is not None and recognition.covariance is not None:
        pose = PoseWithCovariance(pose=pose_message(recognition.pose), covariance=recognition.covariance.ravel())
    return PlaceMatch(
        header=header,
        status=int(recognition.status),
        decided_by=int(recognition.decided_by),
        confidence=recognition.confidence,
        is_calibrated=recognition.calibrated,
        map_name=map_name,
        reason=recognition.reason,
        candidates=[candidate_message(candidate) for candidate in recognition.candidates[:num_candidates]],
        bearing_offset=math.nan if recognition.bearing_offset is None else recognition.bearing_offset,
        has_pose=recognition.pose is not None,
        is_metric=recognition.is_metric,
        pose=pose,
        pose_reason=recognition.measurement.reason if recognition.measurement is not None else "",
        extract_ms=latency.extract,
        search_ms=latency.search,
        rerank_ms=latency.rerank,
        verify_ms=latency.verify,
        decide_ms=latency.decide + latency.pose,
        total_ms=total_ms,
    )


def match_record(message: PlaceMatch) -> dict[str, Any]:
    """An effovpr_ros/PlaceMatch as plain values for JSON.

    `pose` is [x, y, z, qx, qy, qz, qw] or None; z and the quaternion are None where they are unknown.
    """
    return {
        "stamp_ns": ns_from_time(message.header.stamp),
        "frame_id": message.header.frame_id,
        "status": Status(message.status).name,
        "decided_by": DecidedBy(message.decided_by).name,
        "confidence": message.confidence,
        "is_calibrated": message.is_calibrated,
        "map_name": message.map_name,
        "reason": message.reason,
        "bearing_offset": None if math.isnan(message.bearing_offset) else message.bearing_offset,
        "is_metric": message.is_metric,
        "measured_pose": _pose_values(message.pose.pose) if message.is_metric else None,
        "measured_covariance": list(message.pose.covariance) if message.is_metric else None,
        "pose_reason": message.pose_reason,
        "candidates": [_candidate_record(candidate) for candidate in message.candidates],
        "latency_ms": {stage: getattr(message, f"{stage}_ms") for stage in LATENCY_STAGES},
    }


def _pose_values(message: PoseMessage) -> list[float]:
    position, turn = message.position, message.orientation
    return [position.x, position.y, position.z, turn.x, turn.y, turn.z, turn.w]


def _candidate_record(message: PlaceCandidate) -> dict[str, Any]:
    position, orientation = message.pose.position, message.pose.orientation
    turned = [orientation.x, orientation.y, orientation.z, orientation.w] if message.has_heading else [None] * 4
    pose = [position.x, position.y, position.z if message.has_height else None, *turned]
    return {
        "place_id": message.place_id,
        "session": message.session,
        "similarity": message.similarity,
        "num_matches": message.num_matches,
        "num_consistent": message.num_consistent,
        "score": message.score,
        "num_verified": message.num_verified if message.is_verified else None,
        "pose": pose if message.has_pose else None,
    }


def pose_with_covariance(recognition: Recognition, header: Header) -> PoseWithCovarianceStamped | None:
    """The pose of a MATCH; None for any other status or where the place has no pose."""
    if recognition.status is not Status.MATCH or recognition.pose is None or recognition.covariance is None:
        return None
    message = PoseWithCovarianceStamped(header=header)
    message.pose.pose = pose_message(recognition.pose)
    message.pose.covariance = recognition.covariance.ravel()
    return message


def fix_message(recognition: Recognition, header: Header) -> NavSatFix | None:
    """The geo-tag of a MATCH; None for any other status or where the place has none.

    The altitude is NaN where it is unknown, as the message's definition wants. The covariance (east, north, up) is the
    pose's where there is one, and then has a large variance for an unknown height; else its type is unknown.
    """
    if recognition.status is not Status.MATCH or recognition.geo is None:
        return None
    geo = recognition.geo
    altitude_m = math.nan if geo.altitude_m is None else geo.altitude_m
    message = NavSatFix(header=header, latitude=geo.latitude_deg, longitude=geo.longitude_deg, altitude=altitude_m)
    message.status = NavSatStatus(status=NavSatStatus.STATUS_FIX)
    if recognition.covariance is not None:
        message.position_covariance = recognition.covariance[:3, :3].ravel()
        message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    return message


def hint_from_message(message: PoseWithCovarianceStamped, min_radius_m: float) -> Hint:
    """A prior of the position; its radius is three standard deviations, at least `min_radius_m`.

    Raises:
        ConfigError: a position that is not finite or not on Earth, or variances that are not finite, below 0, or wider
            than that.
    """
    position, covariance = message.pose.pose.position, message.pose.covariance
    # Not by max and min, which pass over NaN.
    if not all(abs(value) <= FARTHEST_M for value in (position.x, position.y, position.z)):
        raise ConfigError(f"its position ({position.x}, {position.y}, {position.z}) is not finite or not on Earth")
    variances = (float(covariance[0]), float(covariance[7]))
    if not all(0.0 <= value <= FARTHEST_M**2 for value in variances):
        raise ConfigError(f"its variances of x and y {variances} are no variances in square metres; 0 if unknown")
    return Hint((position.x, position.y, position.z), max(3.0 * math.sqrt(max(variances)), min_radius_m))


def map_markers(places: Sequence[Place], frame_id: str) -> MarkerArray:
    """All places with a pose in the map frame as points."""
    points = Marker(ns="places", id=0, type=Marker.POINTS, action=Marker.ADD)
    points.header.frame_id = frame_id
    points.pose.orientation.w = 1.0
    points.scale.x = points.scale.y = 0.15
    points.color = ColorRGBA(r=0.35, g=0.45, b=0.6, a=0.8)
    points.points = [_point(place.map_pose) for place in places if place.map_pose is not None]
    return MarkerArray(markers=[points])


def match_markers(recognition: Recognition, header: Header) -> MarkerArray:
    """The best place as an arrow, a ball where its heading is unknown, with its status as text.

    Both are deleted for a NO_MATCH without a place.
    """
    pose = recognition.pose
    is_turned = pose is None or pose.quat_xyzw is not None
    shape = Marker.ARROW if is_turned else Marker.SPHERE
    arrow = Marker(header=header, ns="match", id=0, type=shape, action=Marker.DELETE)
    text = Marker(header=header, ns="match", id=1, type=Marker.TEXT_VIEW_FACING, action=Marker.DELETE)
    if pose is not None:
        arrow.action = text.action = Marker.ADD
        arrow.pose = pose_message(pose)
        arrow.scale.x, arrow.scale.y, arrow.scale.z = (1.0, 0.2, 0.2) if is_turned else (0.5, 0.5, 0.5)
        text.pose = pose_message(pose)
        text.pose.position.z += 1.0
        text.scale.z = 0.5
        text.text = f"{recognition.status.name} {recognition.confidence:.2f}"
        arrow.color = text.color = _COLOURS[recognition.status]
    return MarkerArray(markers=[arrow, text])


def _point(pose: Pose) -> Point:
    x, y, z = pose.position_xyz
    return Point(x=x, y=y, z=0.0 if z is None else z)
