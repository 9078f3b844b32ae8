"""A bag of ROS 1, written without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import recorded_pictures as pictures
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore
from synthetic import picture

SECOND = 10**9


def ros1(at: Path, topic: str = "/camera/image") -> list[str]:
    """Images and odometry in a bag of ROS 1."""
    store = get_typestore(Stores.ROS1_NOETIC)
    kinds = store.types

    def header(stamp: int, frame: str) -> Any:
        time = kinds["builtin_interfaces/msg/Time"](stamp // SECOND, stamp % SECOND)
        return kinds["std_msgs/msg/Header"](0, time, frame)

    with Ros1Writer(at / "drive.bag") as writer:
        image = writer.add_connection(topic, "sensor_msgs/msg/CompressedImage", typestore=store)
        odom = writer.add_connection("/pose", "geometry_msgs/msg/PoseStamped", typestore=store)
        for half in range(9):
            stamp = 1000 * SECOND - SECOND + half * SECOND // 2
            point = kinds["geometry_msgs/msg/Point"](half / 2, 0.0, 0.0)
            pose = kinds["geometry_msgs/msg/Pose"](point, kinds["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0))
            message = kinds["geometry_msgs/msg/PoseStamped"](header(stamp, "map"), pose)
            writer.write(odom, stamp, store.serialize_ros1(message, "geometry_msgs/msg/PoseStamped"))
        for number in range(2):
            stamp = 1000 * SECOND + number * SECOND
            data = np.frombuffer(pictures.encoded("JPEG", picture(1 + number), quality=95), np.uint8)
            message = kinds["sensor_msgs/msg/CompressedImage"](header(stamp, "camera"), "jpeg", data)
            writer.write(image, stamp, store.serialize_ros1(message, "sensor_msgs/msg/CompressedImage"))
    return [str(at / "drive.bag")]
