"""A building to drive through: a level of ViZDoom with its free floor, and a camera that goes where it is put."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose

UNITS_PER_M = 32.0
"""Map units of Doom in a metre: its player is 56 units high."""

IMAGE_SIZE_WH = (640, 480)
HORIZONTAL_FOV_RAD = math.radians(90.0)
FOCAL_XY_PX = (320.0, 384.0)
"""Doom's pixels are 1.2 times as high as wide."""
CAMERA = CameraModel(IMAGE_SIZE_WH, FOCAL_XY_PX, ((IMAGE_SIZE_WH[0] - 1) / 2.0, (IMAGE_SIZE_WH[1] - 1) / 2.0))
EYE_HEIGHT_M = 41.0 / UNITS_PER_M
"""Of the camera above the floor that its player stands on."""
CAMERA_MOUNTING = Pose((0.0, 0.0, EYE_HEIGHT_M), (-0.5, 0.5, -0.5, 0.5))
"""T_body_camera: the camera looks ahead, above the robot's origin on the floor (REP 103)."""

_CELL_M = 0.25
_ROBOT_RADIUS_M = 0.7
_MAX_STEP_UNITS = 24.0
_MIN_HEADROOM_UNITS = 56.0
_FROZEN_TICS = 20
# The 8-bit depth buffer against walls whose distance is known: steps of 0.22 m, standard deviation 0.07 m.
_DEPTH_STEPS_PER_M = 4.48
_DEPTH_OFFSET_STEPS = 1.9


