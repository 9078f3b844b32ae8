"""Normal equations of a query against a rig: points eliminated, poses solved for.

The points are a sparse block; see Triggs et al., "Bundle adjustment - a modern synthesis", 1999, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from effovpr_ros.geometry.query_rays import Array


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """One linear system. Poses of the query and of a view move what the view sees by the same six columns.

    Attributes:
        points: (3, 3, N) blocks of the points.
        points_right: (3, N).
        mixed: (6 K, 3, N) of the views' columns and the points.
        views: (6 K, 6 K) of the views' columns.
        views_right: (6 K,).
        moves: (6 + 6 K, 6 K) what the poses of the query and the views are of those columns.
        prior: (6 + 6 K,) what is known of each beforehand: inverse variances.
        prior_right: (6 + 6 K,).
    """

    points: Array
    points_right: Array
    mixed: Array
    views: Array
    views_right: Array
    moves: Array
    prior: Array
    prior_right: Array

    def reduced(self, damping: float) -> tuple[Array, Array, Array]:
        """Points eliminated: their inverse blocks, and the information and right side of the poses."""
        points = self.points.copy()
        points[[0, 1, 2], [0, 1, 2]] *= 1.0 + damping
        inverse = _inverse(points)
        size = len(self.views)
        mixed, carried = self.mixed.reshape(size, -1), np.einsum("sjn,jin->sin", self.mixed, inverse)
        information = self.moves @ (self.views - mixed @ carried.reshape(size, -1).T) @ self.moves.T
        own = ((self.moves @ self.views) * self.moves).sum(axis=1) + self.prior
        information[np.arange(len(own)), np.arange(len(own))] += self.prior + damping * own
        solved = (inverse * self.points_right).sum(axis=1).ravel()
        return inverse, information, self.moves @ (self.views_right - mixed @ solved) + self.prior_right

    def step(self, damping: float) -> tuple[Array, Array]:
        """(6 + 6 K,) by how much the poses move, and (3, N) the points."""
        inverse, information, right = self.reduced(damping)
        poses = -np.asarray(np.linalg.solve(information, right), np.float64)
        moved = (poses @ self.moves) @ self.mixed.reshape(len(self.views), -1)
        points = -(inverse * (self.points_right + moved.reshape(3, -1))).sum(axis=1)
        return poses, np.asarray(points, np.float64)


def _inverse(matrices: Array) -> Array:
    """(3, 3, N) inverses of symmetric matrices by their cofactors: LAPACK takes five times as long on small ones.

    Raises:
        LinAlgError: one is singular.
    """
    a, b, c = matrices[0]
    d, e, f = matrices[1, 1], matrices[1, 2], matrices[2, 2]
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * aa + b * ab + c * ac
    if not (determinant != 0.0).all():
        raise np.linalg.LinAlgError("a point has no solution")
    bc = b * c - a * e
    cofactors = np.array([[aa, ab, ac], [ab, a * f - c * c, bc], [ac, bc, a * d - b * b]])
    cofactors /= determinant
    return cofactors
