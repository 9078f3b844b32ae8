"""The camera of a bag's images and its mounting: `camera_info`, and the static transforms to the image's frame."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import CameraError, EffoVPRError, SourceError, TransformError
from effovpr_ros.core.mounted_cameras import MountedCamera, is_rectified_topic, rectified_mounting
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.transforms import TransformTree
from effovpr_ros.sources.bag_files import opened_bag
from effovpr_ros.sources.bag_poses import pose_of
from effovpr_ros.sources.bags import BagSource

_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_STATIC_TOPIC = "/tf_static"
_MOST_TRANSFORMS = 1000


def camera_of_bag(
    source: BagSource, body_frame: str, mounting: Pose | None = None
) -> tuple[MountedCamera | None, list[str]]:
    """What a bag tells of the camera of its images.

    Args:
        source: whose image topic counts. Its camera_info is the topic beside it, or the only one.
        body_frame: frame whose poses the bag has; empty if unknown.
        mounting: T_body_camera that was given, in place of the bag's transforms.

    Returns:
        The camera, None where none is usable, and what is to be said, for people.

    Raises:
        SourceError: the bag is damaged.
    """
    with opened_bag(source.path) as reader:
        infos = {item.topic for item in reader.connections if item.msgtype == _INFO_TYPE}
        topic = _info_topic(source.image_topic, infos)
        if topic is None:
            return None, (["several camera_info topics, none beside the images: no camera is kept"] if infos else [])
        connections = [item for item in reader.connections if item.topic == topic]
        statics = [item for item in reader.connections if item.topic == _STATIC_TOPIC]
        try:
            first = next(reader.messages(connections), None)
            info: Any = None if first is None else reader.deserialize(first[2], first[0].msgtype)
            transforms: list[Any] = []
            if statics:
                for connection, _, data in islice(reader.messages(statics), _MOST_TRANSFORMS):
                    message: Any = reader.deserialize(data, connection.msgtype)
                    transforms.extend(message.transforms)
        except Exception as error:  # storage plugins raise many types for damaged files
            raise SourceError(f"bag {source.path}, topic {topic}: damaged ({error})") from error
    if info is None:
        return None, [f"{topic} holds no message: no camera is kept"]
    if mounting is None:
        mounting = static_transform(transforms, body_frame, frame_of(info))
    mounted, note = mounted_camera(info, source.image_topic, mounting)
    if mounted is None:
        return None, [f"{topic}: {note}; no camera is kept"]
    if mounting is None:
        return mounted, [
            f"no static transform from {body_frame or 'the body, which has no name,'} to {frame_of(info)!r}: name the "
            "camera's mounting with --camera-pose for measured poses"
        ]
    return mounted, [f"{topic}: {note}; the camera's mounting is unknown"] if note else []


def mounted_camera(info: Any, image_topic: str, mounting: Pose | None) -> tuple[MountedCamera | None, str]:
    """The camera that a CameraInfo describes, for the images of a topic.

    Args:
        info: sensor_msgs/CameraInfo of rclpy or of `rosbags`.
        image_topic: whose name says whether its images are rectified.
        mounting: T_body_camera of the frame that the CameraInfo names; None where unknown.

    Returns:
        The camera, None where it is not calibrated or impossible, without a mounting where R is impossible; and what
        is wrong, empty where nothing is.
    """
    rectified = is_rectified_topic(image_topic)
    try:
        camera = CameraModel.from_message(info, rectified=rectified)
    except CameraError as error:
        return None, str(error)
    if mounting is None:
        return MountedCamera(camera), ""
    try:
        return MountedCamera(camera, rectified_mounting(mounting, info.r) if rectified else mounting), ""
    except CameraError as error:
        return MountedCamera(camera), str(error)


def frame_of(message: Any) -> str:
    """Frame that a message's header names, without the slash that tf had before ROS 2."""
    return str(message.header.frame_id).lstrip("/")


def static_transform(transforms: Iterable[Any], parent: str, child: str) -> Pose | None:
    """Pose of a frame in another by a chain of static transforms, in either direction; None where none leads there.

    Args:
        transforms: geometry_msgs/TransformStamped of rclpy or of `rosbags`; of two of one frame the later counts. What
            has no value, or would close a loop, is left out.
        parent: frame that the pose is in.
        child: frame whose pose it is.
    """
    tree = TransformTree()
    for item in transforms:
        with suppress(EffoVPRError):
            add_static(tree, item)
    return pose_in(tree, parent, child)


def add_static(tree: TransformTree, item: Any) -> bool:
    """Keep a geometry_msgs/TransformStamped of /tf_static, of rclpy or of `rosbags`; whether it says anything new.

    Raises:
        TrajectoryError: it has no value.
        TransformError: names that are empty or equal, or a loop.
    """
    pose = pose_of(item.transform.translation, item.transform.rotation)
    return tree.add(str(item.header.frame_id), str(item.child_frame_id), 0, pose, is_static=True)


def pose_in(tree: TransformTree, parent: str, child: str) -> Pose | None:
    """Pose of a frame in another by static transforms; None where no chain of them leads there, or one has no name."""
    if not parent or not child:
        return None
    try:
        return tree.lookup(parent, child, 0)
    except TransformError:
        return None


def info_topic_beside(image_topic: str) -> str:
    """The camera_info of an image topic as image_transport names it: /camera/camera_info of /camera/image_raw."""
    base = image_topic.removesuffix("/compressed")
    return f"{base.rsplit('/', 1)[0]}/camera_info"


def _info_topic(image_topic: str, topics: set[str]) -> str | None:
    """The camera_info beside an image topic, else beside a topic of the name before its last part; else the only one.

    The latter is of drivers that publish `/camera/image_raw/compressed` beside `/camera/image_raw/camera_info`.
    """
    for beside in (info_topic_beside(image_topic), f"{image_topic.rsplit('/', 1)[0]}/camera_info"):
        if beside in topics:
            return beside
    return next(iter(topics)) if len(topics) == 1 else None
