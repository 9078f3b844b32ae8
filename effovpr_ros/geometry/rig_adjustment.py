"""Bundle adjustment of one query against a rig: its pose, the points that it sees, and how far the rig's poses err.

Points are kept as a direction of the query and an inverse depth, so that far ones do no harm (Civera et al., IEEE T-RO
2008), and are eliminated (Triggs et al., "Bundle adjustment - a modern synthesis", 1999, section 6). A point that one
view sees constrains the pose as the epipolar geometry does; one that two views see gives the scale too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from effovpr_ros.geometry.query_rays import Array, QueryRays
from effovpr_ros.geometry.rig import Rig

_ITERATIONS = 12
_TRIES = 6
_ENOUGH = 1e-3
_ROBUST_PX = 3.0
_MAX_INVERSE_DEPTH = 10.0
# Tells nothing of any depth that occurs; keeps points without parallax solvable.
_INVERSE_DEPTH_STD = 30.0
_MIN_PIXEL_STD = 0.3


@dataclass(frozen=True, eq=False)
class AdjustedPose:
    """Pose of the query's body in the map's frame.

    Attributes:
        rotation: (3, 3) turns directions of the body into the map's frame.
        centre_m: (3,) of the body.
        covariance: (6, 6) symmetric, order x y z and turns about the fixed axes of the map's frame; m^2 and rad^2.
            First order: residual variance times the inverse of the information, points and rig eliminated.
        errors_px: (M,) distance of each observation from where its point projects.
        rig_shift: (K, 6) by how much the poses of the rig were moved, in standard deviations of their priors.
    """

    rotation: Array
    centre_m: Array
    covariance: Array
    errors_px: Array
    rig_shift: Array


@dataclass(frozen=True, eq=False)
class _State:
    rotation: Array
    centre: Array
    rig_rotation: Array
    rig_centre: Array
    rays: Array
    inverse_depth: Array


class RigAdjustment:
    """One problem: the rays of a query and a rig that sees them."""

    def __init__(self, query: QueryRays, rig: Rig) -> None:
        """State the problem.

        Args:
            query: N points; each is seen by a view.
            rig: of K views, M observations.
        """
        self._query, self._observed, self._rig = query, query.rays, rig
        self._focal_sq = query.point_focal_px**2
        self._scale = 1.0 / rig.pose_std
        self._starts = np.searchsorted(rig.point, np.arange(len(query)))
        self._num_views = len(rig.centre_m)
        self._lens = rig.focal_px[rig.view]
        self._seen: tuple[_State, tuple[Array, Array, Array]] | None = None

    def solve(self, rotation: Array, centre_m: Array) -> AdjustedPose | None:
        """Levenberg-Marquardt from a first pose, with the loss of Geman and McClure.

        Returns:
            None where the problem has no solution: a singular information matrix.
        """
        rig = self._rig
        state = _State(rotation, centre_m, rig.rotation, rig.centre_m, self._observed.copy(), np.zeros(0))
        state = replace(state, inverse_depth=self._first_inverse_depth(state))
        damping, cost = 1e-4, self._cost(state)
        try:
            for _ in range(_ITERATIONS):
                system = self._linearise(state)
                for _ in range(_TRIES):
                    proposed = self._moved(state, self._step(system, damping))
                    new_cost = self._cost(proposed)
                    if new_cost < cost:
                        break
                    damping *= 10.0
                else:
                    break
                gained, state, cost, damping = cost - new_cost, proposed, new_cost, damping / 10.0
                if gained < _ENOUGH * cost:
                    break
            return self._answer(state)
        except np.linalg.LinAlgError:
            return None

    def _first_inverse_depth(self, state: _State) -> Array:
        """Where the rays of the query come nearest to those that see its points."""
        rig = self._rig
        query = self._query.directions(self._observed, state.rotation)
        origin = state.centre + self._query.levers_m(state.rotation)
        turned = np.einsum("mji,mj->mi", rig.rotation[rig.view], query[rig.point])
        step = np.einsum("mji,mj->mi", rig.rotation[rig.view], origin[rig.point] - rig.centre_m[rig.view])
        seen = np.column_stack([rig.rays, np.ones(len(rig))])
        far, near = np.cross(turned, seen), np.cross(step, seen)
        weight = 1.0 / np.maximum(turned[:, 2] ** 2, 1e-6)
        above = np.add.reduceat(-weight * (far * near).sum(axis=1), self._starts)
        below = np.add.reduceat(weight * (near**2).sum(axis=1), self._starts)
        return np.clip(above / np.maximum(below, 1e-12), 1e-4, 2.0)

    def _projected(self, state: _State) -> tuple[Array, Array, Array]:
        """For each observation its direction in the map's frame and in the view, and its error in pixels."""
        # What a step costs is asked first, and what follows from it next.
        if self._seen is not None and self._seen[0] is state:
            return self._seen[1]
        rig = self._rig
        query = self._query.directions(state.rays, state.rotation)
        in_map = query[rig.point] + state.inverse_depth[rig.point, None] * self._away_m(state)
        local = np.einsum("mji,mj->mi", state.rig_rotation[rig.view], in_map)
        depth = np.where(local[:, 2] > 1e-6, local[:, 2], 1.0)
        error = self._lens[:, None] * (local[:, :2] / depth[:, None] - rig.rays)
        # Behind the camera: far beyond what any robust weight believes.
        error[local[:, 2] <= 1e-6] = 1e3
        self._seen = state, (in_map, local, error)
        return in_map, local, error

    def _away_m(self, state: _State) -> Array:
        """(M, 3) from the view of each observation to the query's camera, in the map's frame."""
        origin = state.centre + self._query.levers_m(state.rotation)
        return np.asarray(origin[self._rig.point] - state.rig_centre[self._rig.view])

    def _rig_errors(self, state: _State) -> Array:
        """(K, 6) in standard deviations."""
        turn = state.rig_rotation @ np.transpose(self._rig.rotation, (0, 2, 1))
        # Small turns: half of the skew part is their rotation vector.
        turned = np.stack(
            [turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], 1
        )
        moved = np.hstack([state.rig_centre - self._rig.centre_m, turned / 2.0])
        return np.asarray(moved * self._scale)

    def _cost(self, state: _State) -> float:
        error = self._projected(state)[2]
        squared = (error**2).sum(axis=1)
        robust = (squared / (1.0 + squared / _ROBUST_PX**2)).sum()
        own = self._focal_sq @ ((state.rays - self._observed) ** 2).sum(axis=1)
        depth = ((state.inverse_depth / _INVERSE_DEPTH_STD) ** 2).sum()
        return float(robust + own + depth + (self._rig_errors(state) ** 2).sum())

    def _linearise(self, state: _State) -> tuple[Array, Array, Array, Array, Array]:
        """Normal equations by blocks: of points (N, 3, 3), points and poses (N, 3, D), poses (D, D), right sides."""
        rig, count, num_points = self._rig, self._num_views, len(self._observed)
        in_map, local, error = self._projected(state)
        depth = np.maximum(local[:, 2], 1e-3)
        weight = 1.0 / (1.0 + (error**2).sum(axis=1) / _ROBUST_PX**2)
        # Rows of each view's rotation are its axes in the map's frame.
        axes = state.rig_rotation.transpose(0, 2, 1)[rig.view]
        by_map = axes[:, :2] - (local[:, :2] / depth[:, None])[:, :, None] * axes[:, 2:]
        by_map *= (self._lens * weight / depth)[:, None, None]
        residual = error * weight[:, None]
        inverse_depth = state.inverse_depth[rig.point, None, None]
        away = self._away_m(state)
        turn = (state.rotation @ self._query.rotation)[self._query.camera[rig.point], :, :2]
        # What turns with the body: the ray and, as long as the inverse depth makes it, the camera's lever.
        turning = in_map - inverse_depth[:, 0] * (state.centre - state.rig_centre)[rig.view]
        # Columns of points 0 to 3, of the query to 9, of the view to 15, residual.
        columns = np.empty((len(rig), 2, 16))
        columns[:, :, :2] = by_map @ turn
        columns[:, :, 2] = (by_map * away[:, None]).sum(axis=2)
        columns[:, :, 3:6] = by_map * inverse_depth
        columns[:, :, 6:9] = -_crossed(by_map, turning)
        columns[:, :, 9:12] = -columns[:, :, 3:6]
        columns[:, :, 12:15] = _crossed(by_map, in_map)
        columns[:, :, 15] = residual
        # Products of the points' columns with all, an observation; of the others only sums are wanted.
        by_point = columns[:, 0, :3, None] * columns[:, 0, None] + columns[:, 1, :3, None] * columns[:, 1, None]
        by_row = np.add.reduceat(by_point, self._starts)
        points, points_right = by_row[:, :, :3].copy(), by_row[:, :, 15].copy()
        points[:, 0, 0] += self._focal_sq
        points[:, 1, 1] += self._focal_sq
        points[:, 2, 2] += _INVERSE_DEPTH_STD**-2
        points_right[:, :2] += self._focal_sq[:, None] * (state.rays - self._observed)
        points_right[:, 2] += state.inverse_depth * _INVERSE_DEPTH_STD**-2

        mixed = np.zeros((num_points, 3, 1 + count, 6))
        mixed[:, :, 0] = by_row[:, :, 3:9]
        mixed[rig.point, :, 1 + rig.view] = by_point[:, :, 9:15]
        poses, right = np.zeros((1 + count, 6, 1 + count, 6)), np.zeros((1 + count, 6))
        shift = self._rig_errors(state)
        for view in range(count):
            rows = columns[rig.view == view, :, 3:].reshape(-1, 13)
            own = rows.T @ rows
            poses[0, :, 0] += own[:6, :6]
            right[0] += own[:6, 12]
            poses[0, :, 1 + view], poses[1 + view, :, 0] = own[:6, 6:12], own[:6, 6:12].T
            poses[1 + view, :, 1 + view] = own[6:12, 6:12] + np.diag(self._scale[view] ** 2)
            right[1 + view] = own[6:12, 12] + self._scale[view] * shift[view]
        size = 6 * (1 + count)
        return points, mixed.reshape(num_points, 3, size), poses.reshape(size, size), points_right, right.ravel()

    @staticmethod
    def _reduced(system: tuple[Array, Array, Array, Array, Array], damping: float) -> tuple[Array, Array, Array, Array]:
        """Points eliminated: their inverse blocks, what moves them, and the information and right side of the poses."""
        points, mixed, poses, points_right, right = system
        damped = points.copy()
        damped[:, [0, 1, 2], [0, 1, 2]] *= 1.0 + damping
        inverse = _inverse(damped)
        carried = inverse @ mixed
        size = poses.shape[0]
        information = poses - mixed.reshape(-1, size).T @ carried.reshape(-1, size)
        information[np.arange(size), np.arange(size)] += damping * poses[np.arange(size), np.arange(size)]
        return inverse, carried, information, right - carried.reshape(-1, size).T @ points_right.ravel()

    def _step(self, system: tuple[Array, Array, Array, Array, Array], damping: float) -> tuple[Array, Array]:
        inverse, carried, information, right = self._reduced(system, damping)
        poses = -np.asarray(np.linalg.solve(information, right), np.float64)
        points = -np.einsum("nij,nj->ni", inverse, system[3]) - carried @ poses
        return poses, np.asarray(points, np.float64)

    def _moved(self, state: _State, step: tuple[Array, Array]) -> _State:
        poses, points = step[0].reshape(-1, 6), step[1]
        turns = Rotation.from_rotvec(poses[:, 3:]).as_matrix()
        return _State(
            turns[0] @ state.rotation,
            state.centre + poses[0, :3],
            turns[1:] @ state.rig_rotation,
            state.rig_centre + poses[1:, :3],
            state.rays + points[:, :2],
            np.clip(state.inverse_depth + points[:, 2], 0.0, _MAX_INVERSE_DEPTH),
        )

    def _answer(self, state: _State) -> AdjustedPose | None:
        error = self._projected(state)[2]
        information = self._reduced(self._linearise(state), 0.0)[2]
        if not np.isfinite(information).all() or np.linalg.eigvalsh(information)[0] <= 0.0:
            return None
        squared = (error**2).sum(axis=1)
        weight = 1.0 / (1.0 + squared / _ROBUST_PX**2) ** 2
        own = self._focal_sq @ ((state.rays - self._observed) ** 2).sum(axis=1)
        freedom = 2.0 * weight.sum() - len(self._observed) - 6.0
        variance = max((weight @ squared + own) / max(freedom, 1.0), _MIN_PIXEL_STD**2)
        covariance = variance * np.linalg.inv(information)[:6, :6]
        return AdjustedPose(
            state.rotation,
            state.centre,
            (covariance + covariance.T) / 2.0,
            np.sqrt(squared),
            self._rig_errors(state),
        )


def _inverse(matrices: Array) -> Array:
    """(N, 3, 3) inverses of symmetric matrices by their cofactors: LAPACK takes five times as long on small ones.

    Raises:
        LinAlgError: one is singular.
    """
    a, b, c = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 0, 2]
    d, e, f = matrices[:, 1, 1], matrices[:, 1, 2], matrices[:, 2, 2]
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * aa + b * ab + c * ac
    if not (determinant != 0.0).all():
        raise np.linalg.LinAlgError("a point has no solution")
    cofactors = np.stack([aa, ab, ac, ab, a * f - c * c, b * c - a * e, ac, b * c - a * e, a * d - b * b], axis=1)
    return np.asarray((cofactors / determinant[:, None]).reshape(-1, 3, 3))


def _crossed(rows: Array, vectors: Array) -> Array:
    """(M, 2, 3) products of rows with the cross product matrices of (M, 3) vectors: their cross products."""
    a, b, c = rows[..., 0], rows[..., 1], rows[..., 2]
    x, y, z = (vectors[:, None, axis] for axis in range(3))
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-1)
