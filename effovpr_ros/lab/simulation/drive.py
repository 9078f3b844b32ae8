"""Two drives of one robot through one building: where it is at each moment."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.level import FreeFloor

LEVEL = "MAP02"
# fmt: off
MAPPING_WAYPOINTS_M = (
    (20.0, -18.0), (20.0, -9.5), (20.0, -0.7), (-8.0, -0.9), (-6.8, -11.0), (-8.0, -0.9),
    (25.5, -3.0), (26.0, 4.6), (9.5, 5.0), (26.0, 4.6), (20.0, -0.7), (20.0, -18.0),
    (27.0, -24.0), (27.0, -27.5), (18.0, -27.0), (9.7, -21.5), (8.8, -9.8),
)
"""North wing, hall, west room and the small rooms: what the first drive maps."""
QUERY_WAYPOINTS_M = (
    (20.0, -9.5), (20.0, -0.7), (-8.0, -0.9), (-6.8, -11.0), (-8.0, -0.9), (20.0, -0.7),
    (20.0, -18.0), (27.0, -24.0), (27.0, -27.5), (37.0, -27.5), (27.5, -28.5), (27.5, -43.0), (27.5, -28.5),
    (18.0, -27.0), (9.7, -21.5), (8.8, -9.8),
)
"""The same rooms on other paths, and the east and south wings, which the first drive never entered."""
# fmt: on

_HEADING_LOOKAHEAD_M = 1.2
_MAX_TURN_RATE = math.radians(60.0)
_WALL_MARGIN_M = 0.5


@dataclass(frozen=True)
class DriveConfig:
    """How a drive is driven.

    Attributes:
        speed_mps: along the path.
        rate_hz: of the camera.
        sway_m: how far the robot leaves the middle of its path, where there is room.
        heading_sway_rad: how far it looks aside.
        start_ns: stamp of the first frame.
        seed: of the sway.
    """

    speed_mps: float
    rate_hz: float
    sway_m: float
    heading_sway_rad: float
    start_ns: int
    seed: int


MAPPING_DRIVE = DriveConfig(
    speed_mps=1.5, rate_hz=4.0, sway_m=0.0, heading_sway_rad=0.0, start_ns=1_700_000_000 * 10**9, seed=1
)
QUERY_DRIVE = DriveConfig(
    speed_mps=1.5,
    rate_hz=2.5,
    sway_m=0.5,
    heading_sway_rad=math.radians(12.0),
    start_ns=1_700_086_400 * 10**9,
    seed=2,
)


def plan_drive(
    floor: FreeFloor, waypoints_m: Sequence[tuple[float, float]], config: DriveConfig
) -> list[tuple[int, Pose]]:
    """Stamps [ns] and poses of the camera along a smooth path through waypoints.

    Raises:
        SimulationError: a waypoint is not on the reachable floor.
    """
    path = _resample(_smooth(_path_through(floor, waypoints_m)), config.speed_mps / config.rate_hz)
    generator = np.random.default_rng(config.seed)
    side = _slow_noise(generator, len(path)) * config.sway_m
    aside = _slow_noise(generator, len(path)) * config.heading_sway_rad
    ahead = max(1, round(_HEADING_LOOKAHEAD_M * config.rate_hz / config.speed_mps))
    max_turn = _MAX_TURN_RATE / config.rate_hz
    poses: list[tuple[int, Pose]] = []
    yaw = math.atan2(*(path[min(ahead, len(path) - 1)] - path[0])[::-1])
    for index, position in enumerate(path):
        target = path[min(index + ahead, len(path) - 1)] - position
        if np.hypot(*target) > 1e-6:
            wanted = math.atan2(target[1], target[0])
            yaw += float(np.clip(math.remainder(wanted - yaw, math.tau), -max_turn, max_turn))
        row, column = floor.cell((position[0], position[1]))
        room = max(0.0, float(floor.clearance_m[row, column]) - _WALL_MARGIN_M)
        offset = float(np.clip(side[index], -room, room))
        x, y = position + offset * np.array([-math.sin(yaw), math.cos(yaw)])
        stamp_ns = config.start_ns + round(index / config.rate_hz * 1e9)
        poses.append((stamp_ns, Pose.from_yaw(float(x), float(y), yaw + float(aside[index]))))
    return poses


def _path_through(floor: FreeFloor, waypoints_m: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    cells = [floor.cell(waypoint) for waypoint in waypoints_m]
    for cell, waypoint in zip(cells, waypoints_m, strict=True):
        if not floor.clearance_m[cell] > 0.0:
            raise SimulationError(f"waypoint {waypoint} m is not on the reachable floor")
    path = [cells[0]]
    for start, goal in pairwise(cells):
        path += _shortest_path(floor, start, goal)[1:]
    return np.array([floor.position_m(cell) for cell in path])


def _shortest_path(floor: FreeFloor, start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
    """Dijkstra on the grid of cells; being near a wall costs extra, so that paths keep to the middle."""
    steps = [(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]
    cost = {start: 0.0}
    before: dict[tuple[int, int], tuple[int, int]] = {}
    queue = [(0.0, start)]
    while queue:
        reached, cell = heapq.heappop(queue)
        if cell == goal:
            break
        if reached > cost[cell]:
            continue
        for dr, dc in steps:
            neighbour = (cell[0] + dr, cell[1] + dc)
            clearance = float(floor.clearance_m[neighbour])
            if clearance <= 0.0:
                continue
            total = reached + math.hypot(dr, dc) * (1.0 + 2.0 / clearance**2)
            if total < cost.get(neighbour, math.inf):
                cost[neighbour], before[neighbour] = total, cell
                heapq.heappush(queue, (total, neighbour))
    if goal not in cost:
        raise SimulationError(f"no way leads from cell {start} to {goal}")
    path = [goal]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


def _smooth(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average over some two metres, which pulls the ends in by half a metre."""
    width = 5
    padded = np.concatenate([np.repeat(path[:1], width, 0), path, np.repeat(path[-1:], width, 0)])
    kernel = np.full(2 * width + 1, 1.0 / (2 * width + 1))
    return np.stack([np.convolve(padded[:, axis], kernel, mode="valid") for axis in (0, 1)], axis=1)


def _resample(path: NDArray[np.float64], step_m: float) -> NDArray[np.float64]:
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    wanted = np.arange(0.0, travelled[-1], step_m)
    return np.stack([np.interp(wanted, travelled, path[:, axis]) for axis in (0, 1)], axis=1)


def _slow_noise(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """A smooth random curve in [-1, 1] that changes over some ten frames."""
    knots = generator.uniform(-1.0, 1.0, count // 12 + 2)
    return np.interp(np.arange(count) / 12.0, np.arange(len(knots)), knots)