class Level:
    """One level of the free game data that ViZDoom brings, without monsters."""

    def __init__(self, name: str, *, seed: int = 1, depth: bool = False) -> None:
        """Load the level.

        Args:
            name: MAP01 to MAP32 of freedoom2, E1M1 to E4M9 of freedoom1. The engine cannot tell the sectors of some
                large levels and ends with them; `simulation.places` lists those that it can.
            seed: of the game's own randomness.
            depth: whether `depth_m` will be asked for.

        Raises:
            SimulationError: vizdoom is not installed or cannot start.
        """
        try:
            import vizdoom
        except ImportError as error:
            raise SimulationError("the demo needs the simulator: pip install vizdoom") from error
        game: Any = vizdoom.DoomGame()
        data = "freedoom2.wad" if name.startswith("MAP") else "freedoom1.wad"
        game.set_doom_game_path(str(Path(vizdoom.__file__).parent / data))
        game.set_doom_map(name)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_640X480)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_render_hud(False)
        game.set_render_weapon(False)
        game.set_render_crosshair(False)
        game.set_sectors_info_enabled(True)
        game.set_depth_buffer_enabled(depth)
        game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
        variables = vizdoom.GameVariable
        game.set_available_game_variables(
            [variables.POSITION_X, variables.POSITION_Y, variables.ANGLE, variables.CAMERA_POSITION_Z]
        )
        game.add_game_args("+sv_cheats 1 -nomonsters")
        game.set_episode_timeout(0)
        game.set_seed(seed)
        # The engine leaves settings and saved games in its working directory, which shall not be the user's.
        self._scratch = tempfile.TemporaryDirectory(prefix="effovpr_level_")
        working_directory = Path.cwd()
        try:
            os.chdir(self._scratch.name)
            game.init()
        except Exception as error:  # vizdoom has a family of its own without a public base class
            raise SimulationError(f"the simulator cannot start level {name}: {error}") from error
        finally:
            os.chdir(working_directory)
        # The player stands frozen for the first tics.
        game.make_action([0.0], _FROZEN_TICS)
        self._game = game
        state = game.get_state()
        self._sectors = state.sectors
        self._eye_units = float(state.game_variables[3])
        x, y = (float(value) / UNITS_PER_M for value in state.game_variables[:2])
        self.start_xy_m = (x, y)

    def view(self, x_m: float, y_m: float, yaw_rad: float) -> tuple[RgbImage, tuple[float, float, float]]:
        """Put the camera somewhere and look.

        Returns:
            (480, 640, 3) uint8 RGB, and the x [m], y [m] and yaw [rad] that the simulator reports for it.

        Raises:
            SimulationError: the simulator refused the place.
        """
        self._game.send_game_command(f"warp {x_m * UNITS_PER_M:.2f} {y_m * UNITS_PER_M:.2f}")
        current_deg = float(self._game.get_state().game_variables[2])
        # The button turns clockwise.
        turn_deg = math.remainder(math.degrees(yaw_rad) - current_deg, 360.0)
        self._game.make_action([-turn_deg])
        # A warp drops the eyes to the floor for one tic.
        self._game.make_action([0.0])
        state = self._game.get_state()
        if state is None:
            raise SimulationError(f"the simulator ended at ({x_m:.1f}, {y_m:.1f}) m")
        x, y, angle_deg, self._eye_units = (float(value) for value in state.game_variables)
        seen = (x / UNITS_PER_M, y / UNITS_PER_M, math.radians(angle_deg))
        if math.dist(seen[:2], (x_m, y_m)) > 0.5:
            raise SimulationError(
                f"the simulator did not go to ({x_m:.1f}, {y_m:.1f}) m but to ({seen[0]:.1f}, {seen[1]:.1f})"
            )
        return np.array(state.screen_buffer, dtype=np.uint8), seen

    @property
    def floor_z_m(self) -> float:
        """Height of the robot's origin at the last view: the eyes' less `EYE_HEIGHT_M`.

        The eyes sink a little after a step down, so that this may be below the floor for some views.
        """
        return self._eye_units / UNITS_PER_M - EYE_HEIGHT_M

    def depth_m(self) -> NDArray[np.float32]:
        """Depth along the optical axis of the last view.

        Returns:
            (480, 640) float32 metres in steps of 0.22 m; NaN beyond 57 m.

        Raises:
            SimulationError: the level was loaded without depth.
        """
        steps = self._game.get_state().depth_buffer
        if steps is None:
            raise SimulationError("the level has no depth; load it with depth=True")
        metres = (steps.astype(np.float32) + _DEPTH_OFFSET_STEPS) / _DEPTH_STEPS_PER_M
        return np.where(steps < 255, metres, np.nan).astype(np.float32)

    def free_floor(self) -> FreeFloor:
        """The floor that a robot reaches from the level's start without climbing or touching a wall."""
        return _free_floor(self._sectors, self.start_xy_m)

    def walls_m(self) -> NDArray[np.float64]:
        """(N, 2, 2) end points of the solid walls in metres, for drawing."""
        lines = {
            (line.x1, line.y1, line.x2, line.y2)
            for sector in self._sectors
            for line in sector.lines
            if line.is_blocking
        }
        return np.array(sorted(lines)).reshape(-1, 2, 2) / UNITS_PER_M

    def close(self) -> None:
        """End the simulator."""
        self._game.close()
        self._scratch.cleanup()

    def __enter__(self) -> Level:
        """Enter a context that ends the simulator."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class FreeFloor:
    """A grid of the reachable floor.

    Attributes:
        origin_xy_m: of the lower left corner of cell (0, 0).
        clearance_m: (rows, columns) float32, distance of each cell to the next obstacle; 0 where not reachable.
    """

    def __init__(self, origin_xy_m: tuple[float, float], clearance_m: NDArray[np.float32]) -> None:
        """Keep the grid."""
        self.origin_xy_m = origin_xy_m
        self.clearance_m = clearance_m

    def cell(self, xy_m: tuple[float, float]) -> tuple[int, int]:
        """Row and column of a position."""
        return (
            int((xy_m[1] - self.origin_xy_m[1]) / _CELL_M),
            int((xy_m[0] - self.origin_xy_m[0]) / _CELL_M),
        )

    def clearance_at_m(self, x_m: float, y_m: float) -> float:
        """Distance of a position to the next obstacle; 0 where a robot does not get to."""
        row, column = self.cell((x_m, y_m))
        rows, columns = self.clearance_m.shape
        return float(self.clearance_m[row, column]) if 0 <= row < rows and 0 <= column < columns else 0.0

    def free_ahead_m(self, x_m: float, y_m: float, yaw_rad: float, limit_m: float = 12.0) -> float:
        """Way from a position, straight on, to where the reachable floor ends; at most `limit_m`."""
        steps = np.arange(_CELL_M, limit_m + _CELL_M, _CELL_M)
        for way_m in steps.tolist():
            if self.clearance_at_m(x_m + way_m * math.cos(yaw_rad), y_m + way_m * math.sin(yaw_rad)) <= 0.0:
                return float(way_m)
        return limit_m

    def position_m(self, cell: tuple[int, int]) -> tuple[float, float]:
        """Centre of a cell."""
        row, column = cell
        return (self.origin_xy_m[0] + (column + 0.5) * _CELL_M, self.origin_xy_m[1] + (row + 0.5) * _CELL_M)


def _free_floor(sectors: Any, start_xy_m: tuple[float, float]) -> FreeFloor:
    sides: dict[tuple[float, float, float, float], list[tuple[float, float]]] = {}
    blocking: set[tuple[float, float, float, float]] = set()
    for sector in sectors:
        for line in sector.lines:
            key = (line.x1, line.y1, line.x2, line.y2)
            sides.setdefault(key, []).append((sector.floor_height, sector.ceiling_height))
            if line.is_blocking:
                blocking.add(key)
    obstacles = [key for key, beside in sides.items() if key in blocking or not _passable(beside)]
    ends = np.array(list(sides)).reshape(-1, 2, 2) / UNITS_PER_M
    origin = ends.min(axis=(0, 1)) - 1.0
    columns, rows = np.ceil((ends.max(axis=(0, 1)) + 1.0 - origin) / _CELL_M).astype(int)
    grid = np.full((rows, columns), 255, np.uint8)
    for key in obstacles:
        a, b = ((np.array(key).reshape(2, 2) / UNITS_PER_M - origin) / _CELL_M).astype(int).tolist()
        cv2.line(grid, a, b, 0, 1)
    clearance = cv2.distanceTransform(grid, cv2.DIST_L2, 5) * _CELL_M
    passable = (clearance > _ROBOT_RADIUS_M).astype(np.uint8)
    floor = FreeFloor((float(origin[0]), float(origin[1])), clearance)
    row, column = floor.cell(start_xy_m)
    _, labels = cv2.connectedComponents(passable, connectivity=4)
    if labels[row, column] == 0:
        raise SimulationError("the level starts too close to a wall")
    floor.clearance_m = np.where(labels == labels[row, column], clearance, 0.0).astype(np.float32)
    return floor


def _passable(beside: list[tuple[float, float]]) -> bool:
    """Whether a robot rolls over the line between sectors of these (floor, ceiling) heights."""
    if len(beside) < 2:
        return False
    floors, ceilings = zip(*beside, strict=True)
    return bool(max(floors) - min(floors) <= _MAX_STEP_UNITS and min(ceilings) - max(floors) >= _MIN_HEADROOM_UNITS)
