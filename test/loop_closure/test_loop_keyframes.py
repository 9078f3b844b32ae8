"""Which images become keyframes and what goes wrong with odometry and time, worked by hand; who may close a loop."""

from __future__ import annotations

import math

import pytest

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.poses import Pose
from effovpr_ros.loop_closure.history import RunHistory
from effovpr_ros.loop_closure.keyframes import (
    Condition,
    Observation,
    OdometrySample,
    Progress,
    distance_with,
    observe,
    take,
    turned_deg,
)
from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.recognition.recognizer import RecognizerConfig

CONFIG = LoopConfig(keyframe_distance_m=0.5, keyframe_angle_deg=15.0)


def pose(x: float, y: float = 0.0, yaw_deg: float = 0.0) -> Pose:
    return Pose.from_yaw(x, y, math.radians(yaw_deg))


def sample(seconds: float, odometry: Pose | None) -> OdometrySample:
    return OdometrySample(round(seconds * 1e9), odometry)


class Run:
    """Images one after the other, each taken where it is wanted."""

    def __init__(self, config: LoopConfig = CONFIG) -> None:
        self.config, self.progress = config, Progress()

    def see(self, seconds: float, odometry: Pose | None) -> Observation:
        image = sample(seconds, odometry)
        seen = observe(self.progress, image, self.config)
        self.progress = take(seen.progress, image) if seen.wanted else seen.progress
        return seen

    def wanted(self, *images: tuple[float, Pose | None]) -> list[bool]:
        return [self.see(seconds, odometry).wanted for seconds, odometry in images]


def test_a_keyframe_every_half_metre_or_fifteen_degrees():
    run = Run()
    assert run.wanted((0.0, pose(0.0)), (1.0, pose(0.4)), (2.0, pose(0.5)), (3.0, pose(0.9)), (4.0, pose(0.6))) == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert run.wanted((5.0, pose(0.6, 0.0, 14.9)), (6.0, pose(0.6, 0.0, 15.1))) == [False, True]
    # From keyframe to keyframe: 0.5 m and then 0.1 m; what lies between does not count.
    assert run.progress.distance_m == pytest.approx(0.6)
    assert distance_with(run.progress, pose(0.6, 0.3)) == pytest.approx(0.9)
    assert run.progress.track == 0


def test_a_robot_that_stands_makes_keyframes_by_time_only_if_asked_to():
    standing = [(float(second), pose(0.0)) for second in range(5)]
    assert Run().wanted(*standing) == [True, False, False, False, False]
    assert Run(LoopConfig(keyframe_period_s=2.0)).wanted(*standing) == [True, False, True, False, True]


def test_without_odometry_every_image_or_one_a_period():
    images = [(0.5 * number, None) for number in range(4)]
    run = Run()
    assert run.wanted(*images) == [True] * 4
    assert run.see(2.0, None).condition is Condition.NO_ODOMETRY
    assert run.progress.distance_m == 0.0
    assert Run(LoopConfig(keyframe_period_s=1.0)).wanted(*images) == [True, False, True, False]


def test_odometry_that_begins_late_gives_a_keyframe_with_a_pose_at_once():
    run = Run(LoopConfig(keyframe_period_s=10.0))
    assert run.wanted((0.0, None), (1.0, None), (1.1, pose(0.0)), (1.2, pose(0.1))) == [True, False, True, False]


def test_odometry_that_is_late_is_waited_for_and_odometry_that_is_lost_is_not():
    run = Run(LoopConfig(odometry_timeout_s=1.0))
    run.see(0.0, pose(0.0))
    late = run.see(0.9, None)
    assert (late.condition, late.wanted) == (Condition.ODOMETRY_LATE, False)
    lost = run.see(1.0, None)
    assert (lost.condition, lost.wanted) == (Condition.ODOMETRY_LOST, True)
    # It comes back within reach: the same track goes on, and the way counts.
    back = run.see(2.0, pose(3.0))
    assert (back.condition, back.wanted) == (Condition.NORMAL, True)
    assert run.progress.track == 0
    assert run.progress.distance_m == 3.0


@pytest.mark.parametrize(
    ("seconds", "there", "jumped"),
    [
        # 0.5 m and 20 m/s; 15 degrees and 720 degrees/s.
        (0.1, pose(2.4), False),
        (0.1, pose(2.6), True),
        (0.0, pose(0.4), False),
        (0.0, pose(0.6), True),
        (0.1, pose(0.0, 0.0, 86.0), False),
        (0.1, pose(0.0, 0.0, 88.0), True),
        (10.0, pose(190.0), False),
    ],
)
def test_odometry_jumps_beyond_what_the_robot_can_do(seconds: float, there: Pose, jumped: bool):
    run = Run()
    run.see(5.0, pose(0.0))
    seen = run.see(5.0 + seconds, there)
    assert (seen.condition is Condition.ODOMETRY_JUMPED) == jumped
    assert run.progress.track == int(jumped)
    if jumped:
        assert seen.wanted
        assert run.progress.distance_m == 0.0


