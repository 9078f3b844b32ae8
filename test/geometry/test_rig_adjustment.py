"""The normal equations of a bundle adjustment are the slope of its cost."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.geometry.normal_equations import NormalEquations
from effovpr_ros.geometry.query_rays import QueryRays
from effovpr_ros.geometry.rig import Rig
from effovpr_ros.geometry.rig_adjustment import RigAdjustment, _State

POINTS, VIEWS = 7, 3


def problem(num_cameras: int) -> tuple[RigAdjustment, _State]:
    """Seven points that two of three views see each, and a pose that is off by pixels."""
    generator = np.random.default_rng(5)
    query = QueryRays(
        Rotation.from_rotvec(generator.normal(0.0, 0.3, (num_cameras, 3))).as_matrix(),
        generator.normal(0.0, 0.3, (num_cameras, 3)),
        np.full(num_cameras, 300.0),
        np.sort(np.arange(POINTS) % num_cameras),
        generator.uniform(-0.5, 0.5, (POINTS, 2)),
    )
    centre_m = generator.normal(0.0, 0.3, (VIEWS, 3))
    turns = Rotation.from_rotvec(generator.normal(0.0, 0.05, (VIEWS, 3))).as_matrix()
    point = np.repeat(np.arange(POINTS), 2)
    view = np.stack([np.arange(POINTS) % VIEWS, (np.arange(POINTS) + 1) % VIEWS], axis=1).ravel()
    inverse_depth = generator.uniform(0.2, 0.5, POINTS)
    state = _State(np.eye(3), np.zeros(3), turns, centre_m, query.rays.T.copy(), inverse_depth)
    away = query.centre_m[query.camera][point] - centre_m[view]
    local = query.directions(query.rays, np.eye(3))[point] + inverse_depth[point, None] * away
    local = np.einsum("mji,mj->mi", turns[view], local)
    rays = local[:, :2] / local[:, 2:] + generator.normal(0.0, 0.004, (len(point), 2))
    rig = Rig(turns, centre_m, np.array([300.0, 310.0, 320.0]), np.full((VIEWS, 6), 0.01), view, point, rays)
    return RigAdjustment(query, rig), state


@pytest.mark.parametrize("num_cameras", [1, 2])
def test_right_sides_are_half_the_slope_of_the_cost(num_cameras: int) -> None:
    adjustment, state = problem(num_cameras)
    system = adjustment._linearise(state)
    assert isinstance(system, NormalEquations)
    right = np.concatenate([system.moves @ system.views_right + system.prior_right, system.points_right.ravel()])

    def cost(step: NDArray[np.float64]) -> float:
        poses, points = step[: 6 * (1 + VIEWS)], step[6 * (1 + VIEWS) :].reshape(3, POINTS)
        return adjustment._cost(adjustment._moved(state, (poses, points)))

    small = 1e-6
    slopes = [(cost(small * unit) - cost(-small * unit)) / (2.0 * small) for unit in np.eye(len(right))]
    assert np.abs(right).max() > 100.0
    assert right == pytest.approx(np.array(slopes) / 2.0, rel=1e-4, abs=1e-3 * np.abs(right).max() / 100.0)


def test_a_step_solves_the_whole_system_as_one() -> None:
    adjustment, state = problem(1)
    system = adjustment._linearise(state)
    mixed = np.einsum("ds,sjn->djn", system.moves, system.mixed)
    size = len(system.prior)
    whole = np.zeros((size + 3 * POINTS, size + 3 * POINTS))
    whole[:size, :size] = system.moves @ system.views @ system.moves.T + np.diag(system.prior)
    for number in range(POINTS):
        own = slice(size + 3 * number, size + 3 * number + 3)
        whole[own, own] = system.points[:, :, number]
        whole[:size, own] = mixed[:, :, number]
        whole[own, :size] = mixed[:, :, number].T
    whole += 0.25 * np.diag(np.diag(whole))
    right = np.concatenate([system.moves @ system.views_right + system.prior_right, system.points_right.T.ravel()])
    poses, points = system.step(0.25)
    assert np.concatenate([poses, points.T.ravel()]) == pytest.approx(-np.linalg.solve(whole, right), rel=1e-6)
