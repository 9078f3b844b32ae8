"""A robot that was carried to another place of the building and turns on the spot until it knows where it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.figures import draw_lines, new_figure
from effovpr_ros.lab.simulation.level import FreeFloor, Level
from effovpr_ros.lab.simulation.recording import disturb, expose
from effovpr_ros.lab.simulation.score import RIGHT_WITHIN_DEG, RIGHT_WITHIN_M
from effovpr_ros.recognition.answer import Recognition
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.relocalization import Relocalization, RelocalizationConfig, brought_to
from effovpr_ros.recognition.sightings import Sighting

TURN_STEP_RAD = math.radians(15.0)
TURN_RAD_S = math.radians(60.0)
# Wheels that turn on the spot slip a little.
_TURN_SCALE = 1.01


@dataclass(frozen=True)
class Found:
    """How it ended at one place.

    Attributes:
        truth: where the robot was put.
        pose: that it is sure of, brought back to the first heading; None where it never was.
        num_images: that it looked at.
        seconds: that it took, turning and answering.
        error_m: horizontal; infinite without a pose.
        error_deg: of the heading; 180 without a pose.
    """

    truth: Pose
    pose: Pose | None
    num_images: int
    seconds: float
    error_m: float = math.inf
    error_deg: float = 180.0

    @property
    def is_right(self) -> bool:
        """Within 1.5 m and 30 degrees of the truth."""
        return self.error_m <= RIGHT_WITHIN_M and self.error_deg <= RIGHT_WITHIN_DEG

    @property
    def is_wrong(self) -> bool:
        """Sure of another place."""
        return self.pose is not None and not self.is_right


def random_poses(floor: FreeFloor, places: Sequence[Pose], count: int, *, seed: int, within_m: float) -> list[Pose]:
    """Places and headings on the free floor, not farther from a mapped one than a distance.

    Raises:
        SimulationError: there is no such floor.
    """
    generator = np.random.default_rng(seed)
    mapped = np.array([place.position_xyz[:2] for place in places])
    cells = np.argwhere(floor.clearance_m > 0.0)
    xy = np.array([floor.position_m((int(row), int(column))) for row, column in cells])
    near = [point for point in xy if np.hypot(*(mapped - point).T).min() <= within_m]
    if len(near) < count:
        raise SimulationError(f"the floor has {len(near)} spots within {within_m} m of the map, {count} are wanted")
    chosen = generator.choice(len(near), count, replace=False)
    return [
        Pose.from_yaw(float(near[index][0]), float(near[index][1]), generator.uniform(-math.pi, math.pi))
        for index in chosen
    ]


def turn_until_sure(
    level: Level,
    pose: Pose,
    recognize: Callable[[RgbImage], tuple[Recognition, float]],
    config: RelocalizationConfig,
    generator: np.random.Generator,
) -> Found:
    """Put the robot somewhere and let it turn on the spot, at most once around.

    Args:
        level: the building.
        pose: where it is put.
        recognize: answers an image, and says how many seconds that took.
        config: of the asking.
        generator: of what disturbs the pictures.
    """
    asking, seconds = Relocalization(config), 0.0
    x, y, _ = pose.position_xyz
    true = pose
    for step in range(math.ceil(math.tau / TURN_STEP_RAD)):
        image, (x_seen, y_seen, yaw) = level.view(x, y, pose.known_yaw_rad + step * TURN_STEP_RAD)
        true = Pose.from_yaw(x_seen, y_seen, yaw) if step == 0 else true
        answer, took_s = recognize(disturb(expose(image), 10.0 * generator.random(), generator))
        seconds += max(took_s, TURN_STEP_RAD / TURN_RAD_S if step else 0.0)
        odometry = Pose.from_yaw(0.0, 0.0, step * TURN_STEP_RAD * _TURN_SCALE)
        asking.add(odometry, sighting_of(answer, step, odometry))
        if asking.is_sure and asking.answer is not None:
            found = brought_to(asking.answer, Pose.from_yaw(0.0, 0.0, 0.0))
            error_m = math.dist(found.position_xyz[:2], true.position_xyz[:2])
            error_deg = abs(math.degrees(math.remainder(found.known_yaw_rad - true.known_yaw_rad, math.tau)))
            return Found(true, found, asking.num_images, seconds, error_m, error_deg)
    return Found(true, None, asking.num_images, seconds)


def sighting_of(answer: Recognition, step: int, odometry: Pose) -> Sighting | None:
    """What an answer while turning tells; None where it has no pose with a heading."""
    if answer.pose is None or answer.covariance is None or answer.pose.quat_xyzw is None:
        return None
    is_match = answer.status is Status.MATCH
    return Sighting(step, answer.pose, answer.covariance, answer.confidence, odometry, is_match, answer.is_metric)


def draw_found(walls_m: NDArray[np.float64], places: Sequence[Pose], found: Sequence[Found], path: Path) -> None:
    """Draw the building, the map, where the robot was put and where it found itself.

    Args:
        walls_m: (N, 2, 2) end points.
        places: poses of the map's places.
        found: of each place.
        path: PNG file to write.

    Raises:
        SimulationError: matplotlib is not installed.
    """
    figure = new_figure(10.0, 10.0)
    axes = figure.add_subplot()
    draw_lines(axes, walls_m, "#c8ccd1", 0.8)
    mapped = np.array([place.position_xyz[:2] for place in places])
    axes.plot(*mapped.T, ".", color="#9ecbff", markersize=7.0, label="places of the map")
    groups = (
        ("found", "#1a7f37", [item for item in found if item.is_right]),
        ("sure of a wrong place", "#cf222e", [item for item in found if item.is_wrong]),
        ("never sure", "#bf8700", [item for item in found if item.pose is None]),
    )
    for label, colour, members in groups:
        at = np.array([item.truth.position_xyz[:2] for item in members]).reshape(-1, 2)
        yaw = np.array([item.truth.known_yaw_rad for item in members])
        name = f"{label} ({len(members)})"
        axes.quiver(*at.T, np.cos(yaw), np.sin(yaw), color=colour, width=0.004, scale=28.0, label=name, zorder=4)
        joins = [(item.truth.position_xyz[:2], item.pose.position_xyz[:2]) for item in members if item.pose]
        draw_lines(axes, joins, colour, 1.5, zorder=3)
    (west, south), (east, north) = mapped.min(axis=0) - 4.0, mapped.max(axis=0) + 4.0
    axes.set(xlim=(west, east), ylim=(south, north), aspect="equal", xlabel="x, east [m]", ylabel="y, north [m]")
    axes.set_title("Arrows: where the robot was put and looked at first. Lines lead to where it found itself.")
    axes.legend(loc="upper left", framealpha=0.95)
    figure.savefig(path, dpi=110)
