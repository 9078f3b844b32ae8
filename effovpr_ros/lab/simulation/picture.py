"""Picture of a replay: both drives from above, and what the node answered along the second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.figures import draw_lines, new_figure
from effovpr_ros.lab.simulation.score import OUTSIDE_BEYOND_M, RIGHT_WITHIN_DEG, RIGHT_WITHIN_M, Answer

_RIGHT, _WRONG, _AMBIGUOUS, _NO_MATCH = "#1a7f37", "#cf222e", "#bf8700", "#57606a"


def draw_paths(walls_m: NDArray[np.float64], places: Sequence[Pose], answers: Sequence[Answer], path: Path) -> None:
    """Draw the building, the mapped places and every answer, joined to the place it names where it is a MATCH.

    Args:
        walls_m: (N, 2, 2) end points.
        places: poses of the map's places.
        answers: in the order of the drive.
        path: PNG file to write.

    Raises:
        SimulationError: matplotlib is not installed.
    """
    figure = new_figure(11.0, 11.0)
    axes = figure.add_subplot()
    draw_lines(axes, walls_m, "#c8ccd1", 0.8)
    mapped = np.array([place.position_xyz[:2] for place in places]).reshape(-1, 2)
    axes.plot(*mapped.T, "-", color="#9ecbff", linewidth=7.0, solid_capstyle="round", label="first drive: the map")
    driven = np.array([answer.truth.position_xyz[:2] for answer in answers]).reshape(-1, 2)
    axes.plot(*driven.T, "-", color="#57606a", linewidth=0.8, label="second drive")
    groups = (
        ("MATCH, right", _RIGHT, "o", [a for a in answers if a.status == "MATCH" and a.right]),
        ("MATCH, wrong", _WRONG, "X", [a for a in answers if a.status == "MATCH" and not a.right]),
        ("AMBIGUOUS", _AMBIGUOUS, "^", [a for a in answers if a.status == "AMBIGUOUS"]),
        ("NO_MATCH", _NO_MATCH, "s", [a for a in answers if a.status == "NO_MATCH"]),
    )
    for label, colour, marker, members in groups:
        at = np.array([answer.truth.position_xyz[:2] for answer in members]).reshape(-1, 2)
        axes.plot(*at.T, marker, color=colour, markersize=4.5, label=f"{label} ({len(members)})", zorder=3)
        if label.startswith("MATCH"):
            joins = [(answer.truth.position_xyz[:2], answer.best.position_xyz[:2]) for answer in members if answer.best]
            draw_lines(axes, joins, colour, 1.2)
    extent = np.concatenate([mapped, driven])
    (west, south), (east, north) = extent.min(axis=0) - 4.0, extent.max(axis=0) + 4.0
    axes.set(xlim=(west, east), ylim=(south, north), aspect="equal", xlabel="x, east [m]", ylabel="y, north [m]")
    axes.set_title(
        f"Each answer lies where the camera was; lines lead to the place named.\n"
        f"Right: within {RIGHT_WITHIN_M:g} m and {RIGHT_WITHIN_DEG:g} degrees. "
        f"The map does not reach {sum(a.outside for a in answers)} frames (no place within {OUTSIDE_BEYOND_M:g} m)."
    )
    axes.legend(loc="upper left", framealpha=0.95)
    figure.savefig(path, dpi=110)
