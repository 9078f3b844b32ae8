"""Two drives of one robot through one building: where it is at each moment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

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
    """Positions of the cells along the shortest ways between waypoints."""
    shape = floor.clearance_m.shape
    cells = [floor.cell(waypoint) for waypoint in waypoints_m]
    for cell, waypoint in zip(cells, waypoints_m, strict=True):
        if not floor.clearance_m[cell] > 0.0:
            raise SimulationError(f"waypoint {waypoint} m is not on the reachable floor")
    starts = sorted({int(np.ravel_multi_index(cell, shape)) for cell in cells[:-1]})
    _, before = dijkstra(_steps_between_cells(floor.clearance_m), indices=starts, return_predecessors=True)
    path = [cells[0]]
    for start, goal in pairwise(cells):
        first, way = int(np.ravel_multi_index(start, shape)), [int(np.ravel_multi_index(goal, shape))]
        while way[-1] != first:
            way.append(int(before[starts.index(first), way[-1]]))
            if way[-1] < 0:
                raise SimulationError(f"no way leads from cell {start} to {goal}")
        path += [(int(row), int(column)) for row, column in zip(*np.unravel_index(way[-2::-1], shape), strict=True)]
    return np.array([floor.position_m(cell) for cell in path])


def _steps_between_cells(clearance_m: NDArray[np.float32]) -> csr_array:
    """Cost of each step to one of eight neighbours; being near a wall costs extra, so that ways keep to the middle."""
    rows, columns = np.nonzero(clearance_m > 0.0)
    origins, targets, costs = [], [], []
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        row, column = rows + down, columns + right
        clearance = clearance_m[row, column].astype(np.float64)
        free = (clearance > 0.0) & bool(down or right)
        origins.append(np.ravel_multi_index((rows[free], columns[free]), clearance_m.shape))
        targets.append(np.ravel_multi_index((row[free], column[free]), clearance_m.shape))
        costs.append(math.hypot(down, right) * (1.0 + 2.0 / clearance[free] ** 2))
    size = clearance_m.size
    entries = (np.concatenate(costs), (np.concatenate(origins), np.concatenate(targets)))
    return csr_array(entries, shape=(size, size))


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