def test_a_jump_counts_no_distance_but_time_goes_on():
    run = Run()
    run.see(0.0, pose(0.0))
    run.see(1.0, pose(1.0))
    run.see(2.0, pose(500.0))
    run.see(3.0, pose(501.0))
    assert run.progress.distance_m == 2.0
    assert run.progress.elapsed_ns == 3_000_000_000


def test_time_that_is_set_back_begins_a_track_and_an_image_out_of_order_is_ignored():
    run = Run(LoopConfig(reorder_s=0.5))
    run.see(100.0, pose(0.0))
    run.see(101.0, pose(1.0))
    before = run.progress
    seen = run.see(100.5, pose(0.5))
    assert (seen.condition, seen.wanted) == (Condition.IMAGE_OUT_OF_ORDER, False)
    assert run.progress == before
    seen = run.see(3.0, pose(0.0))
    assert (seen.condition, seen.wanted) == (Condition.CLOCK_BACKWARDS, True)
    run.see(4.0, pose(1.0))
    assert run.progress.track == 1
    # One second on either side of the step back; the way back to the start was not driven.
    assert run.progress.elapsed_ns == 2_000_000_000
    assert run.progress.distance_m == 2.0


def test_angles_between_orientations():
    assert turned_deg(pose(0, 0, 170), pose(0, 0, -170)) == pytest.approx(20.0)
    assert turned_deg(pose(0), Pose((0, 0, 0), (math.sin(0.25), 0, 0, math.cos(0.25)))) == pytest.approx(
        math.degrees(0.5)
    )
    assert turned_deg(pose(0), Pose((0, 0, 0), (0, 0, 0, -1))) == 0.0


# Who may close a loop


def history_of(run: Run, images: list[tuple[float, Pose | None]], first_id: int = 0) -> RunHistory:
    history = RunHistory()
    for number, (seconds, odometry) in enumerate(images, start=first_id):
        assert run.see(seconds, odometry).wanted
        history.append(number, run.progress)
    return history


def below(run: Run, history: RunHistory, next_id: int, seconds: float, odometry: Pose | None) -> int:
    seen = observe(run.progress, sample(seconds, odometry), run.config)
    return history.candidates_below(next_id, seen.progress, run.config)


DRIVE = [(float(second), pose(float(second))) for second in range(10)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # The image is keyframe 10, at 10 s and 10 m. Keyframe n is n s and n m from the start.
        ({"min_age_s": 4.0, "min_distance_m": 0.0, "min_keyframes": 0}, 7),
        ({"min_age_s": 0.0, "min_distance_m": 7.5, "min_keyframes": 0}, 3),
        ({"min_age_s": 0.0, "min_distance_m": 0.0, "min_keyframes": 6}, 5),
        ({"min_age_s": 4.0, "min_distance_m": 7.5, "min_keyframes": 6}, 3),
        ({"min_age_s": 0.0, "min_distance_m": 0.0, "min_keyframes": 0}, 10),
        ({"min_age_s": 11.0, "min_distance_m": 0.0, "min_keyframes": 0}, 0),
    ],
)
def test_keyframes_of_the_run_must_be_old_enough_by_every_rule(rules: dict[str, float], expected: int):
    run = Run(LoopConfig(**rules))
    history = history_of(run, DRIVE)
    assert below(run, history, 10, 10.0, pose(10.0)) == expected


def test_what_was_there_before_the_run_may_always():
    run = Run(LoopConfig(min_age_s=3600.0))
    assert below(run, RunHistory(), 20, 0.0, pose(0.0)) == 20
    history = history_of(run, DRIVE, first_id=20)
    assert below(run, history, 30, 10.0, pose(10.0)) == 20


def test_without_odometry_the_distance_is_no_rule():
    run = Run(LoopConfig(min_age_s=0.0, min_distance_m=1000.0, min_keyframes=2))
    history = history_of(run, [(float(second), None) for second in range(10)])
    assert below(run, history, 10, 10.0, None) == 9


def test_a_jump_makes_nothing_old():
    run = Run(LoopConfig(min_age_s=4.0, min_distance_m=3.0, min_keyframes=0))
    history = history_of(run, DRIVE)
    assert below(run, history, 10, 9.1, pose(5000.0)) == 6
    assert history.distance_m(7) == 7.0
    assert history.distance_m(99) == 0.0


def test_forgotten_keyframes_leave_no_trace():
    run = Run(LoopConfig(min_age_s=4.0, min_distance_m=0.0, min_keyframes=0))
    history = history_of(run, DRIVE)
    history.forget({6, 7, 0})
    assert below(run, history, 10, 10.0, pose(10.0)) == 8
    assert [history.distance_m(number) for number in (5, 6, 8)] == [5.0, 0.0, 8.0]


@pytest.mark.parametrize("values", [{"min_age_s": -1.0}, {"max_speed_m_s": math.nan}, {"max_keyframes": 10**6}])
def test_impossible_settings_are_refused_by_name(values: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(values))):
        LoopConfig(**values)


def test_recognition_differs_from_a_prior_maps_in_two_settings():
    default = RecognizerConfig()
    assert RecognizerConfig(top_k=50, sequence_length=10) == LOOP_RECOGNIZER
    assert (default.top_k, default.sequence_length) == (100, 0)
