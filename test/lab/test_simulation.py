"""The simulated drives, and the score of a replay worked by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effovpr_ros.core.errors import ConfigError, SimulationError
from effovpr_ros.core.images import read_image
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.drive import DriveConfig, plan_drive
from effovpr_ros.lab.simulation.level import FreeFloor
from effovpr_ros.lab.simulation.picture import draw_paths
from effovpr_ros.lab.simulation.recording import disturb, expose
from effovpr_ros.lab.simulation.rendered_places import PlacesConfig, RenderedView, render_places
from effovpr_ros.lab.simulation.score import judge, score

LATENCY = {"extract": 10.0, "total": 20.0}
PLACES = [Pose.from_yaw(float(x), 0.0, 0.0) for x in range(10)]


def record(stamp_ns: int, status: str, x: float | None, yaw: float = 0.0) -> dict[str, Any]:
    pose = None if x is None else [x, 0.0, 0.0, 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)]
    candidates = [] if x is None else [{"pose": pose}]
    return {"stamp_ns": stamp_ns, "status": status, "candidates": candidates, "latency_ms": LATENCY}


def test_score_worked_by_hand():
    truth = [
        (1, Pose.from_yaw(2.0, 0.5, 0.0)),
        (2, Pose.from_yaw(5.0, 0.0, 0.0)),
        (3, Pose.from_yaw(5.0, 0.0, math.pi)),
        (4, Pose.from_yaw(30.0, 0.0, 0.0)),
        (5, Pose.from_yaw(7.0, 0.0, 0.0)),
        (6, Pose.from_yaw(40.0, 0.0, 0.0)),
        (7, Pose.from_yaw(8.0, 0.0, 0.0)),
    ]
    records = [
        record(1, "MATCH", 2.0),  # 0.5 m
        record(2, "MATCH", 9.0),  # 4 m: wrong
        record(3, "NO_MATCH", 5.0),  # no place looks that way: not mapped, not outside
        record(4, "MATCH", 9.0),  # 21 m, outside: wrong, far
        record(5, "AMBIGUOUS", 7.0),  # right all the same
        record(6, "NO_MATCH", None),  # outside
    ]
    answers = judge(records, truth, PLACES)
    assert [answer.mapped for answer in answers] == [True, True, False, False, True, False]
    assert [answer.outside for answer in answers] == [False, False, False, True, False, True]
    result = score(answers, records, len(truth))
    assert (result.frames, result.answered) == (7, 6)
    assert (result.matches, result.ambiguous, result.no_match) == (3, 1, 2)
    assert (result.mapped_frames, result.recall_at_1) == (3, pytest.approx(2 / 3))
    assert (result.wrong_matches, result.far_matches) == (2, 1)
    assert (result.outside_frames, result.false_matches_outside) == (2, 1)
    # Errors of the MATCHes: 0.5, 4 and 21 m.
    assert result.position_error_m == (pytest.approx(4.0), pytest.approx(19.3))
    assert result.latency_ms["total"] == (20.0, 20.0)
    assert "2 (66.7 %)" in result.table()
    assert json.loads(json.dumps(result.to_dict()))["matches"] == 3


def test_an_answer_to_no_image_is_refused():
    with pytest.raises(SimulationError, match="stamp 9 ns"):
        judge([record(9, "MATCH", 1.0)], [(1, PLACES[0])], PLACES)


def test_heading_errors_wrap():
    truth = [(1, Pose.from_yaw(1.0, 0.0, math.pi - 0.1))]
    answer = judge([record(1, "MATCH", 1.0, -math.pi + 0.1)], truth, PLACES)[0]
    assert answer.heading_error_deg == pytest.approx(math.degrees(0.2))


def test_the_picture_is_drawn(tmp_path: Path):
    truth = [(1, PLACES[2]), (2, PLACES[5]), (3, Pose.from_yaw(30.0, 0.0, 0.0))]
    records = [record(1, "MATCH", 2.0), record(2, "MATCH", 9.0), record(3, "NO_MATCH", None)]
    walls = np.array([[[-5.0, -5.0], [35.0, -5.0]]])
    draw_paths(walls, PLACES, judge(records, truth, PLACES), tmp_path / "paths.png")
    image = read_image(tmp_path / "paths.png")
    assert image.shape[0] > 800
    for colour in ((26, 127, 55), (207, 34, 46), (87, 96, 106)):
        assert (np.abs(image.astype(int) - colour).sum(axis=2) < 12).sum() > 20, colour


def corridor() -> FreeFloor:
    """A corridor 20 m long and 4 m wide, with a wall across the middle that leaves a gap at the top."""
    clearance = np.zeros((18, 82), np.float32)
    clearance[1:17, 1:81] = 1.5
    clearance[1:12, 40] = 0.0
    return FreeFloor((0.0, 0.0), clearance)


CONFIG = DriveConfig(speed_mps=1.0, rate_hz=4.0, sway_m=0.0, heading_sway_rad=0.0, start_ns=5, seed=1)


def test_a_drive_keeps_its_speed_and_goes_round_walls():
    poses = plan_drive(corridor(), [(1.0, 1.0), (19.0, 1.0)], CONFIG)
    stamps = [stamp_ns for stamp_ns, _ in poses]
    assert stamps[:3] == [5, 250_000_005, 500_000_005]
    xy = np.array([pose.position_xyz[:2] for _, pose in poses])
    steps = np.hypot(*np.diff(xy, axis=0).T)
    assert steps == pytest.approx(0.25, abs=0.02)
    assert xy[0] == pytest.approx((1.0, 1.0), abs=0.5)
    assert xy[-1] == pytest.approx((19.0, 1.0), abs=0.8)
    assert xy[np.argmin(np.abs(xy[:, 0] - 10.1)), 1] > 2.5
    turns = np.diff([pose.yaw_rad for _, pose in poses])
    assert np.abs(turns).max() <= math.radians(15.0) + 1e-6


def test_a_drive_is_repeatable_and_its_seed_matters():
    def drive(seed: int) -> list[tuple[int, Pose]]:
        config = DriveConfig(1.0, 4.0, sway_m=0.4, heading_sway_rad=0.2, start_ns=0, seed=seed)
        return plan_drive(corridor(), [(1.0, 2.0), (19.0, 2.0)], config)

    assert drive(1) == drive(1)
    assert drive(1) != drive(2)


def test_waypoints_in_a_wall_or_beyond_one_are_refused():
    with pytest.raises(SimulationError, match=r"waypoint \(10\.1, 1\.0\) m is not on"):
        plan_drive(corridor(), [(1.0, 1.0), (10.1, 1.0)], CONFIG)
    closed = corridor()
    closed.clearance_m[:, 40] = 0.0
    with pytest.raises(SimulationError, match="no way leads"):
        plan_drive(closed, [(1.0, 1.0), (19.0, 1.0)], CONFIG)


def test_exposure_brightens_dark_rooms_up_to_a_limit():
    assert expose(np.full((4, 4, 3), 45, np.uint8)).mean() == pytest.approx(90.0, abs=1.0)
    assert expose(np.full((4, 4, 3), 10, np.uint8)).mean() == pytest.approx(30.0, abs=1.0)
    assert expose(np.full((4, 4, 3), 200, np.uint8)).mean() == 200.0


def test_disturbances_change_light_and_put_somebody_in_the_way():
    image = np.full((480, 640, 3), 120, np.uint8)
    bright = disturb(image, 11.0, np.random.default_rng(0)).mean()
    dark = disturb(image, 33.0, np.random.default_rng(0)).mean()
    assert bright > 150.0
    assert dark < 90.0
    person = disturb(image, 51.5, np.random.default_rng(0)).astype(int)
    assert (np.abs(person - (52, 60, 82)).sum(axis=2) == 0).sum() > 10000


def test_the_level_is_where_it_says():
    pytest.importorskip("vizdoom")
    from effovpr_ros.lab.simulation.drive import LEVEL, MAPPING_WAYPOINTS_M, QUERY_WAYPOINTS_M
    from effovpr_ros.lab.simulation.level import Level

    with Level(LEVEL) as level:
        floor = level.free_floor()
        for waypoint in (*MAPPING_WAYPOINTS_M, *QUERY_WAYPOINTS_M):
            assert floor.clearance_m[floor.cell(waypoint)] > 0.0, waypoint
        image, (x, y, yaw) = level.view(20.0, -9.5, 1.0)
        again, _ = level.view(20.0, -9.5, 1.0)
        assert image.shape == (480, 640, 3)
        assert (x, y) == pytest.approx((20.0, -9.5), abs=0.05)
        assert math.remainder(yaw - 1.0, math.tau) == pytest.approx(0.0, abs=0.02)
        assert np.abs(image.astype(int) - again).mean() < 2.0
        away, _ = level.view(20.0, -9.5, 2.5)
        assert np.abs(image.astype(int) - away).mean() > 5.0
        assert level.walls_m().shape[1:] == (2, 2)


def test_places_are_rendered_several_times_from_near_and_again_the_same(tmp_path: Path):
    pytest.importorskip("vizdoom", reason="the simulator is not installed")
    config = PlacesConfig(places_per_level=4, views=3, radius_m=0.8, heading_std_deg=5.0)
    first = render_places(tmp_path / "a", ["MAP21", "E1M1"], config)
    again = render_places(tmp_path / "b", ["E1M1"], config)
    assert again == [row for row in first if row.area == "E1M1"]
    assert len(again) == 3 * len({row.place for row in again}) >= 6
    with (tmp_path / "a" / "frames.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["image"] for row in table] == [row.image for row in first]
    by_place: dict[str, list[RenderedView]] = {}
    for row in again:
        by_place.setdefault(row.place, []).append(row)
    for views in by_place.values():
        # Around one centre, and within some standard deviations of one heading.
        assert all(math.dist((a.x, a.y), (b.x, b.y)) <= 1.7 for a in views for b in views)
        assert all(abs(math.remainder(a.yaw - b.yaw, math.tau)) < math.radians(40.0) for a in views for b in views)
        pictures = [read_image(tmp_path / "a" / view.image) for view in views]
        assert pictures[0].shape == (336, 448, 3)
        assert not np.array_equal(pictures[0], pictures[1])


def test_rendering_refuses_what_cannot_be(tmp_path: Path):
    with pytest.raises(ConfigError, match="0 places of 5 views"):
        PlacesConfig(places_per_level=0)
    with pytest.raises(ConfigError, match="spacing 0"):
        PlacesConfig(spacing_m=0.0)


def test_free_way_ahead_by_hand():
    """A corridor of eight cells of 0.25 m, closed at both ends."""
    clearance = np.zeros((3, 10), np.float32)
    clearance[1, 1:9] = 0.3
    floor = FreeFloor((0.0, 0.0), clearance)
    assert floor.clearance_at_m(0.375, 0.375) == pytest.approx(0.3)
    assert floor.clearance_at_m(0.375, 0.1) == 0.0
    assert floor.clearance_at_m(99.0, -99.0) == 0.0
    # From the middle of cell 1 to the middle of cell 9, which is not free.
    assert floor.free_ahead_m(0.375, 0.375, 0.0) == 2.0
    assert floor.free_ahead_m(0.375, 0.375, math.pi / 2) == 0.25
    assert floor.free_ahead_m(0.375, 0.375, 0.0, limit_m=1.0) == 1.0


def test_depth_of_a_wall_whose_distance_is_known():
    pytest.importorskip("vizdoom")
    from effovpr_ros.lab.simulation.drive import LEVEL
    from effovpr_ros.lab.simulation.level import Level

    with Level(LEVEL, depth=True) as level:
        level.view(27.0, -24.0, 0.0)
        depth = level.depth_m()
    # The wall x = 30 m stands across the view: its depth is 3 m in every column.
    assert depth.shape == (480, 640) and depth[240, 100:500] == pytest.approx(3.0, abs=0.25)
    with Level(LEVEL) as level, pytest.raises(SimulationError, match="depth=True"):
        level.depth_m()
