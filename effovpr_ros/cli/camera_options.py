"""Options that name the camera of pictures, and what a source says of it itself.

What computes is loaded when it is needed, since help is not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effovpr_ros.core.mounted_cameras import MountedCamera
    from effovpr_ros.core.poses import Pose
    from effovpr_ros.sources.map_source import MapSource


def add_camera_options(parser: argparse.ArgumentParser) -> None:
    """Calibration and mounting of the camera."""
    parser.add_argument(
        "--camera",
        type=Path,
        help="YAML file of the camera's calibration, as ROS camera_calibration writes it, for "
        "measured poses; without it, camera_info of a bag",
    )
    parser.add_argument(
        "--camera-pose",
        nargs=6,
        metavar=("X", "Y", "Z", "ROLL", "PITCH", "YAW"),
        help="pose of the camera's optical frame in the body whose poses are known: x y z roll "
        "pitch yaw [m, rad]; 0.2 0 0.5 -1.5708 0 -1.5708 looks ahead; without it, /tf_static "
        "of a bag",
    )


def given_mounting(options: argparse.Namespace) -> Pose | None:
    """T_body_camera that was given.

    Raises:
        ConfigError: not six finite numbers.
    """
    from effovpr_ros.core.mounted_cameras import parse_pose

    return parse_pose(" ".join(options.camera_pose)) if options.camera_pose else None


def given_camera(options: argparse.Namespace) -> MountedCamera | None:
    """The camera that was given, with its mounting if that was too.

    Raises:
        CameraError: the file is no calibration.
        ConfigError: the mounting is not six finite numbers.
    """
    from effovpr_ros.core.mounted_cameras import MountedCamera
    from effovpr_ros.sources.camera_files import read_camera_file

    if options.camera is None:
        return None
    return MountedCamera(read_camera_file(options.camera), given_mounting(options))


def camera_of_source(options: argparse.Namespace, source: MapSource) -> tuple[MountedCamera | None, list[str]]:
    """The camera of a source's images: what was given, else what a bag or the EXIF of the first picture says.

    Returns:
        The camera, None where none is known, and what is to be said, for people.

    Raises:
        CameraError: the file that was given is no calibration.
        ConfigError: the mounting that was given is not six finite numbers.
        SourceError: the bag is damaged.
    """
    from effovpr_ros.core.mounted_cameras import MountedCamera, is_rectified_topic
    from effovpr_ros.sources.bag_cameras import camera_of_bag
    from effovpr_ros.sources.camera_files import camera_of_exif, read_camera_file

    mounting = given_mounting(options)
    if source.bag is not None:
        found, notes = camera_of_bag(source.bag, source.origin.child_frame_id, mounting)
        if options.camera is None:
            return found, notes
        rectified = is_rectified_topic(source.bag.image_topic)
        mounted = found.body_from_camera if found is not None and mounting is None else mounting
        return MountedCamera(read_camera_file(options.camera, rectified=rectified), mounted), []
    if options.camera is not None:
        return given_camera(options), []
    if not source.listed:
        return None, []
    guess = camera_of_exif(options.source / source.listed[0].name)
    if guess is None:
        return None, []
    note = "the camera is a guess from the focal length that EXIF names: no pose is measured by it; give "
    note += "the calibration with --camera FILE if you want that"
    return MountedCamera(guess, mounting, is_guess=True), [note]
