"""Geometric verification of a candidate pair: matched points, then one rigid motion or a refusal."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.depth import depth_at
from effovpr_ros.geometry.pnp import solve_pnp
from effovpr_ros.geometry.points import WORKING_SIDE
from effovpr_ros.geometry.two_view import two_view_geometry, yaw_left_rad
from effovpr_ros.geometry.verification_config import MIN_INLIERS, VerificationConfig
from effovpr_ros.geometry.verified_matches import VerifiedMatches


class Method(enum.Enum):
    """How the geometry was checked; values as in msg/LoopClosure."""

    NOT_VERIFIED = 0
    HOMOGRAPHY = 1
    ESSENTIAL = 2
    PNP = 3


@dataclass(frozen=True)
class View:
    """One image of a pair and what is known about its camera.

    Attributes:
        image_size_wh: pixels of the image that the points are those of.
        camera: that took it, for an image of any size with the same field of view; None where unknown.
        depth_m: (h, w) float32 metres registered to the image, NaN where not known (`depth.depth_metres`); any size.
            Only the query's is used.
    """

    image_size_wh: tuple[int, int]
    camera: CameraModel | None = None
    depth_m: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Verification:
    """What the geometry says about a pair.

    Attributes:
        method: NOT_VERIFIED where nothing was checked, else the model that was fitted.
        accepted: False only where a check refused the pair: nothing was fitted, or too few points agree.
        num_points: matched points that were checked.
        num_inliers: of them, those that agree.
        reason: the figures, or what was missing, for people.
        yaw_rad: how far the query looks left of the place, about the camera's vertical axis; None where unknown.
        rotation_place_query: (3, 3) float64, turns directions of the query's camera (optical axes: x right, y down, z
            forward) into the place's; None where unknown.
        direction_place_query: (3,) float64, unit vector from the place's camera to the query's in the place's
            camera axes; of ESSENTIAL, without a length, and of no meaning where the camera only turned.
        relative_pose: T_match_query, pose of the query's frame in the place's [m]; of an accepted PNP only.
        covariance: (6, 6) float64 of `relative_pose`, positive definite, order x y z roll pitch yaw about the fixed
            axes of the place's frame (geometry_msgs/PoseWithCovariance); m^2 and rad^2.
    """

    method: Method
    accepted: bool
    num_points: int
    num_inliers: int
    reason: str
    yaw_rad: float | None = None
    rotation_place_query: NDArray[np.float64] | None = None
    direction_place_query: NDArray[np.float64] | None = None
    relative_pose: Pose | None = None
    covariance: NDArray[np.float64] | None = None


class GeometricVerifier:
    """Checks candidate pairs."""

    def __init__(self, config: VerificationConfig) -> None:
        """Keep the settings."""
        self.config = config

    def verify(self, query: View, place: View, matches: VerifiedMatches) -> Verification:
        """Check whether two images show one scene.

        `metric` tries PnP first and falls back on the two views where depth is missing or too few points have one;
        the reason says so. Errors are counted in pixels of pictures of at most 640, as points are looked for in.

        Args:
            query: with depth for `metric`.
            place: that it is compared with.
            matches: points of both that are taken for the same.

        Raises:
            CameraError: a camera's values are impossible.
        """
        if self.config.verification == "off":
            return _not_verified("verification is off")
        if query.camera is None or place.camera is None:
            return _not_verified("no camera_info of both images")
        query_xy, place_xy = matches.query_xy.astype(np.float64), matches.candidate_xy.astype(np.float64)
        query_rays = query.camera.scaled(query.image_size_wh).undistort(query_xy)
        place_rays = place.camera.scaled(place.image_size_wh).undistort(place_xy)
        seen = np.isfinite(query_rays).all(axis=1) & np.isfinite(place_rays).all(axis=1)
        query_rays, place_rays = query_rays[seen], place_rays[seen]
        focal_px = float(np.mean(place.camera.scaled(_working_size(place.image_size_wh)).focal_xy_px))
        note, wanted = "", self.config.min_inliers or MIN_INLIERS[matches.kind]
        if self.config.verification == "metric":
            if query.depth_m is None:
                note = "no depth: "
            else:
                depth = depth_at(query.depth_m, query_xy[seen], query.image_size_wh)
                measured = self._metric(query_rays, place_rays, depth, focal_px, wanted)
                if measured.accepted:
                    return measured
                note = f"{measured.reason}; "
        return self._two_view(query_rays, place_rays, focal_px, wanted, note)

    def _metric(
        self,
        query_rays: NDArray[np.float64],
        place_rays: NDArray[np.float64],
        depth_m: NDArray[np.float64],
        focal_px: float,
        wanted: int,
    ) -> Verification:
        # NaN compares as False, so that points without depth are dropped too.
        near = depth_m <= self.config.max_depth_m
        points_m = np.column_stack([query_rays[near], np.ones(near.sum())]) * depth_m[near, None]
        pose = solve_pnp(points_m, place_rays[near], focal_px, self.config.max_reprojection_px)
        num_inliers = 0 if pose is None else int(pose.inliers.sum())
        accepted, reason = self._judge(Method.PNP, num_inliers, int(near.sum()), wanted)
        if pose is None or not accepted:
            return Verification(Method.PNP, False, int(near.sum()), num_inliers, reason)
        x, y, z = pose.translation_m.tolist()
        qx, qy, qz, qw = Rotation.from_matrix(pose.rotation).as_quat().tolist()
        return Verification(
            Method.PNP,
            True,
            int(near.sum()),
            num_inliers,
            f"{reason}, {pose.error_px:.2f} px",
            yaw_left_rad(pose.rotation),
            pose.rotation,
            None,
            Pose((x, y, z), (qx, qy, qz, qw)),
            pose.covariance,
        )

    def _two_view(
        self,
        query_rays: NDArray[np.float64],
        place_rays: NDArray[np.float64],
        focal_px: float,
        wanted: int,
        note: str,
    ) -> Verification:
        geometry = two_view_geometry(query_rays, place_rays, focal_px, self.config.max_reprojection_px)
        if geometry is None:
            reason = f"{note}no motion fits {len(query_rays)} points"
            return Verification(Method.ESSENTIAL, False, len(query_rays), 0, reason)
        method = Method.HOMOGRAPHY if geometry.is_homography else Method.ESSENTIAL
        num_inliers = int(geometry.inliers.sum())
        accepted, reason = self._judge(method, num_inliers, len(query_rays), wanted)
        rotation = geometry.rotation_place_query
        return Verification(
            method,
            accepted,
            len(query_rays),
            num_inliers,
            note + reason,
            None if rotation is None else yaw_left_rad(rotation),
            rotation,
            geometry.direction_place_query,
        )

    def _judge(self, method: Method, num_inliers: int, num_points: int, wanted: int) -> tuple[bool, str]:
        """Whether enough points agree, and the figures."""
        accepted = num_inliers >= wanted and num_inliers >= self.config.min_inlier_share * num_points
        share = self.config.min_inlier_share
        return accepted, f"{method.name}: {num_inliers} of {num_points} points agree; wanted {wanted} and {share:.0%}"


def in_body_frame(verification: Verification, body_from_camera: Pose) -> Verification:
    """The relative pose and covariance for the robot's body in place of its camera.

    Args:
        verification: of two images of one camera; one without a relative pose is returned as it is.
        body_from_camera: T_body_camera, pose of the camera's optical frame in the body, the same for both images.
    """
    pose, covariance = verification.relative_pose, verification.covariance
    if pose is None or covariance is None:
        return verification
    mount, lever = Rotation.from_quat(body_from_camera.known_quat_xyzw), np.array(body_from_camera.known_xyz)
    rotation = mount * Rotation.from_quat(pose.known_quat_xyzw) * mount.inv()
    # T_body = T_body_camera T_match_query T_camera_body.
    swung = rotation.apply(lever)
    x, y, z = (mount.apply(np.array(pose.known_xyz)) + lever - swung).tolist()
    qx, qy, qz, qw = rotation.as_quat().tolist()
    # A small turn w about the place's axes turns the lever too: it moves the body by -w x swung = [swung]x w.
    turned = mount.as_matrix()
    across = np.array([[0.0, -swung[2], swung[1]], [swung[2], 0.0, -swung[0]], [-swung[1], swung[0], 0.0]])
    jacobian = np.block([[turned, across @ turned], [np.zeros((3, 3)), turned]])
    moved = jacobian @ covariance @ jacobian.T
    return replace(verification, relative_pose=Pose((x, y, z), (qx, qy, qz, qw)), covariance=(moved + moved.T) / 2.0)


def _not_verified(reason: str) -> Verification:
    return Verification(Method.NOT_VERIFIED, True, 0, 0, reason)


def _working_size(image_size_wh: tuple[int, int]) -> tuple[int, int]:
    """Pixels of the picture in which points are looked for."""
    scale = min(1.0, WORKING_SIDE / max(image_size_wh))
    return (max(1, round(image_size_wh[0] * scale)), max(1, round(image_size_wh[1] * scale)))
