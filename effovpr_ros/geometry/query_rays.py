"""What a query sees: points of one camera or of several that are mounted on one body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.poses import Pose

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class QueryPicture:
    """One picture of a query; a body with several cameras takes several at a time.

    Attributes:
        points_xy: (N, 2) pixels of its points.
        camera: that took it, for an image of the size that the points are in.
        body_from_camera: T_body_camera, pose of the camera's optical frame.
    """

    points_xy: Array
    camera: CameraModel
    body_from_camera: Pose


@dataclass(frozen=True, eq=False)
class QueryRays:
    """The points of all pictures as rays of one body.

    Attributes:
        rotation: (C, 3, 3) turns directions of each camera into the body's frame.
        centre_m: (C, 3) of each camera in the body's frame.
        focal_px: (C,) turns errors of rays into pixels.
        camera: (N,) number of the camera of each point.
        rays: (N, 2) normalised image coordinates; NaN where a pixel has no ray.
    """

    rotation: Array
    centre_m: Array
    focal_px: Array
    camera: Index
    rays: Array

    @classmethod
    def from_pictures(cls, pictures: Sequence[QueryPicture]) -> QueryRays:
        """Join pictures; their points are numbered one picture after the other."""
        rays = [picture.camera.undistort(np.asarray(picture.points_xy, np.float64)) for picture in pictures]
        mountings = [picture.body_from_camera for picture in pictures]
        return cls(
            Rotation.from_quat([mounting.known_quat_xyzw for mounting in mountings]).as_matrix(),
            np.array([mounting.known_xyz for mounting in mountings], np.float64),
            np.array([np.mean(picture.camera.focal_xy_px) for picture in pictures], np.float64),
            np.repeat(np.arange(len(pictures), dtype=np.int64), [len(item) for item in rays]),
            np.concatenate(rays),
        )

    def __len__(self) -> int:
        """N."""
        return len(self.rays)

    @property
    def is_seen(self) -> NDArray[np.bool_]:
        """(N,) which points have a ray."""
        return np.asarray(np.isfinite(self.rays).all(axis=1))

    @property
    def point_focal_px(self) -> Array:
        """(N,) focal length of the camera of each point."""
        return np.asarray(self.focal_px[self.camera], np.float64)

    def only(self, chosen: Index | NDArray[np.bool_]) -> QueryRays:
        """Some of the points: which, in which order."""
        return replace(self, camera=self.camera[chosen], rays=self.rays[chosen])

    def directions(self, rays: Array, rotation: Array) -> Array:
        """(N, 3) rays, which may have been moved a little, in the map's frame, of length 1 along the optical axis.

        Args:
            rays: (N, 2) of the same points.
            rotation: (3, 3) turns directions of the body into the map's frame.
        """
        turn = (rotation @ self.rotation)[self.camera]
        return np.asarray(np.einsum("nij,nj->ni", turn, np.column_stack([rays, np.ones(len(rays))])))

    def levers_m(self, rotation: Array) -> Array:
        """(N, 3) from the body to the camera of each point, along the map's axes."""
        return np.asarray((self.centre_m @ rotation.T)[self.camera])

    def errors_px(self, points_m: Array, rotation: Array, centre_m: Array) -> Array:
        """How far its points are from where a pose of the body projects them.

        Args:
            points_m: (N, 3) where they are, in the map's frame.
            rotation: (3, 3) turns directions of the body into the map's frame.
            centre_m: (3,) of the body.

        Returns:
            (N,) pixels; infinite behind the camera.
        """
        turn = (rotation @ self.rotation)[self.camera]
        local = np.einsum("nji,nj->ni", turn, points_m - centre_m - self.levers_m(rotation))
        depth = np.where(local[:, 2] > 0.0, local[:, 2], np.inf)
        error = self.point_focal_px * np.linalg.norm(local[:, :2] / depth[:, None] - self.rays, axis=1)
        return np.where(local[:, 2] > 0.0, error, np.inf)
