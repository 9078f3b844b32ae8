"""The SLAM demo: what is recorded, what it is held against, and its picture."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import picture

pytest.importorskip("gtsam")
pytest.importorskip("evo")

from effovpr_ros.cli import demo_slam
from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.images import read_image
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.drive import plan_drive
from effovpr_ros.lab.simulation.laps import LAPS_DRIVE, LAPS_LEVEL, LAPS_WAYPOINTS_M
from effovpr_ros.lab.simulation.laps_recording import record_laps
from effovpr_ros.lab.simulation.odometry import DriftingOdometry, OdometryConfig
from effovpr_ros.lab.simulation.pose_graph import ClosureFactor, GraphKeyframe, OptimizedGraph
from effovpr_ros.lab.simulation.recording import CAMERA_INFO_TOPIC, IMAGE_TOPIC, ODOMETRY_TOPIC
from effovpr_ros.lab.simulation.slam_picture import draw_slam
from effovpr_ros.lab.simulation.slam_score import (
    judge_closures,
    read_closures,
    read_keyframes,
    score_slam,
    trajectory_error,
)
from effovpr_ros.sources.bag_files import bag_topics
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.trajectory import read_tum, write_tum

SQUARE = [Pose.from_yaw(x, y, 0.0) for x, y in ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))]
COVARIANCE = np.diag([2.5**2] * 3 + [0.17**2] * 3)


class Street:
    """Stands in for a level: a view for each metre, from where it was asked for, 1 cm beside."""

    floor_z_m = 0.0

    def view(self, x_m: float, y_m: float, yaw_rad: float) -> tuple[NDArray[np.uint8], tuple[float, float, float]]:
        return picture(round(x_m), 64, 48), (x_m, y_m + 0.01, yaw_rad)


def test_the_bag_holds_what_a_robot_knows_and_the_truth_lies_apart(tmp_path: Path):
    poses = [(10**18 + n * 250_000_001, Pose.from_yaw(float(n), 0.0, 0.0)) for n in range(6)]
    config = OdometryConfig(seed=4)
    truth_file = tmp_path / "truth.tum"
    record_laps(Street(), poses, tmp_path / "laps", truth_file, config, disturbed_from=3, seed=1)
    frames = list(BagSource(tmp_path / "laps", image_topic=IMAGE_TOPIC, pose_topic=ODOMETRY_TOPIC).frames())
    assert [frame.stamp_ns for frame in frames] == [stamp_ns for stamp_ns, _ in poses]
    odometry = DriftingOdometry(config)
    for frame, (_, pose) in zip(frames, poses, strict=True):
        assert frame.pose == odometry.advance(pose)
    assert set(bag_topics(tmp_path / "laps")) == {IMAGE_TOPIC, ODOMETRY_TOPIC, CAMERA_INFO_TOPIC, "/tf_static"}
    truth, refused = read_tum(truth_file)
    assert not refused
    for stamp_ns, pose in poses:
        assert truth.at(stamp_ns, 0).position_xyz == pytest.approx((pose.position_xyz[0], 0.01, 0.0))
    # JPEG changes an undisturbed picture little; noise and blur change the rest.
    changes = [float(np.abs(frame.load().astype(int) - picture(n, 64, 48)).mean()) for n, frame in enumerate(frames)]
    assert max(changes[:3]) < 3.8 < min(changes[3:])


def test_a_tum_file_keeps_nanoseconds(tmp_path: Path):
    pose = Pose((1.25, -2.5, 0.125), (0.0, 0.0, 0.6, 0.8))
    write_tum(tmp_path / "t.tum", [(1_700_000_000_123_456_789, pose)])
    assert (tmp_path / "t.tum").read_text().startswith("1700000000.123456789 1.250000000 -2.5")
    assert read_tum(tmp_path / "t.tum")[0].at(1_700_000_000_123_456_789, 0) == pose


def test_the_trajectory_error_worked_by_hand():
    # A tenth too large about its centre, elsewhere and turned: every corner is 0.1 * sqrt(2) off once aligned.
    grown = [Pose.from_yaw(-1.1 * p.position_xyz[1] + 7.0, 1.1 * p.position_xyz[0], math.pi / 2) for p in SQUARE]
    error = trajectory_error(SQUARE, grown)
    assert error.aligned_m == pytest.approx(0.1 * math.sqrt(2.0))
    # From the common first corner the others are 0.2, 0.2 * sqrt(2) and 0.2 m off.
    assert error.from_start_m == pytest.approx(math.sqrt((0.04 + 0.08 + 0.04) / 4.0))


def test_trajectories_that_cannot_be_compared_are_refused():
    with pytest.raises(SimulationError, match="3 poses cannot be held against 4 true ones"):
        trajectory_error(SQUARE, SQUARE[:3])
    straight = [Pose.from_yaw(float(x), 0.0, 0.0) for x in range(4)]
    with pytest.raises(SimulationError, match="4 poses on one line cannot be aligned"):
        trajectory_error(straight, straight)


def closure(query_id: int, match_id: int, relative: Pose, *, is_metric: bool = False) -> ClosureFactor:
    return ClosureFactor(query_id, match_id, relative, COVARIANCE, 0.9, is_metric)


def test_closures_are_judged_by_hand():
    # The match looks north from (10, 0); the queries stand 3 m ahead of it, 6 m ahead, and 1 m ahead turned by 60 deg.
    truth = [Pose.from_yaw(10.0, y, yaw) for y, yaw in ((0.0, math.pi / 2), (3.0, math.pi / 2), (6.0, math.pi / 2))]
    truth.append(Pose.from_yaw(10.0, 1.0, math.pi / 2 + math.radians(60.0)))
    keyframes = [GraphKeyframe(100 + n, n, pose) for n, pose in enumerate(truth)]
    here, turned = Pose.from_yaw(0.0, 0.0, 0.0), Pose.from_yaw(0.0, 0.0, math.radians(50.0))
    closures = [
        closure(101, 100, here),
        closure(102, 100, here),
        closure(103, 100, here),
        closure(103, 100, turned),
        closure(102, 100, Pose.from_yaw(6.0, 0.5, 0.0), is_metric=True),
    ]
    judged = judge_closures(keyframes, closures, [True, True, False, True, True], truth)
    assert [(item.match, item.query) for item in judged] == [(0, 1), (0, 2), (0, 3), (0, 3), (0, 2)]
    assert [item.distance_m for item in judged] == pytest.approx([3.0, 6.0, 1.0, 1.0, 0.5])
    assert [item.heading_error_deg for item in judged] == pytest.approx([0.0, 0.0, 60.0, 10.0, 0.0], abs=1e-6)
    assert [item.right for item in judged] == [True, False, False, True, True]


def test_the_score_counts_wrong_and_rejected_closures():
    keyframes = [GraphKeyframe(n, n, pose) for n, pose in enumerate(SQUARE)]
    here = Pose.from_yaw(0.0, 0.0, 0.0)
    truth = [Pose.from_yaw(10.0 * p.position_xyz[0], 10.0 * p.position_xyz[1], 0.0) for p in SQUARE]
    # Sides of 20 m: every closure is wrong but for the one that is metric and says so.
    closures = [closure(1, 0, here), closure(2, 0, here), closure(1, 0, Pose.from_yaw(20.0, 0.0, 0.0), is_metric=True)]
    optimized = OptimizedGraph(tuple(truth), (1.0, 0.0, 1.0))
    result = score_slam(keyframes, optimized, judge_closures(keyframes, closures, optimized.accepted, truth), truth)
    assert (result.keyframes, result.distance_m) == (4, pytest.approx(60.0))
    assert (result.closures, result.wrong_closures, result.rejected_closures, result.wrong_accepted) == (3, 2, 1, 1)
    assert (result.ate_before_m, result.ate_after_m) == (pytest.approx(9.0 * math.sqrt(2.0)), pytest.approx(0.0))
    assert "12.73 m, 0.00 m" in result.table()
    values = json.loads(json.dumps(result.to_dict()))
    assert {"ate_before_m", "ate_after_m", "closures", "wrong_closures"} <= set(values)
    lonely = score_slam(keyframes, OptimizedGraph(tuple(truth), ()), [], truth)
    assert lonely.to_dict()["closure_distance_m"] == [None, None]


def recorded(folder: Path) -> list[Pose]:
    """A drive round a square of 10 m that closes, as the recorder leaves it; returns its true poses."""
    corners = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0), (0.0, 0.0)]
    truth = [Pose.from_yaw(x, y, math.pi / 2 * n) for n, (x, y) in enumerate(corners)]
    odometry = DriftingOdometry(OdometryConfig(yaw_bias_rad_per_m=0.005))
    listed = [odometry.advance(pose) for pose in truth]
    keyframes = [
        {"keyframe_id": n, "stamp_ns": 10**18 + n, "odom_pose": [*pose.position_xyz, *pose.quat_xyzw]}
        for n, pose in enumerate(listed)
    ]
    loop = {"query_id": 4, "match_id": 0, "confidence": 0.95, "is_metric": False}
    loop |= {"relative_pose": [0, 0, 0, 0, 0, 0, 1], "covariance": COVARIANCE.ravel().tolist()}
    for name, records in (("keyframes", keyframes), ("closures", [loop])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_tum(folder / "truth.tum", [(10**18 + n, pose) for n, pose in enumerate(truth)])
    return truth


def test_records_are_read_back(tmp_path: Path):
    recorded(tmp_path)
    assert [keyframe.stamp_ns for keyframe in read_keyframes(tmp_path / "keyframes.jsonl")] == [
        10**18 + n for n in range(5)
    ]
    (read,) = read_closures(tmp_path / "closures.jsonl")
    assert (read.query_id, read.match_id, read.confidence, read.is_metric) == (4, 0, 0.95, False)
    assert read.covariance.tolist() == COVARIANCE.tolist()
    with pytest.raises(SimulationError, match=r"gone\.jsonl cannot be read: .*replay the drive again"):
        read_closures(tmp_path / "gone.jsonl")
    (tmp_path / "blind.jsonl").write_text('{"keyframe_id": 3, "stamp_ns": 1, "odom_pose": null}\n')
    with pytest.raises(SimulationError, match=r"keyframe 3 in .*blind\.jsonl has no odometry pose"):
        read_keyframes(tmp_path / "blind.jsonl")


def test_the_picture_shows_paths_and_every_kind_of_closure(tmp_path: Path):
    truth = recorded(tmp_path)
    keyframes = [GraphKeyframe(n, n, pose) for n, pose in enumerate(truth)]
    closures = [closure(4, 0, truth[0]), closure(1, 0, truth[0]), closure(2, 0, truth[0])]
    # The turn of the last keyframe is a full one; the others are 90 and 180 degrees and 10 m and more away.
    judged = judge_closures(keyframes, closures, [True, True, False], truth)
    score = score_slam(keyframes, OptimizedGraph(tuple(truth), (1.0, 1.0, 0.0)), judged, truth)
    walls = np.array([[[-5.0, -5.0], [15.0, -5.0]]])
    draw_slam(walls, truth, truth, truth, judged, score, tmp_path / "slam.png")
    image = read_image(tmp_path / "slam.png").astype(int)
    assert image.shape[0] > 700
    for colour in ((188, 76, 0), (9, 105, 218), (26, 127, 55), (191, 135, 0), (207, 34, 46)):
        assert (np.abs(image - colour).sum(axis=2) < 30).sum() > 15, colour


def test_the_report_of_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("vizdoom")
    recorded(tmp_path)
    demo_slam._report(tmp_path, argparse.Namespace(json=True))
    result = json.loads(capsys.readouterr().out)
    assert (result["closures"], result["wrong_closures"], result["wrong_accepted"]) == (1, 0, 0)
    assert result["ate_after_m"] < result["ate_before_m"]
    assert json.loads((tmp_path / "slam.json").read_text()) == result
    assert (tmp_path / "slam.png").is_file()
    assert len((tmp_path / "optimized.tum").read_text().splitlines()) == 5


def test_the_laps_come_back_to_where_they_were():
    pytest.importorskip("vizdoom")
    from effovpr_ros.lab.simulation.level import Level

    with Level(LAPS_LEVEL) as level:
        floor = level.free_floor()
        poses = plan_drive(floor, LAPS_WAYPOINTS_M, LAPS_DRIVE)
    assert 300 < len(poses) < 1000
    half = len(poses) // 2
    first, second = (np.array([pose.position_xyz[:2] for _, pose in part]) for part in (poses[:half], poses[half:]))
    apart = np.linalg.norm(second[:, None] - first[None], axis=2).min(axis=1)
    assert np.percentile(apart, 95) < 1.0
    assert all(floor.clearance_m[floor.cell(waypoint)] > 0.0 for waypoint in LAPS_WAYPOINTS_M)
