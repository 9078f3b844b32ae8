"""Places of many buildings, each seen several times: images to train and validate on, with exact poses."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError, SimulationError
from effovpr_ros.lab.simulation.level import FreeFloor, Level
from effovpr_ros.lab.simulation.recording import expose

# fmt: off
LEVELS = (
    "E1M1", "E1M2", "E1M3", "E1M7", "E1M8", "E1M9", "E2M1", "E2M2", "E2M3", "E2M4", "E2M5", "E2M6", "E2M7", "E2M8",
    "E3M1", "E3M2", "E3M4", "E3M5", "E3M6", "E3M8", "E4M1", "E4M2", "E4M3", "E4M4", "E4M5", "E4M7", "E4M8", "MAP01",
    "MAP02", "MAP05", "MAP06", "MAP07", "MAP10", "MAP11", "MAP13", "MAP16", "MAP17", "MAP18", "MAP19", "MAP21",
    "MAP24", "MAP25", "MAP30", "MAP32",
)
"""Levels with room to drive in whose sectors the engine can tell."""
# fmt: on

TABLE_NAME = "frames.csv"

_STORED_SIZE_WH = (448, 336)
_JPEG_QUALITY = 92
_HEADINGS_TRIED = 12
_OPEN_HEADINGS = 4
_MIN_AHEAD_OF_PLACE_M = 3.0
_MIN_AHEAD_OF_VIEW_M = 2.0
_TRIES_PER_VIEW = 6


@dataclass(frozen=True)
class PlacesConfig:
    """What is rendered.

    Attributes:
        places_per_level: at most so many, spread over the reachable floor.
        views: of each place.
        spacing_m: least distance between two places.
        radius_m: the views of a place lie around its centre.
        heading_std_deg: and look about its heading.
        seed: of everything that is drawn; each level draws for itself.
    """

    places_per_level: int = 40
    views: int = 5
    spacing_m: float = 2.5
    radius_m: float = 1.2
    heading_std_deg: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.places_per_level < 1 or self.views < 2:
            raise ConfigError(
                f"{self.places_per_level} places of {self.views} views: wanted 1 place and 2 views at least"
            )
        if not (self.spacing_m > 0.0 and self.radius_m >= 0.0 and self.heading_std_deg >= 0.0):
            raise ConfigError(
                f"spacing {self.spacing_m} m must be positive, radius {self.radius_m} m and heading spread "
                f"{self.heading_std_deg} degrees not negative"
            )


@dataclass(frozen=True)
class RenderedView:
    """One row of the table: an image, the place that it shows, and the pose of its camera [m, rad].

    `area` is the level, within which poses compare. Places are called clips too, as the images of each are one.
    """

    image: str
    area: str
    place: str
    clip: str
    frame: int
    x: float
    y: float
    yaw: float


def render_places(
    folder: Path, levels: Sequence[str], config: PlacesConfig, progress: Callable[[int], object] | None = None
) -> list[RenderedView]:
    """Render places of each level into a folder of images with a table `frames.csv`.

    Each level's floor is sampled evenly; a place looks where the floor is open. Its views differ by position and
    heading, as second visits do. The column `place` of the table names it.

    Args:
        folder: to make; images of the same names are replaced.
        levels: names, see `LEVELS`.
        config: how much.
        progress: called with 1 for each level.

    Raises:
        SimulationError: vizdoom is not installed, a level does not start, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[RenderedView] = []
    for name in levels:
        with Level(name) as level:
            rows += _render_level(folder, name, level, config)
        if progress:
            progress(1)
    with (folder / TABLE_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(RenderedView)])
        writer.writerows(astuple(row) for row in rows)
    return rows


def _render_level(folder: Path, name: str, level: Level, config: PlacesConfig) -> list[RenderedView]:
    generator = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
    floor = level.free_floor()
    rows: list[RenderedView] = []
    for number, (x, y) in enumerate(_spread_out(floor, config, generator)):
        headings = generator.uniform(-math.pi, math.pi, _HEADINGS_TRIED)
        by_view = sorted(headings.tolist(), key=lambda yaw: -floor.free_ahead_m(x, y, yaw))
        heading = by_view[int(generator.integers(_OPEN_HEADINGS))]
        if floor.free_ahead_m(x, y, heading) < _MIN_AHEAD_OF_PLACE_M:
            continue
        place = f"{name}_{number:03d}"
        views = _render_views(folder, place, level, floor, (x, y, heading), config, generator)
        # A place seen once teaches nothing.
        if len(views) >= 2:
            rows += [RenderedView(image, name, place, place, frame, *pose) for frame, (image, pose) in enumerate(views)]
    return rows


def _spread_out(floor: FreeFloor, config: PlacesConfig, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Positions that are each the farthest from those before, down to the spacing."""
    cells = np.argwhere(floor.clearance_m > 0.0)
    positions = np.array([floor.position_m((row, column)) for row, column in generator.permutation(cells)])
    chosen: list[NDArray[np.float64]] = [positions[0]]
    distance_m = np.linalg.norm(positions - positions[0], axis=1)
    while len(chosen) < config.places_per_level and distance_m.max() >= config.spacing_m:
        chosen.append(positions[distance_m.argmax()])
        distance_m = np.minimum(distance_m, np.linalg.norm(positions - chosen[-1], axis=1))
    return [(float(x), float(y)) for x, y in chosen]


def _render_views(
    folder: Path,
    place: str,
    level: Level,
    floor: FreeFloor,
    pose: tuple[float, float, float],
    config: PlacesConfig,
    generator: np.random.Generator,
) -> list[tuple[str, tuple[float, float, float]]]:
    """File name and camera pose of each view about a pose (x, y, yaw)."""
    views: list[tuple[str, tuple[float, float, float]]] = []
    for _ in range(_TRIES_PER_VIEW * config.views):
        if len(views) == config.views:
            break
        away_m, around = config.radius_m * math.sqrt(generator.uniform()), generator.uniform(0.0, math.tau)
        x, y = pose[0] + away_m * math.cos(around), pose[1] + away_m * math.sin(around)
        yaw = pose[2] + math.radians(config.heading_std_deg) * float(generator.normal())
        if floor.clearance_at_m(x, y) <= 0.0 or floor.free_ahead_m(x, y, yaw) < _MIN_AHEAD_OF_VIEW_M:
            continue
        try:
            image, seen = level.view(x, y, yaw)
        except SimulationError:
            # Something solid stands there that no wall line tells of.
            continue
        name = f"{place}_{len(views)}.jpg"
        stored = cv2.cvtColor(
            cv2.resize(expose(image), _STORED_SIZE_WH, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR
        )
        if not cv2.imwrite(str(folder / name), stored, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
            raise SimulationError(f"{folder / name} cannot be written; free some space or choose another folder")
        views.append((name, (round(seen[0], 3), round(seen[1], 3), round(seen[2], 4))))
    return views
