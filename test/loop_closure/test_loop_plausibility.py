"""What the odometry contradicts, worked out by hand, and what the detector does about it."""

from __future__ import annotations

import math

import pytest

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import Pose
from effovpr_ros.loop_closure.loop_config import LoopConfig
from effovpr_ros.loop_closure.plausibility import contradiction
from effovpr_ros.loop_closure.results import Keyframe

RADIUS_M = 5.0


def keyframe(number: int, pose: Pose | None, driven_m: float = 0.0) -> Keyframe:
    return Keyframe(number, number, "a", pose, driven_m)


def at(x: float, heading_deg: float = 0.0) -> Pose:
    return Pose.from_yaw(x, 0.0, math.radians(heading_deg))


def said(then: Pose | None, now: Pose | None, driven_m: float = 50.0, config: LoopConfig | None = None) -> str:
    """Of a query 50 m after its match, which was made 10 m after the start."""
    query, match = keyframe(40, now, 10.0 + driven_m), keyframe(3, then, 10.0)
    return contradiction(query, match, RADIUS_M, config or LoopConfig())


def test_a_robot_that_has_turned_round_does_not_see_the_same():
    assert said(at(0.0), at(0.0, 172.0)) == (
        "keyframes 40 and 3 are turned by 172 degrees by odometry, above max_heading_deg 100"
    )
    assert said(at(0.0), at(0.0, 101.0))
    assert not said(at(0.0), at(0.0, 99.0))
    # Across the seam of the angle: 175 and -175 degrees are 10 apart.
    assert not said(at(0.0, 175.0), at(0.0, -175.0))
    assert said(at(0.0, 90.0), at(0.0, -90.0))


def test_the_turn_is_that_of_the_whole_rotation_whichever_axis_looks_ahead():
    # A camera's optical frame as child frame, whose z axis looks ahead and whose y axis points down: turned about y.
    half = math.radians(170.0) / 2.0
    turned = Pose((0.0, 0.0, 0.0), (0.0, math.sin(half), 0.0, math.cos(half)))
    assert "turned by 170 degrees" in said(at(0.0), turned)
    # The same rotation with the opposite sign of the quaternion is none.
    assert not said(at(0.0), Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, -1.0)))


def test_positions_may_differ_by_one_place_and_a_share_of_the_way():
    # 5 m and 0.2 of 50 m.
    assert not said(at(0.0), at(14.9))
    assert said(at(0.0), at(15.1)) == (
        "keyframes 40 and 3 are 15.1 m apart by odometry after 50 m, more than the 15.0 m that same_place_radius_m 5 "
        "and max_drift 0.2 allow"
    )
    assert not said(at(0.0), at(15.1), driven_m=60.0)
    assert said(at(0.0), at(15.1), config=LoopConfig(max_drift=0.1), driven_m=100.0)


def test_each_check_is_off_at_its_end_and_the_other_stays():
    assert not said(at(0.0), at(0.0, 180.0), config=LoopConfig(max_heading_deg=180.0))
    assert not said(at(0.0), at(1000.0), config=LoopConfig(max_drift=0.0))
    assert "apart" in said(at(0.0), at(1000.0, 180.0), config=LoopConfig(max_heading_deg=180.0))
    assert "turned" in said(at(0.0), at(1000.0, 180.0), config=LoopConfig(max_drift=0.0))


def test_poses_that_do_not_relate_contradict_nothing():
    assert not said(None, at(0.0, 180.0))
    assert not said(at(0.0), None)


@pytest.mark.parametrize("wrong", [{"max_heading_deg": 180.5}, {"max_heading_deg": -1.0}, {"max_drift": math.nan}])
def test_impossible_limits_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoopConfig(**wrong)
