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

# Of the optical axis; cameras that look more steeply have no azimuth to speak of.
_LEAST_HORIZONTAL = 0.3


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


def camera_names(image_topics: Sequence[str]) -> tuple[str, ...]:
    """Short names of cameras by their topics: front and rear of /front/image_raw and /rear/image_raw/compressed.

    What all topics share is left out; what the images are called too, unless that is all that tells them apart.
    """
    parts = [topic.strip("/").removesuffix("/compressed").split("/") for topic in image_topics]
    cut = [part[:-1] for part in parts]
    if len(set(map(tuple, cut))) == len(cut) and all(cut):
        parts = cut
    while len(parts) > 1 and all(len(part) > 1 and part[0] == parts[0][0] for part in parts):
        parts = [part[1:] for part in parts]
    while len(parts) > 1 and all(len(part) > 1 and part[-1] == parts[0][-1] for part in parts):
        parts = [part[:-1] for part in parts]
    return tuple("_".join(part) for part in parts)


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


def pose_with_camera(body: Pose, there: Pose, here: Pose) -> Pose:
    """Pose of a body whose camera stands where that of another body stood, and looks the same way.

    T_map_body = T_map_other T_other_camera T_rel T_body_camera^-1, where T_rel, which is not measured, is what leaves
    height and tilt as those of the other body: both drive on one floor. So a camera that looks backward and sees what
    one that looked forward saw turns the body by half a turn.

    Args:
        body: T_map_other, of which the orientation is known.
        there: T_other_camera.
        here: T_body_camera.
    """
    if there == here:
        return body
    turn = Rotation.from_quat(body.known_quat_xyzw)
    looked, looks = (turn * Rotation.from_quat(camera.known_quat_xyzw) for camera in (there, here))
    turned = Rotation.from_euler("z", _azimuth_rad(looked) - _azimuth_rad(looks)) * turn
    shift = turn.apply(there.known_xyz) - turned.apply(here.known_xyz)
    (x, y, z), (qx, qy, qz, qw) = body.position_xyz, turned.as_quat().tolist()
    return Pose((x + float(shift[0]), y + float(shift[1]), z), (qx, qy, qz, qw))


def _azimuth_rad(camera: Rotation) -> float:
    """Where an optical frame looks, about the vertical; of one that looks up or down, where the top of its image is."""
    ahead = camera.apply((0.0, 0.0, 1.0))
    if math.hypot(ahead[0], ahead[1]) < _LEAST_HORIZONTAL:
        ahead = camera.apply((0.0, -1.0, 0.0))
    return math.atan2(ahead[1], ahead[0])


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
