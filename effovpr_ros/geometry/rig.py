"""Posed pictures of a map as one rig of cameras, and what of it a query sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.query_rays import Array, Index, QueryRays


@dataclass(frozen=True, eq=False)
class RigView:
    """A picture of the map that the query was matched with.

    Attributes:
        map_from_camera: T_map_camera, pose of the camera's optical frame.
        camera: that took it, for an image of the size that the points are in.
        query_index: (M,) numbers of points of one picture of the query, no one twice.
        points_xy: (M, 2) pixels of what matches them.
        other_index: (O,) likewise, of matches that do not agree with the view's epipolar geometry; they tell whether
            another pose explains as much, as in structure that repeats.
        other_xy: (O, 2) pixels of what matches these.
        picture: number of that picture, where the query has several.
        position_std_m: of its position along each axis; None: as everywhere in the map.
        angle_std_rad: of its orientation about each axis; likewise.
    """

    map_from_camera: Pose
    camera: CameraModel
    query_index: Index
    points_xy: Array
    other_index: Index | None = None
    other_xy: Array | None = None
    picture: int = 0
    position_std_m: float | None = None
    angle_std_rad: float | None = None


@dataclass(frozen=True, eq=False)
class Rig:
    """Views as arrays: rays that see points of the query. One row an observation, ordered by point.

    Attributes:
        rotation: (K, 3, 3) turns directions of each view's camera into the map's frame.
        centre_m: (K, 3) of each view's camera.
        focal_px: (K,) turns errors of rays into pixels.
        pose_std: (K, 6) standard deviations of each view's position [m] and orientation [rad] along the map's axes.
        view: (M,) number of the view of each observation.
        point: (M,) number of the query's point, ascending.
        rays: (M, 2) normalised image coordinates.
    """

    rotation: Array
    centre_m: Array
    focal_px: Array
    pose_std: Array
    view: Index
    point: Index
    rays: Array

    @classmethod
    def from_views(cls, views: Sequence[RigView], query: QueryRays, position_std_m: float, angle_std_rad: float) -> Rig:
        """Join views.

        Args:
            views: K of them.
            query: whose points they see.
            position_std_m: of views that do not say their own.
            angle_std_rad: likewise.
        """
        seen = query.is_seen
        first = np.searchsorted(query.camera, np.arange(len(query.focal_px)))
        parts: list[tuple[Index, Index, Array]] = []
        for number, view in enumerate(views):
            rays = view.camera.undistort(np.asarray(view.points_xy, np.float64))
            index = np.asarray(view.query_index + first[view.picture], np.int64)
            usable = np.isfinite(rays).all(axis=1) & seen[index]
            index = index[usable]
            parts.append((np.full(len(index), number, np.int64), index, rays[usable]))
        view_number, point, rays = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(point, kind="stable")
        return cls(
            Rotation.from_quat([view.map_from_camera.quat_xyzw for view in views]).as_matrix(),
            np.array([view.map_from_camera.position_xyz for view in views], np.float64),
            np.array([np.mean(view.camera.focal_xy_px) for view in views], np.float64),
            np.array(
                [
                    [view.position_std_m or position_std_m] * 3 + [view.angle_std_rad or angle_std_rad] * 3
                    for view in views
                ]
            ),
            view_number[order],
            point[order],
            rays[order],
        )

    def __len__(self) -> int:
        """M."""
        return len(self.point)

    @property
    def baseline_m(self) -> float:
        """Longest way between two of its cameras that see something."""
        used = self.centre_m[np.unique(self.view)]
        return float(np.linalg.norm(used[:, None] - used[None], axis=2).max()) if len(used) else 0.0

    def only(self, kept: NDArray[np.bool_]) -> Rig:
        """Some of the observations: (M,) which."""
        return replace(self, view=self.view[kept], point=self.point[kept], rays=self.rays[kept])

    def map_rays(self) -> Array:
        """(M, 3) unit vectors of the observations in the map's frame."""
        rays = np.einsum("mij,mj->mi", self.rotation[self.view], np.column_stack([self.rays, np.ones(len(self))]))
        return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))

    def sampson_px(self, query: QueryRays, rotation: Array, centre_m: Array) -> Array:
        """How far each observation is from the epipolar geometry of a pose of the query.

        Args:
            query: N points.
            rotation: (3, 3) turns directions of the query's body into the map's frame.
            centre_m: (3,) of the query's body.

        Returns:
            (M,) Sampson distance in pixels of the views.
        """
        camera = query.camera[self.point]
        back_turn = np.transpose(self.rotation, (0, 2, 1))
        turn = (back_turn[:, None] @ (rotation @ query.rotation)[None])[self.view, camera]
        step = centre_m + query.centre_m @ rotation.T - self.centre_m[:, None]
        step = np.einsum("kij,kcj->kci", back_turn, step)[self.view, camera]
        essential = cross_matrix(step) @ turn
        seen = np.column_stack([query.rays[self.point], np.ones(len(self))])
        place = np.column_stack([self.rays, np.ones(len(self))])
        line, back = np.einsum("mij,mj->mi", essential, seen), np.einsum("mji,mj->mi", essential, place)
        gradient = (line[:, :2] ** 2).sum(axis=1) + (back[:, :2] ** 2).sum(axis=1)
        distance = np.abs((place * line).sum(axis=1)) / np.sqrt(np.maximum(gradient, 1e-18))
        return np.asarray(distance * self.focal_px[self.view])

    def triangulated(self, num_points: int, max_error_px: float) -> tuple[Index, Array]:
        """Points that two views or more see, where their rays meet.

        Args:
            num_points: of the query.
            max_error_px: a point that a view sees farther from where it projects is dropped.

        Returns:
            (T,) numbers of points of the query and (T, 3) metres in the map's frame.
        """
        rays, centres = self.map_rays(), self.centre_m[self.view]
        across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
        normal, right, count = np.zeros((num_points, 3, 3)), np.zeros((num_points, 3)), np.zeros(num_points, np.int64)
        np.add.at(normal, self.point, across)
        np.add.at(right, self.point, np.einsum("mij,mj->mi", across, centres))
        np.add.at(count, self.point, 1)
        chosen = np.flatnonzero(count >= 2)
        # The least eigenvalue is about half the squared angle between two rays.
        chosen = chosen[np.linalg.eigvalsh(normal[chosen])[:, 0] > _MIN_PARALLAX_RAD**2 / 2.0]
        points = np.linalg.solve(normal[chosen], right[chosen][:, :, None])[:, :, 0]
        place = np.full(num_points, -1)
        place[chosen] = np.arange(len(chosen))
        found = place[self.point] >= 0
        observed = self.only(found)
        local = np.einsum("mji,mj->mi", self.rotation[observed.view], points[place[observed.point]] - centres[found])
        depth = np.where(local[:, 2] > 0.0, local[:, 2], np.nan)
        error = self.focal_px[observed.view] * np.linalg.norm(local[:, :2] / depth[:, None] - observed.rays, axis=1)
        good = np.ones(len(chosen), bool)
        good[place[observed.point[~(error <= max_error_px)]]] = False
        return chosen[good].astype(np.int64), np.asarray(points[good], np.float64)


_MIN_PARALLAX_RAD = 0.028
"""Angle between two rays below which where they meet is left to chance."""


def cross_matrix(vectors: Array) -> Array:
    """(..., 3) to (..., 3, 3): the matrices that turn a product with each into its cross product."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape[:-1], 3, 3)
