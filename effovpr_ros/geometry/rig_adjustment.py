"""Bundle adjustment of one query against a rig: its pose, the points that it sees, and how far the rig's poses err.

Points are kept as a direction of the query and an inverse depth, so that far ones do no harm (Civera et al., IEEE T-RO
2008), and are eliminated (Triggs et al., "Bundle adjustment - a modern synthesis", 1999, section 6). A point that one
view sees constrains the pose as the epipolar geometry does; one that two views see gives the scale too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from effovpr_ros.geometry.normal_equations import NormalEquations
from effovpr_ros.geometry.query_rays import Array, QueryRays
from effovpr_ros.geometry.rig import Rig, cross_matrix

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
    """A proposal: `rays` (2, N) and `inverse_depth` (N,) of the points, poses of the query and of the rig."""

    rotation: Array
    centre: Array
    rig_rotation: Array
    rig_centre: Array
    rays: Array
    inverse_depth: Array


class RigAdjustment:
    """One problem: the rays of a query and a rig that sees them.

    An observation has a place in arrays of K views by N points, most of which are taken; those that are not weigh
    nothing. So sums over views and points need no lists of who sees what, and the last axis, the points, is long.
    """

    def __init__(self, query: QueryRays, rig: Rig) -> None:
        """State the problem.

        Args:
            query: N points; each is seen by a view.
            rig: of K views, M observations.
        """
        self._query, self._rig = query, rig
        self._observed = np.ascontiguousarray(query.rays.T)
        self._focal_sq = query.point_focal_px**2
        self._scale = 1.0 / rig.pose_std
        self._back = np.ascontiguousarray(rig.rotation.transpose(0, 2, 1))
        shape = (len(rig.centre_m), len(query))
        self._is_seen = np.zeros(shape, bool)
        self._is_seen[rig.view, rig.point] = True
        self._seen_xy = np.zeros((shape[0], 2, shape[1]))
        self._seen_xy[rig.view, :, rig.point] = rig.rays
        self._lens = rig.focal_px[:, None]
        # Of one camera there is one turn for all points.
        self._camera = query.camera if len(query.focal_px) > 1 else np.zeros(1, np.int64)
        self._columns = np.empty((shape[0], 10, 2, shape[1]))
        self._last: tuple[_State, tuple[Array, Array, Array, Array]] | None = None

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
                    proposed = self._moved(state, system.step(damping))
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

    def _turns(self, state: _State) -> Array:
        """(3, 3, N) what turns directions of each point's camera into the map's frame; N is 1 for one camera."""
        return np.asarray((state.rotation @ self._query.rotation)[self._camera].transpose(1, 2, 0))

    def _away_m(self, state: _State) -> Array:
        """(K, 3, N) from the views to the query's cameras, in the map's frame; N is 1 for one camera."""
        origin = state.centre[:, None] + state.rotation @ self._query.centre_m[self._camera].T
        return np.asarray(origin - state.rig_centre[:, :, None])

    def _first_inverse_depth(self, state: _State) -> Array:
        """Where the rays of the query come nearest to those that see its points."""
        turned, step = self._back @ self._directions(state), self._back @ self._away_m(state)
        x, y = self._seen_xy.transpose(1, 0, 2)
        far, near = (
            (b - c * y, c * x - a, a * y - b * x) for a, b, c in (turned.transpose(1, 0, 2), step.transpose(1, 0, 2))
        )
        weight = self._is_seen / np.maximum(turned[:, 2] ** 2, 1e-6)
        above = -(weight * sum(a * b for a, b in zip(far, near, strict=True))).sum(axis=0)
        below = (weight * sum(b * b for b in near)).sum(axis=0)
        return np.asarray(np.clip(above / np.maximum(below, 1e-12), 1e-4, 2.0), np.float64)

    def _directions(self, state: _State) -> Array:
        """(3, N) of the query's points in the map's frame, of length 1 along their camera's optical axis."""
        turns, (x, y) = self._turns(state), state.rays
        return np.asarray(turns[:, 0] * x + turns[:, 1] * y + turns[:, 2])

    def _projected(self, state: _State) -> tuple[Array, Array, Array, Array]:
        """Of each observation its direction in the map's frame and in the view, its error in pixels, and that squared.

        Returns:
            (K, 3, N), (K, 3, N), (K, 2, N) and (K, N); errors are 0 where a view does not see a point.
        """
        # What a step costs is asked first, and what follows from it next.
        if self._last is not None and self._last[0] is state:
            return self._last[1]
        in_map = self._directions(state) + state.inverse_depth * self._away_m(state)
        local = state.rig_rotation.transpose(0, 2, 1) @ in_map
        ahead = local[:, 2] > 1e-6
        error = local[:, :2] / np.where(ahead, local[:, 2], 1.0)[:, None]
        error -= self._seen_xy
        error *= self._lens[:, None]
        # Behind the camera: far beyond what any robust weight believes.
        error.transpose(0, 2, 1)[~ahead] = 1e3
        error *= self._is_seen[:, None]
        found = in_map, local, error, np.square(error).sum(axis=1)
        self._last = state, found
        return found

    def _rig_errors(self, state: _State) -> Array:
        """(K, 6) in standard deviations."""
        turn = state.rig_rotation @ self._back
        # Small turns: half of the skew part are their rotation vector.
        turned = np.stack(
            [turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], 1
        )
        moved = np.hstack([state.rig_centre - self._rig.centre_m, turned / 2.0])
        return np.asarray(moved * self._scale)

    def _cost(self, state: _State) -> float:
        squared = self._projected(state)[3]
        robust = (squared / (1.0 + squared / _ROBUST_PX**2)).sum()
        own = self._focal_sq @ np.square(state.rays - self._observed).sum(axis=0)
        depth = np.square(state.inverse_depth / _INVERSE_DEPTH_STD).sum()
        return float(robust + own + depth + np.square(self._rig_errors(state)).sum())

    def _linearise(self, state: _State) -> NormalEquations:
        """Normal equations by blocks."""
        count, num_points = self._is_seen.shape
        in_map, local, error, squared = self._projected(state)
        depth = np.maximum(local[:, 2], 1e-3)
        weight = self._is_seen / (1.0 + squared / _ROBUST_PX**2)
        scale = self._lens * weight / depth
        # Rows of each view's rotation are its axes in the map's frame.
        axes = state.rig_rotation[:, :, :, None]
        by_map = np.empty((count, 3, 2, num_points))
        for side in range(2):
            by_map[:, :, side] = scale[:, None] * axes[:, :, side]
            by_map[:, :, side] -= (scale * local[:, side] / depth)[:, None] * axes[:, :, 2]
        # Columns of points 0 to 3, of a view's way back to 6 and its turn to 9, residual.
        columns, turns = self._columns, self._turns(state)
        for axis in range(2):
            columns[:, axis] = _dot(by_map, turns[None, :, axis])
        columns[:, 2] = _dot(by_map, self._away_m(state))
        np.multiply(by_map, state.inverse_depth, out=columns[:, 3:6])
        for axis, (right, far) in enumerate(((1, 2), (2, 0), (0, 1))):
            np.multiply(by_map[:, right], in_map[:, far, None], out=columns[:, 6 + axis])
            columns[:, 6 + axis] -= by_map[:, far] * in_map[:, right, None]
        np.multiply(error, weight[:, None], out=columns[:, 9])
        by_point = np.einsum("kpin,kqin->kpqn", columns[:, :3], columns)
        points, points_right = by_point[:, :, :3].sum(axis=0), by_point[:, :, 9].sum(axis=0)
        points[[0, 1], [0, 1]] += self._focal_sq
        points[2, 2] += _INVERSE_DEPTH_STD**-2
        points_right[:2] += self._focal_sq * (state.rays - self._observed)
        points_right[2] += state.inverse_depth * _INVERSE_DEPTH_STD**-2
        mixed = by_point[:, :, 3:9].transpose(0, 2, 1, 3).reshape(6 * count, 3, num_points)
        rows = columns[:, 3:].reshape(count, 7, -1)
        own = rows @ rows.transpose(0, 2, 1)
        views = np.zeros((count, 6, count, 6))
        views[np.arange(count), :, np.arange(count)] = own[:, :6, :6]
        # What the query moves by is what all views move back by; its turn, about its body, shifts it against them too.
        moves = np.zeros((1 + count, 6, count, 6))
        moves[0] = np.eye(6)[:, None] * [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]
        moves[0, 3:, :, :3] = -cross_matrix(state.centre - state.rig_centre).transpose(1, 0, 2)
        moves[np.arange(1, 1 + count), :, np.arange(count)] = np.diag([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
        prior = np.vstack([np.zeros((1, 6)), self._scale])
        prior_right = np.vstack([np.zeros((1, 6)), self._scale * self._rig_errors(state)])
        return NormalEquations(
            points,
            points_right,
            mixed,
            views.reshape(6 * count, -1),
            own[:, :6, 6].ravel(),
            moves.reshape(-1, 6 * count),
            prior.ravel() ** 2,
            prior_right.ravel(),
        )

    def _moved(self, state: _State, step: tuple[Array, Array]) -> _State:
        poses, points = step[0].reshape(-1, 6), step[1]
        turns = Rotation.from_rotvec(poses[:, 3:]).as_matrix()
        return _State(
            turns[0] @ state.rotation,
            state.centre + poses[0, :3],
            turns[1:] @ state.rig_rotation,
            state.rig_centre + poses[1:, :3],
            state.rays + points[:2],
            np.clip(state.inverse_depth + points[2], 0.0, _MAX_INVERSE_DEPTH),
        )

    def _answer(self, state: _State) -> AdjustedPose | None:
        squared = self._projected(state)[3][self._rig.view, self._rig.point]
        information = self._linearise(state).reduced(0.0)[1]
        if not np.isfinite(information).all() or np.linalg.eigvalsh(information)[0] <= 0.0:
            return None
        weight = 1.0 / (1.0 + squared / _ROBUST_PX**2) ** 2
        own = self._focal_sq @ np.square(state.rays - self._observed).sum(axis=0)
        freedom = 2.0 * weight.sum() - self._observed.shape[1] - 6.0
        variance = max((weight @ squared + own) / max(freedom, 1.0), _MIN_PIXEL_STD**2)
        covariance = variance * np.linalg.inv(information)[:6, :6]
        return AdjustedPose(
            state.rotation,
            state.centre,
            (covariance + covariance.T) / 2.0,
            np.sqrt(squared),
            self._rig_errors(state),
        )


def _dot(rows: Array, vectors: Array) -> Array:
    """(K, 2, N) inner products of (K, 3, 2, N) rows with (K or 1, 3, N or 1) vectors."""
    products = rows[:, 0] * vectors[:, 0, None]
    for axis in (1, 2):
        products += rows[:, axis] * vectors[:, axis, None]
    return np.asarray(products)
