"""A scene of points that posed cameras see: pictures as points and descriptors, whose true poses are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from synthetic import features, jpeg, picture

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.point_codec import encode_points
from effovpr_ros.geometry.points import DIMENSIONS, XFEAT, Points, quantised
from effovpr_ros.mapping.place import NewPlace

Array = NDArray[np.float64]
CAMERA = CameraModel((640, 480), (400.0, 410.0), (319.5, 239.5))
OPTICAL = Rotation.from_matrix([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
MOUNTING = Pose((0.3, 0.1, 0.5), tuple(OPTICAL.as_quat().tolist()))
MOUNTED = MountedCamera(CAMERA, MOUNTING)


def corridor(count: int = 500, seed: int = 0) -> Array:
    """(N, 3) walls, floor and things of a corridor 6 m wide, along x from 2 to 14 m."""
    random = np.random.default_rng(seed)
    points = random.uniform((2.0, -3.0, -0.5), (14.0, 3.0, 2.5), (count, 3))
    points[::3, 1] = np.where(points[::3, 1] > 0.0, 3.0, -3.0)
    points[1::3, 2] = -0.5
    return points


@dataclass
class PosedScene:
    """Points of the world, each with a descriptor of its own."""

    points: Array
    noise_px: float = 0.3
    mounted: MountedCamera = MOUNTED
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        drawn = self.random.normal(size=(len(self.points), DIMENSIONS[XFEAT]))
        self.descriptors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def camera_pose(self, body: Pose) -> tuple[Rotation, Array]:
        turn, mounting = Rotation.from_quat(body.known_quat_xyzw), self.mounted.body_from_camera
        assert mounting is not None
        centre = np.array(body.known_xyz) + turn.apply(mounting.known_xyz)
        return turn * Rotation.from_quat(mounting.known_quat_xyzw), centre

    def projected(self, body: Pose) -> tuple[Array, Array, NDArray[np.bool_]]:
        """(N, 2) pixels without noise, (N,) depths [m] and which are in the picture."""
        turn, centre = self.camera_pose(body)
        local = turn.inv().apply(self.points - centre)
        camera = self.mounted.camera
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = local[:, :2] / local[:, 2:] * camera.focal_xy_px + camera.centre_xy_px
        inside = (local[:, 2] > 0.2) & (pixels >= 0.0).all(axis=1)
        inside &= (pixels <= np.array(camera.image_size_wh) - 1.0).all(axis=1)
        return pixels, local[:, 2], inside

    def seen(self, body: Pose) -> Points:
        """What a camera sees, at most as many as a map keeps."""
        pixels, _, inside = self.projected(body)
        noisy = pixels[inside] + self.random.normal(0.0, self.noise_px, (int(inside.sum()), 2))
        order = self.random.permutation(len(noisy))[:1024]
        codes = quantised(self.descriptors[inside], XFEAT)
        return Points(XFEAT, noisy[order].astype(np.float32), codes[order], self.mounted.camera.image_size_wh)

    def depth(self, body: Pose) -> NDArray[np.float32]:
        """(480, 640) metres about each point, NaN elsewhere."""
        width, height = self.mounted.camera.image_size_wh
        depth = np.full((height, width), np.nan, np.float32)
        pixels, metres, inside = self.projected(body)
        for (x, y), value in zip(pixels[inside], metres[inside], strict=True):
            cv2.circle(depth, (round(x), round(y)), 3, float(value), -1)
        return depth

    def place(self, body: Pose | None, number: int, session: str = "a", seen_from: Pose | None = None) -> NewPlace:
        """A place of a map with its points; all look alike to the first two stages.

        Args:
            body: pose that the map says.
            number: also its stamp in seconds.
            session: of the map.
            seen_from: where it truly was; None: where the map says.
        """
        from_where = seen_from or body
        assert from_where is not None
        return NewPlace(
            session,
            number * 10**9,
            f"{number}.jpg",
            body,
            None,
            self.mounted.camera.image_size_wh,
            jpeg(picture(number, 64, 48)),
            features((1.0, 0.1 * number, 0.0, 0.0)),
            encode_points(self.seen(from_where)),
        )


def shifted(scene: PosedScene, by_m: tuple[float, float, float], first: float = 0.5) -> PosedScene:
    """The same scene, in which a share of the things is moved, as where a colonnade is taken for its next period."""
    points = scene.points.copy()
    points[: round(first * len(points))] += by_m
    moved = replace(scene, points=points)
    moved.descriptors = scene.descriptors
    return moved


def error(measured: Pose, truth: Pose) -> Array:
    """(6,) x y z and rotation vector."""
    turn = Rotation.from_quat(measured.known_quat_xyzw) * Rotation.from_quat(truth.known_quat_xyzw).inv()
    return np.hstack([np.subtract(measured.known_xyz, truth.known_xyz), turn.as_rotvec()])


def seen_in(frame: Pose, body: Pose) -> Pose:
    """T_frame_body from two poses of one frame."""
    back = Rotation.from_quat(frame.known_quat_xyzw).inv()
    x, y, z = back.apply(np.subtract(body.known_xyz, frame.known_xyz)).tolist()
    qx, qy, qz, qw = (back * Rotation.from_quat(body.known_quat_xyzw)).as_quat().tolist()
    return Pose((x, y, z), (qx, qy, qz, qw))
