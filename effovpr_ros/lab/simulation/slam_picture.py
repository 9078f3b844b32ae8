"""Picture of the SLAM demo: the building with the path before and after its loops were closed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.figures import draw_lines, new_figure
from effovpr_ros.lab.simulation.slam_score import JudgedClosure, SlamScore, aligned_positions

_TRUTH, _ODOMETRY, _CLOSED = "#57606a", "#bc4c00", "#0969da"
_MARGIN_M = 6.0


def draw_slam(
    walls_m: NDArray[np.float64],
    truth: Sequence[Pose],
    odometry: Sequence[Pose],
    optimized: Sequence[Pose],
    closures: Sequence[JudgedClosure],
    score: SlamScore,
    path: Path,
) -> None:
    """Draw the odometry beside the optimised path, each laid on the true one, and every closure as a line.

    Args:
        walls_m: (M, 2, 2) end points.
        truth: N true poses.
        odometry: N poses before.
        optimized: N poses after.
        closures: between keyframes.
        score: its errors stand in the titles.
        path: PNG file to write.

    Raises:
        SimulationError: matplotlib or evo is not installed.
    """
    figure = new_figure(15.0, 9.0)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    true_xy = np.array([pose.position_xyz[:2] for pose in truth])
    before, after = (aligned_positions(truth, poses)[:, :2] for poses in (odometry, optimized))
    for axes, xy, colour, name, error_m in (
        (left, before, _ODOMETRY, "odometry", score.ate_before_m),
        (right, after, _CLOSED, "loops closed", score.ate_after_m),
    ):
        draw_lines(axes, walls_m, "#d0d7de", 0.8)
        axes.plot(*true_xy.T, "-", color=_TRUTH, linewidth=3.0, alpha=0.45, label="truth")
        axes.plot(*xy.T, "-", color=colour, linewidth=2.0, label=name)
        axes.set(aspect="equal", xlabel="x, east [m]", title=f"{name}: trajectory error {error_m:.2f} m")
    left.set_ylabel("y, north [m]")
    # The spot between two keyframes of one place is drawn as a point: the line between them would be too short to see.
    groups = (
        ("right, accepted", "#1a7f37", "o", [c for c in closures if c.right and c.accepted]),
        ("right, rejected", "#8c959f", "o", [c for c in closures if c.right and not c.accepted]),
        ("wrong, rejected", "#bf8700", "X", [c for c in closures if not c.right and not c.accepted]),
        ("wrong, accepted", "#cf222e", "X", [c for c in closures if not c.right and c.accepted]),
    )
    for label, colour, marker, members in groups:
        ends = np.array([(after[closure.match], after[closure.query]) for closure in members]).reshape(-1, 2, 2)
        draw_lines(right, ends, colour, 1.0, zorder=3)
        right.plot(
            *ends.mean(axis=1).T, marker, color=colour, markersize=4.0, label=f"closure {label} ({len(members)})"
        )
    extent = np.concatenate([true_xy, before, after])
    (west, south), (east, north) = extent.min(axis=0) - _MARGIN_M, extent.max(axis=0) + _MARGIN_M
    right.set(xlim=(west, east), ylim=(south, north))
    for axes in (left, right):
        axes.legend(loc="lower left", framealpha=0.95)
    figure.savefig(path, dpi=100)
