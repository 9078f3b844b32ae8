"""The demo's parts about a robot that moves by the answers: without simulator and model."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from effovpr_ros.cli import demo_robot
from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.kidnapping import TURN_STEP_RAD, draw_found, random_poses, turn_until_sure
from effovpr_ros.lab.simulation.level import FreeFloor
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.relocalization import RelocalizationConfig
from effovpr_ros.sources.frame import Frame

IMAGE = np.full((48, 64, 3), 90, np.uint8)


class FakeLevel:
    """A level whose pictures are all the same; it notes where it was looked from."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float]] = []

    def view(self, x: float, y: float, yaw: float) -> tuple[np.ndarray, tuple[float, float, float]]:
        self.seen.append((x, y, yaw))
        return IMAGE, (x, y, yaw)


def turn(level: FakeLevel, offset_m: float, from_step: int = 2) -> Any:
    """Answers are MATCHes at the true pose beside an offset, from a step on."""

    def ask(image: np.ndarray) -> tuple[Any, float]:
        x, y, yaw = level.seen[-1]
        is_match = len(level.seen) > from_step
        answer = SimpleNamespace(
            status=Status.MATCH if is_match else Status.NO_MATCH,
            pose=Pose.from_yaw(x + offset_m, y, yaw) if is_match else None,
            covariance=np.eye(6) * 1e-3,
            confidence=0.95,
            is_metric=True,
        )
        return answer, 0.3

    where = Pose.from_yaw(3.0, 4.0, 1.0)
    return turn_until_sure(level, where, ask, RelocalizationConfig(), np.random.default_rng(1))


def test_a_robot_turns_once_at_most_and_is_found_right_or_wrong():
    level = FakeLevel()
    found = turn(level, 0.0)
    assert (found.is_right, found.is_wrong) == (True, False)
    assert found.error_m < 0.1
    # After 21 steps of 15 degrees the gap that is left is narrower than 50 degrees.
    assert round(math.degrees(TURN_STEP_RAD)) == 15
    assert found.num_images == len(level.seen) == 22
    # It turns faster than it answers, or the other way round: whatever takes longer counts.
    assert found.seconds == pytest.approx(0.3 + 21 * 0.3)
    assert turn(FakeLevel(), 6.0).is_wrong
    lost = turn(FakeLevel(), 0.0, from_step=100)
    assert (lost.pose, lost.is_right, lost.is_wrong) == (None, False, False)


def test_robots_are_put_on_the_floor_beside_the_map():
    floor = FreeFloor((0.0, 0.0), np.ones((40, 40), np.float32))
    places = [Pose.from_yaw(5.0, 5.0, 0.0)]
    chosen = random_poses(floor, places, 10, seed=1, within_m=1.0)
    assert len({pose.position_xyz for pose in chosen}) == 10
    assert max(pose.distance_m(places[0]) for pose in chosen) <= 1.0
    with pytest.raises(SimulationError, match=r"within 0\.1 m of the map, 10 are wanted"):
        random_poses(floor, places, 10, seed=1, within_m=0.1)


def test_the_picture_shows_right_wrong_and_lost_ones(tmp_path: Path):
    found = [turn(FakeLevel(), 0.0), turn(FakeLevel(), 6.0), turn(FakeLevel(), 0.0, from_step=100)]
    draw_found(np.zeros((1, 2, 2)), [Pose.from_yaw(3.0, 4.0, 0.0)], found, tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_the_demo_says_what_to_do_where_its_map_is_missing(tmp_path: Path):
    options = argparse.Namespace(out=tmp_path, json=True, device="cpu", engine="auto")
    for run in (lambda: demo_robot.run_drift(options, []), lambda: demo_robot.run_kidnap(options)):
        with pytest.raises(SimulationError, match=r"building_map is missing; run `effovpr demo map --out"):
            run()


def test_drift_prints_figures_of_the_answers_to_the_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    truth = [Pose.from_yaw(0.5 * step, 0.0, 0.0) for step in range(160)]
    frames = [Frame("image", "drive", step * 400_000_000, pose, None, lambda: IMAGE) for step, pose in enumerate(truth)]
    left = iter(range(160))

    class Asked:
        """Every fourth answer is a MATCH, the others are doubtful; those from the 60th to the 80th elsewhere."""

        places = truth

        def __init__(self, options: argparse.Namespace) -> None:
            pass

        def __enter__(self) -> Asked:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def of(self, image: np.ndarray) -> Any:
            step = next(left)
            is_match = step % 4 == 0 and not 60 <= step < 80
            pose = truth[step] if not 60 <= step < 80 else Pose.from_yaw(3.0 * step, 40.0, 0.0)
            return SimpleNamespace(
                status=Status.MATCH if is_match else Status.AMBIGUOUS,
                pose=pose,
                covariance=np.diag([0.03**2] * 3 + [0.01**2] * 3),
                confidence=0.95 if is_match else 0.3,
                is_metric=True,
            )

    monkeypatch.setattr(demo_robot, "_Asked", Asked)
    assert demo_robot.run_drift(argparse.Namespace(out=tmp_path, json=True), frames) == 0
    figures = json.loads(capsys.readouterr().out)
    assert len(figures) == 4
    whole = figures["all answers"]
    assert whole["error_p95_m"] < 0.2 < whole["odometry_error_p95_m"]
    assert whole["jump_max_m"] < 0.1
    # Lost from 5 s after the 60th, of 64 s, until the 80th.
    assert 0.03 < whole["lost_share"] < 0.06
    assert figures["20 s without from 30 s"]["error_p95_m"] >= whole["error_p95_m"]


def test_only_measured_answers_of_enough_confidence_move_the_transform():
    pose, covariance = Pose.from_yaw(1.0, 2.0, 0.0), np.eye(6)

    def counted(status: Status, confidence: float, is_metric: bool = True) -> Any:
        answer = SimpleNamespace(
            status=status, pose=pose, covariance=covariance, confidence=confidence, is_metric=is_metric
        )
        return demo_robot._counted(answer, 7, MapOdomConfig(tf_min_confidence=0.5))

    assert counted(Status.MATCH, 0.9).is_match
    assert counted(Status.MATCH, 0.4) is None
    assert not counted(Status.AMBIGUOUS, 0.2).is_match
    assert counted(Status.AMBIGUOUS, 0.9, is_metric=False) is None
