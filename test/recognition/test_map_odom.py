"""`map -> odom`: when answers move it, how fast, and what odometry may do to it."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import compose, inverse
from effovpr_ros.lab.simulation.map_odom_score import drive_with_odometry
from effovpr_ros.lab.simulation.odometry import OdometryConfig
from effovpr_ros.recognition.map_odom import MapOdom, Track
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.sightings import Sighting, agree, chi2_quantile, has_moved

S = 10**9
# The odometry began 10 m ahead of the map's origin, looking left.
MAP_ODOM = Pose.from_yaw(10.0, 0.0, math.pi / 2.0)


def sighting(
    time_s: float, pose: Pose, std_m: float = 0.03, confidence: float = 0.9, is_match: bool = True
) -> Sighting:
    covariance = np.diag([std_m**2] * 3 + [0.01**2] * 3)
    return Sighting(round(time_s * S), pose, covariance, confidence, is_match=is_match)


class Robot:
    """Drives ahead at 1 m/s in a world where its odometry is right, or is where it was put."""

    def __init__(self, **config: Any) -> None:
        self.fused = MapOdom(MapOdomConfig(**{"publish_tf": True, **config}))
        self.time_s = 0.0
        self.odometry = Pose.from_yaw(0.0, 0.0, 0.0)
        self.map_from_odom = MAP_ODOM
        self.fused.on_odometry(0, self.odometry)

    @property
    def body(self) -> Pose:
        return compose(self.map_from_odom, self.odometry)

    def drive(self, seconds: float, speed: float = 1.0) -> list[Pose | None]:
        published = []
        for _ in range(round(seconds * 20.0)):
            self.time_s += 0.05
            self.odometry = compose(self.odometry, Pose.from_yaw(speed * 0.05, 0.0, 0.0))
            self.fused.on_odometry(round(self.time_s * S), self.odometry)
            published.append(self.fused.map_from_odom)
        return published

    def see(self, **options: Any) -> str:
        return self.fused.on_answer(sighting(self.time_s, self.body, **options))


def off(fused: MapOdom, expected: Pose) -> float:
    assert fused.map_from_odom is not None
    return fused.map_from_odom.distance_m(expected)


def test_a_first_pose_needs_answers_that_agree():
    robot = Robot()
    robot.drive(1.0)
    assert robot.see() == "1 of 2 agree on another pose"
    assert (robot.fused.map_from_odom, robot.fused.track) == (None, Track.WAITING)
    robot.drive(1.0)
    # Somewhere else entirely: it agrees with nothing.
    robot.fused.on_answer(sighting(robot.time_s, Pose.from_yaw(-50.0, 3.0, 0.0)))
    assert robot.fused.map_from_odom is None
    robot.drive(1.0)
    assert robot.see() == "2 agree"
    assert robot.fused.track is Track.TRACKING
    assert off(robot.fused, MAP_ODOM) < 1e-6
    assert robot.fused.map_from_odom.known_yaw_rad == pytest.approx(math.pi / 2.0)


def tracking(**config: Any) -> Robot:
    robot = Robot(**config)
    for _ in range(5):
        robot.drive(1.0)
        robot.see()
    assert robot.fused.track is Track.TRACKING
    return robot


def test_one_answer_elsewhere_moves_nothing():
    robot = tracking()
    answer = robot.fused.on_answer(sighting(robot.time_s, compose(Pose.from_yaw(0.0, 4.0, 0.0), robot.body)))
    assert answer == "1 of 3 agree on another pose"
    robot.drive(1.0)
    assert off(robot.fused, MAP_ODOM) < 0.01
    assert robot.fused.counts["refused"] == 2  # and the first of all


def test_a_robot_that_was_carried_off_jumps_after_three_answers_from_different_spots():
    robot = tracking()
    robot.map_from_odom = Pose.from_yaw(-20.0, 5.0, 0.3)
    # A robot that stands sees one picture again and again, which is no evidence.
    for _ in range(6):
        robot.drive(0.5, speed=0.0)
        robot.see()
    assert off(robot.fused, MAP_ODOM) < 0.01
    robot.drive(0.5)
    robot.see()
    assert off(robot.fused, robot.map_from_odom) < 0.01
    assert robot.fused.counts["jumps"] == 1


def test_corrections_are_as_fast_as_allowed_or_at_once():
    for speed, expected_m in ((0.2, 0.01), (0.0, math.inf)):
        robot = tracking(tf_correction_mps=speed)
        # Odometry slipped sideways by half a metre without seeing it.
        robot.map_from_odom = compose(Pose.from_yaw(0.5, 0.0, 0.0), MAP_ODOM)
        for _ in range(8):
            published = robot.drive(0.25)
            steps = [a.distance_m(b) for a, b in pairwise(published) if a and b]
            assert max(steps) <= expected_m + 1e-3
            robot.see()
        robot.drive(4.0)
        assert off(robot.fused, robot.map_from_odom) < 0.1


def test_outside_the_map_it_is_frozen_until_a_match_where_odometry_has_it():
    robot = tracking()
    robot.drive(4.9)
    robot.fused.on_nothing(round(robot.time_s * S))
    assert robot.fused.track is Track.COASTING
    robot.drive(0.5)
    robot.fused.on_nothing(round(robot.time_s * S))
    assert robot.fused.track is Track.LOST
    frozen = robot.fused.map_from_odom
    assert set(robot.drive(5.0)) == {frozen}
    # Doubtful, or not where odometry has the body: neither ends it.
    assert robot.see(is_match=False) == "1 of 2 agree on another pose"
    robot.drive(1.0)
    robot.fused.on_answer(sighting(robot.time_s, compose(Pose.from_yaw(0.0, 4.0, 0.0), robot.body)))
    assert robot.fused.track is Track.LOST
    robot.drive(1.0)
    # The position is known to some decimetres still, and the answer is there.
    assert robot.see() == "used"
    assert robot.fused.track is Track.TRACKING


def test_lost_two_doubtful_answers_that_agree_where_odometry_has_it_end_it():
    robot = tracking()
    robot.drive(6.0)
    robot.fused.on_nothing(round(robot.time_s * S))
    elsewhere = compose(Pose.from_yaw(0.0, 30.0, 0.0), robot.body)
    for number in range(2):
        robot.drive(1.0)
        pose = compose(elsewhere, Pose.from_yaw(float(number), 0.0, 0.0))
        robot.fused.on_answer(sighting(robot.time_s, pose, is_match=False))
    assert robot.fused.track is Track.LOST
    for became, track in (("1 of 2 agree on another pose", Track.LOST), ("2 agree", Track.TRACKING)):
        robot.drive(1.0)
        assert (robot.see(is_match=False), robot.fused.track) == (became, track)


def test_lost_without_knowing_where_only_answers_that_agree_end_it():
    robot = tracking()
    robot.drive(70.0)
    assert robot.fused.std_m > MapOdomConfig().tf_max_std_m
    assert robot.see() == "1 of 2 agree on another pose"
    assert robot.fused.track is Track.LOST
    robot.drive(1.0)
    assert robot.see() == "2 agree"
    assert robot.fused.track is Track.TRACKING


def test_doubtful_answers_count_where_odometry_foretells_them_and_begin_nothing_alone():
    robot = Robot()
    for _ in range(4):
        robot.drive(1.0)
        robot.see(is_match=False, confidence=0.3)
    assert (robot.fused.track, robot.fused.counts["used"]) == (Track.WAITING, 0)
    # One MATCH that agrees with them is enough.
    robot.drive(1.0)
    assert robot.see() == "5 agree"
    # Odometry reads 0.1 m too much; doubtful answers bring it back as others do.
    robot.map_from_odom = compose(Pose.from_yaw(0.1, 0.0, 0.0), MAP_ODOM)
    for _ in range(6):
        robot.drive(1.0)
        assert robot.see(is_match=False, confidence=0.3) == "used"
    assert robot.fused.track is Track.TRACKING
    assert off(robot.fused, robot.map_from_odom) < 0.03


def test_doubtful_answers_elsewhere_do_not_keep_it_from_being_lost():
    robot = tracking()
    for _ in range(6):
        robot.drive(1.0)
        robot.see(is_match=False)
    assert robot.fused.track is Track.TRACKING
    elsewhere = compose(Pose.from_yaw(0.0, 30.0, 0.0), robot.body)
    for number in range(6):
        robot.drive(1.0)
        pose = compose(elsewhere, Pose.from_yaw(3.0 * number, 0.0, 0.0))
        robot.fused.on_answer(sighting(robot.time_s, pose, is_match=False))
    assert robot.fused.track is Track.LOST


def test_silence_is_bridged_by_odometry_until_it_is_too_vague():
    robot = tracking()
    robot.drive(10.0)
    assert robot.fused.track is Track.COASTING
    robot.drive(60.0)
    assert robot.fused.track is Track.LOST


def test_odometrys_own_errors_are_learned():
    robot = Robot()
    # Wheels that are 5 % larger than odometry thinks: it reads 1 m where 1.05 m were driven.
    for _ in range(40):
        for _ in range(20):
            robot.time_s += 0.05
            robot.odometry = compose(robot.odometry, Pose.from_yaw(0.05, 0.0, 0.0))
            robot.fused.on_odometry(round(robot.time_s * S), robot.odometry)
        robot.fused.on_answer(sighting(robot.time_s, Pose.from_yaw(1.05 * robot.time_s, 0.0, 0.0)))
    last_s = robot.time_s
    robot.drive(10.0)
    body = compose(robot.fused.map_from_odom, robot.odometry)
    assert body.position_xyz[0] == pytest.approx(1.05 * (last_s + 10.0), abs=0.1)


def test_odometry_that_begins_anew_leaves_the_body_where_it_was():
    robot = tracking()
    body = robot.body
    robot.time_s += 0.05
    robot.odometry = Pose.from_yaw(0.0, 0.0, 0.0)
    assert not robot.fused.on_odometry(round(robot.time_s * S), robot.odometry)
    assert robot.fused.counts["odometry_jumps"] == 1
    assert compose(robot.fused.map_from_odom, robot.odometry).distance_m(body) < 0.01
    assert robot.fused.track is Track.LOST
    robot.map_from_odom = compose(body, inverse(robot.odometry))
    for _ in range(2):
        robot.drive(0.5)
        robot.see()
    assert robot.fused.track is Track.TRACKING
    assert off(robot.fused, robot.map_from_odom) < 0.05


def test_a_clock_that_is_set_back_is_a_new_beginning():
    robot = tracking()
    robot.time_s = 0.0
    assert not robot.fused.on_odometry(0, robot.odometry)
    robot.drive(1.0)
    robot.see()
    robot.drive(1.0)
    robot.see()
    assert robot.fused.track is Track.TRACKING


def test_answers_without_odometry_or_from_before_are_counted():
    robot = tracking()
    assert robot.fused.on_answer(sighting(robot.time_s + 5.0, robot.body)) == "no odometry at the image's time"
    assert robot.fused.on_answer(sighting(robot.time_s - 2.0, robot.body)) == "it is older than the answer before"
    assert (robot.fused.counts["no_odometry"], robot.fused.counts["late"]) == (1, 1)


def test_height_and_tilt_are_odometrys_unless_asked_for():
    for planar, expected in ((True, 0.0), (False, 2.0)):
        robot = Robot(tf_planar=planar)
        for _ in range(3):
            robot.drive(0.5)
            x, y, _ = robot.body.known_xyz
            robot.fused.on_answer(sighting(robot.time_s, Pose((x, y, 2.0), robot.body.known_quat_xyzw)))
        assert robot.fused.map_from_odom.known_xyz[2] == pytest.approx(expected, abs=1e-6)


def test_sightings_agree_as_odometry_says():
    here, ahead = Pose.from_yaw(0.0, 0.0, 0.0), Pose.from_yaw(2.0, 0.0, 0.0)
    first = Sighting(0, here, np.eye(6) * 1e-4, 0.9, here)
    second = Sighting(S, ahead, np.eye(6) * 1e-4, 0.9, ahead)
    assert agree(first, second)
    assert has_moved([first, second])
    standing = Sighting(S, ahead, np.eye(6) * 1e-4, 0.9, here)
    assert not agree(first, standing)
    assert not has_moved([first, standing])
    # Without odometry the robot is taken to turn on the spot.
    assert not agree(Sighting(0, here, np.eye(6) * 1e-4, 0.9), Sighting(S, ahead, np.eye(6) * 1e-4, 0.9))
    assert agree(
        Sighting(0, here, np.eye(6) * 1e-4, 0.9), Sighting(S, Pose.from_yaw(0.2, 0.0, 3.0), np.eye(6) * 1e-4, 0.9)
    )


def test_a_drive_with_drifting_odometry_stays_on_the_map():
    # A square of 10 m, answers every 0.4 s to 3 cm; nothing shows the map on its last side.
    truth, answers, generator = [], [], np.random.default_rng(3)
    for step in range(200):
        side, along = divmod(step * 0.2, 10.0)
        yaw = side * math.pi / 2.0
        x, y = ((along, 0.0), (10.0, along), (10.0 - along, 10.0), (0.0, 10.0 - along))[int(side)]
        truth.append((step * S // 5, Pose.from_yaw(x, y, yaw)))
        if step % 2 == 0:
            dx, dy = generator.normal(0.0, 0.03, 2)
            seen = sighting(step / 5.0, Pose.from_yaw(x + dx, y + dy, yaw)) if side < 3 else None
            answers.append((step * S // 5, seen))
    drive = drive_with_odometry(truth, answers, MapOdomConfig(), OdometryConfig(seed=5))
    figures = drive.figures(drive.time_s < 30.0)
    assert figures["mapped_error_p95_m"] < 0.2
    assert figures["jump_max_m"] < 0.1
    assert figures["moved_while_lost"] == 0.0
    assert 0.05 < figures["lost_share"] < 0.25
    assert drive.track[-1] is Track.LOST


def test_a_frame_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="odom_frame is empty"):
        MapOdomConfig(odom_frame="")


def test_quantiles_of_the_chi_squared_distribution():
    """Of tables: 99.9 % of three degrees of freedom, 95 % of one."""
    assert chi2_quantile(0.999, 3) == pytest.approx(16.266, abs=1e-3)
    assert chi2_quantile(0.95, 1) == pytest.approx(3.841, abs=1e-3)


def test_what_a_node_imports_leaves_slow_libraries_out():
    """scipy.stats alone takes half a second."""
    program = "import sys, effovpr_ros.recognition.relocalization; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
