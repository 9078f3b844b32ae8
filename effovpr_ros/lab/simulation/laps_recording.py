"""Laps as a rosbag2: camera and drifting odometry; the truth is kept in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.level import CAMERA, CAMERA_MOUNTING, Level
from effovpr_ros.lab.simulation.odometry import DriftingOdometry, OdometryConfig
from effovpr_ros.lab.simulation.recording import (
    BODY_FRAME,
    CAMERA_FRAME,
    CAMERA_INFO_TOPIC,
    IMAGE_TOPIC,
    ODOMETRY_TOPIC,
    disturb,
    expose,
)
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.trajectory import write_tum

ODOMETRY_FRAME_ID = "odom"


def record_laps(
    level: Level,
    poses: Sequence[tuple[int, Pose]],
    bag: Path,
    truth: Path,
    odometry: OdometryConfig,
    *,
    disturbed_from: int,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Drive along poses and record what the robot sees and believes.

    Args:
        level: the building.
        poses: stamps [ns] and poses of the camera.
        bag: directory to make: images, camera_info and odometry.
        truth: TUM file of the true poses, which the bag does not hold.
        odometry: how it drifts.
        disturbed_from: number of the first frame with changed light, noise, blur and passers-by.
        seed: of the noise.
        progress: called with 1 for each frame.

    Raises:
        SimulationError: the simulator fails.
        SourceError: the bag exists, or the truth cannot be written.
    """
    generator = np.random.default_rng(seed)
    drifting = DriftingOdometry(odometry)
    true_poses: list[tuple[int, Pose]] = []
    with BagWriter(bag) as writer:
        writer.write_static_transform(poses[0][0], BODY_FRAME, CAMERA_FRAME, CAMERA_MOUNTING)
        for number, (stamp_ns, wanted) in enumerate(poses):
            x, y, _ = wanted.position_xyz
            image, (x, y, yaw) = level.view(x, y, wanted.known_yaw_rad)
            image = expose(image)
            if number >= disturbed_from:
                image = disturb(image, (stamp_ns - poses[disturbed_from][0]) * 1e-9, generator)
            true_poses.append((stamp_ns, Pose.from_yaw(x, y, yaw, level.floor_z_m)))
            believed = drifting.advance(true_poses[-1][1])
            writer.write_odometry(
                ODOMETRY_TOPIC, stamp_ns, believed, frame_id=ODOMETRY_FRAME_ID, child_frame_id=BODY_FRAME
            )
            writer.write_camera_info(CAMERA_INFO_TOPIC, stamp_ns, CAMERA_FRAME, CAMERA)
            writer.write_image(IMAGE_TOPIC, stamp_ns, image, CAMERA_FRAME)
            if progress:
                progress(1)
    write_tum(truth, true_poses)
