"""What the odometry says of a loop closure before anybody believes it. Pure functions."""

from __future__ import annotations

from effovpr_ros.loop_closure.keyframes import turned_deg
from effovpr_ros.loop_closure.loop_config import LoopConfig
from effovpr_ros.loop_closure.results import Keyframe


def contradiction(query: Keyframe, match: Keyframe, same_place_radius_m: float, config: LoopConfig) -> str:
    """Why both keyframes cannot show one place, by their odometry poses.

    Two sides of one door, or two ends of a symmetric hall, look the same in any image; the odometry knows that the
    robot has turned round or has gone elsewhere. It drifts, so only what no believable drift explains is said: the
    orientations differ by more than `max_heading_deg`, or the positions by more than one place is large and
    `max_drift` of the way driven between them. The whole rotation counts, so that it does not matter which axis of
    the odometry's child frame looks ahead.

    Args:
        query: the newer keyframe.
        match: the older one.
        same_place_radius_m: how far apart two views of one place may be.
        config: limits.

    Returns:
        The figures, for people; empty where nothing contradicts, also where the two poses do not relate.
    """
    now, then = query.odom_pose, match.odom_pose
    if now is None or then is None:
        return ""
    pair = f"keyframes {query.keyframe_id} and {match.keyframe_id} are"
    heading_deg = turned_deg(then, now)
    if heading_deg > config.max_heading_deg:
        return (
            f"{pair} turned by {heading_deg:.0f} degrees by odometry, above max_heading_deg {config.max_heading_deg:g}"
        )
    apart_m, driven_m = then.distance_m(now), query.distance_m - match.distance_m
    limit_m = same_place_radius_m + config.max_drift * driven_m
    if config.max_drift > 0.0 and apart_m > limit_m:
        return (
            f"{pair} {apart_m:.1f} m apart by odometry after {driven_m:.0f} m, more than the {limit_m:.1f} m that "
            f"same_place_radius_m {same_place_radius_m:g} and max_drift {config.max_drift:g} allow"
        )
    return ""
