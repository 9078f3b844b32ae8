"""Where a camera is mounted on the body whose poses are known, and how that is written down."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import CameraError, ConfigError, EffoVPRError
from effovpr_ros.core.poses import Pose


@dataclass(frozen=True)
class MountedCamera:
    """A camera of a session and where it is on the body whose poses are known.

    Attributes:
        camera: that takes the images.
        body_from_camera: T_body_camera, pose of the camera's optical frame (REP 103: x right, y down, z forward) in
            the body's; None where unknown.
        is_guess: the calibration was not measured, such as one from the focal length that EXIF names.
    """

    camera: CameraModel
    body_from_camera: Pose | None = None
    is_guess: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MountedCamera:
        """Inverse of `to_dict`.

        Raises:
            CameraError: of another form, or impossible values.
        """
        try:
            camera, mounting = values["camera"], values["body_from_camera"]
            width, height = camera["image_size_wh"]
            (fx, fy), (cx, cy) = camera["focal_xy_px"], camera["centre_xy_px"]
            model = CameraModel(
                (int(width), int(height)),
                (float(fx), float(fy)),
                (float(cx), float(cy)),
                str(camera["distortion_model"]),
                tuple(float(value) for value in camera["distortion"]),
            )
            pose = None if mounting is None else _pose_of(mounting)
            return cls(model, pose, bool(values["is_guess"]))
        except CameraError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, EffoVPRError) as error:
            raise CameraError(f"a stored camera is not of the form that this version reads: {error!r}") from error


def _pose_of(values: Mapping[str, Any]) -> Pose:
    x, y, z = (float(value) for value in values["position_xyz"])
    qx, qy, qz, qw = (float(value) for value in values["quat_xyzw"])
    return Pose((x, y, z), (qx, qy, qz, qw))


def is_rectified_topic(topic: str) -> bool:
    """Whether image_proc's convention says that a topic's images are rectified: `image_rect`, `image_rect_color`."""
    return re.search(r"(^|/)image_rect(_|/|$)", topic) is not None


def rectified_mounting(body_from_camera: Pose, r: Sequence[float]) -> Pose:
    """T_body_camera of rectified images, whose camera is turned by R of CameraInfo against that of the raw ones.

    Args:
        body_from_camera: of the raw camera's optical frame.
        r: nine values, row by row; all zeros for none.

    Raises:
        CameraError: not a rotation.
    """
    matrix = np.array([float(value) for value in r]).reshape(-1)
    if not matrix.any():
        return body_from_camera
    if len(matrix) != 9 or not np.allclose(matrix.reshape(3, 3) @ matrix.reshape(3, 3).T, np.eye(3), atol=1e-3):
        raise CameraError(f"r of camera_info {matrix.tolist()} is no rotation; calibrate the camera")
    turned = Rotation.from_quat(body_from_camera.quat_xyzw) * Rotation.from_matrix(matrix.reshape(3, 3)).inv()
    qx, qy, qz, qw = turned.as_quat().tolist()
    return Pose(body_from_camera.position_xyz, (qx, qy, qz, qw))


def parse_pose(text: str) -> Pose:
    """A pose from `x y z roll pitch yaw`, metres and radians; turned about the fixed axes in this order (REP-103).

    Raises:
        ConfigError: not six finite numbers.
    """
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != 6 or not all(math.isfinite(value) for value in values):
        raise ConfigError(f"camera_pose {text!r} is not six numbers x y z roll pitch yaw [m, rad]")
    x, y, z, *angles = values
    qx, qy, qz, qw = Rotation.from_euler("xyz", angles).as_quat().tolist()
    return Pose((x, y, z), (qx, qy, qz, qw))


def pose_text(pose: Pose) -> str:
    """What `parse_pose` reads as a pose.

    Raises:
        TrajectoryError: height or orientation is unknown.
    """
    angles = Rotation.from_quat(pose.known_quat_xyzw).as_euler("xyz").tolist()
    return " ".join(f"{value:.9g}" for value in (*pose.known_xyz, *angles))
