#!/usr/bin/env python3
"""Render the photographs of `effovpr demo photos`: places of one building, second views of some, and of another one.

    scripts/render_demo_photos.py effovpr_ros/lab/demo_photos

The levels are those of Freedoom, which ViZDoom brings (BSD; see NOTICE).
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import cv2
import numpy as np

from effovpr_ros.core.images import RgbImage
from effovpr_ros.lab.simulation.level import FreeFloor, Level
from effovpr_ros.lab.simulation.recording import disturb, expose

MAPPED, ELSEWHERE = "MAP02", "MAP13"
PLACES, AGAIN, STRANGE = 16, 5, 2
SPACING_M, OPEN_M = 5.0, 4.0
SIZE_WH, QUALITY = (400, 300), 68
Viewpoint = tuple[float, float, float]
"""x, y [m], yaw [rad]."""
View = tuple[str, RgbImage, Viewpoint | None]
"""File name, picture, and the camera's pose where it is in the frame of the map."""


def viewpoints(floor: FreeFloor, generator: np.random.Generator, count: int) -> list[Viewpoint]:
    """Positions spread over the floor, each looking where it is open."""
    cells = generator.permutation(np.argwhere(floor.clearance_m > 0.8))
    chosen: list[Viewpoint] = []
    for row, column in cells:
        x, y = floor.position_m((int(row), int(column)))
        if any(math.dist((x, y), other[:2]) < SPACING_M for other in chosen):
            continue
        yaws = np.arange(16) * math.tau / 16
        ahead = [floor.free_ahead_m(x, y, yaw) for yaw in yaws]
        if max(ahead) >= OPEN_M:
            chosen.append((x, y, float(yaws[int(np.argmax(ahead))])))
        if len(chosen) == count:
            break
    # In the order of a walk: each is the nearest of those that are left.
    walk = [chosen.pop(0)]
    while chosen:
        walk.append(chosen.pop(int(np.argmin([math.dist(walk[-1][:2], other[:2]) for other in chosen]))))
    return walk


def write(folder: Path, rows: list[View]) -> None:
    """Pictures and their poses as `map build` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "poses.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "x", "y", "z", "qx", "qy", "qz", "qw"])
        for name, image, pose in rows:
            small = cv2.resize(image, SIZE_WH, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / name), cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            if pose is None:
                continue
            x, y, yaw = pose
            turn = (round(math.sin(yaw / 2), 5), round(math.cos(yaw / 2), 5))
            table.writerow([name, round(x, 3), round(y, 3), 0, 0, 0, *turn])


def main(out: Path) -> None:
    """Render both sets."""
    generator = np.random.default_rng(7)
    mapped: list[View] = []
    asked: list[View] = []
    with Level(MAPPED) as level:
        floor = level.free_floor()
        points = viewpoints(floor, generator, PLACES)
        for number, point in enumerate(points):
            image, seen = level.view(*point)
            mapped.append((f"place_{number:02d}.jpg", expose(image), seen))
        for number in range(AGAIN):
            x, y, yaw = points[number * PLACES // AGAIN + 1]
            for _ in range(50):
                away, around = generator.uniform(0.5, 1.0), generator.uniform(0.0, math.tau)
                again = (x + away * math.cos(around), y + away * math.sin(around))
                if floor.clearance_at_m(*again) > 0.0:
                    break
            image, seen = level.view(*again, yaw + math.radians(generator.uniform(-12.0, 12.0)))
            asked.append((f"again_{number}.jpg", disturb(expose(image), 5.0 * number, generator), seen))
    with Level(ELSEWHERE) as level:
        for number, point in enumerate(viewpoints(level.free_floor(), generator, STRANGE)):
            asked.append((f"elsewhere_{number}.jpg", expose(level.view(*point)[0]), None))
    write(out / "map", mapped)
    write(out / "queries", asked)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
