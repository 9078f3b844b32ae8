"""A drive as a rosbag2: camera, odometry and fixes as a robot records them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.lab.simulation.level import CAMERA, CAMERA_MOUNTING, Level
from effovpr_ros.sources.bag_writer import BagWriter

IMAGE_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
ODOMETRY_TOPIC = "/odom"
FIX_TOPIC = "/fix"
FRAME_ID = "map"
BODY_FRAME, CAMERA_FRAME = "base_link", "camera_optical"
DATUM = Datum(GeoPoint(50.1, 8.68, 112.0))
"""Where the simulated building is said to stand."""

_FIX_STD_M = 1.5
_EXPOSED_MEAN = 90.0
_MAX_GAIN = 3.0
_OCCLUSION_EVERY_S = 25.0
_OCCLUSION_LASTS_S = 3.0


@dataclass(frozen=True)
class DriveCamera:
    """A camera of the robot.

    Attributes:
        image_topic: of its compressed images.
        info_topic: of its camera_info.
        frame_id: its optical frame.
        yaw_rad: where it looks, left of ahead. It stands above the robot's origin, as `level.CAMERA_MOUNTING` says.
    """

    image_topic: str = IMAGE_TOPIC
    info_topic: str = CAMERA_INFO_TOPIC
    frame_id: str = CAMERA_FRAME
    yaw_rad: float = 0.0

    @property
    def mounting(self) -> Pose:
        """T_body_camera."""
        if self.yaw_rad == 0.0:
            return CAMERA_MOUNTING
        turned = Rotation.from_euler("z", self.yaw_rad) * Rotation.from_quat(CAMERA_MOUNTING.known_quat_xyzw)
        x, y, z, w = turned.as_quat().tolist()
        return Pose(CAMERA_MOUNTING.position_xyz, (x, y, z, w))


FRONT = DriveCamera()
REAR = DriveCamera("/rear/image_raw/compressed", "/rear/camera_info", "rear_optical", math.pi)


def record_drive(
    level: Level,
    poses: Sequence[tuple[int, Pose]],
    bag: Path,
    *,
    disturbed: bool,
    seed: int,
    camera: DriveCamera = FRONT,
    storage: str = "mcap",
    progress: Callable[[int], object] | None = None,
) -> None:
    """Drive along poses and record what the camera sees.

    Args:
        level: the building.
        poses: stamps [ns] and poses of the robot.
        bag: directory to make.
        disturbed: change light, add noise, blur and passers-by.
        seed: of noise and fixes.
        camera: that looks.
        storage: mcap or sqlite3.
        progress: called with 1 for each frame.

    Raises:
        SimulationError: the simulator fails.
        SourceError: the bag exists.
    """
    generator = np.random.default_rng(seed)
    with BagWriter(bag, storage=storage) as writer:
        writer.write_static_transform(poses[0][0], BODY_FRAME, camera.frame_id, camera.mounting)
        for stamp_ns, wanted in poses:
            x, y, _ = wanted.position_xyz
            image, (x, y, yaw) = level.view(x, y, wanted.known_yaw_rad + camera.yaw_rad)
            pose = Pose.from_yaw(x, y, yaw - camera.yaw_rad, level.floor_z_m)
            image = expose(image)
            if disturbed:
                image = disturb(image, (stamp_ns - poses[0][0]) * 1e-9, generator)
            east, north, up = generator.normal(0.0, _FIX_STD_M, 3)
            fix = DATUM.to_geo((x + east, y + north, level.floor_z_m + up))
            writer.write_odometry(ODOMETRY_TOPIC, stamp_ns, pose, frame_id=FRAME_ID, child_frame_id=BODY_FRAME)
            writer.write_fix(FIX_TOPIC, stamp_ns, fix, "gps", std_m=_FIX_STD_M)
            writer.write_camera_info(camera.info_topic, stamp_ns, camera.frame_id, CAMERA)
            writer.write_image(camera.image_topic, stamp_ns, image, camera.frame_id)
            if progress:
                progress(1)


def expose(image: RgbImage) -> RgbImage:
    """What a camera's automatic exposure does with the level's dark rooms: a gain of at most 3 towards a mean of 90."""
    gain = float(np.clip(_EXPOSED_MEAN / max(float(image.mean()), 1.0), 1.0, _MAX_GAIN))
    return np.asarray(cv2.convertScaleAbs(image, alpha=gain), dtype=np.uint8)


def disturb(image: RgbImage, time_s: float, generator: np.random.Generator) -> RgbImage:
    """What another day does to a camera: exposure and colour drift, noise, motion blur and somebody in the way.

    Args:
        image: (H, W, 3) uint8 RGB.
        time_s: since the start; light drifts with it, and every 25 s somebody passes for 3 s.
        generator: of the noise.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    exposure = 1.0 + 0.35 * math.sin(time_s / 7.0)
    cast = np.array([1.0 + 0.08 * math.sin(time_s / 11.0), 1.0, 1.0 - 0.08 * math.sin(time_s / 11.0)])
    blurred = cv2.blur(image, (1 + 2 * int(generator.integers(0, 4)), 1))
    # In place: most of the time would go into memory that is taken and given back.
    values = generator.standard_normal(image.shape)
    values *= 6.0
    values += blurred * (exposure * cast)
    disturbed = np.clip(values, 0.0, 255.0, out=values).astype(np.uint8)
    passing = (time_s % _OCCLUSION_EVERY_S) / _OCCLUSION_LASTS_S
    if time_s > _OCCLUSION_EVERY_S and passing < 1.0:
        centre = (int(width * (1.2 * passing - 0.1)), int(height * 0.65))
        cv2.ellipse(disturbed, centre, (width // 11, height // 2), 0.0, 0.0, 360.0, (52, 60, 82), -1)
        cv2.circle(disturbed, (centre[0], int(height * 0.15)), width // 20, (176, 138, 116), -1)
    return disturbed
