"""Writing rosbag2 files without ROS: images, odometry and fixes."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import SourceError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import GeoPoint, Pose

_STORES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}


class BagWriter:
    """A new bag, open within its context; the folder appears when it is whole, and not at all after an error."""

    def __init__(self, path: str | Path, *, storage: str = "mcap") -> None:
        """Prepare a bag.

        Args:
            path: directory that does not exist yet.
            storage: mcap or sqlite3.

        Raises:
            SourceError: it exists, or the storage is unknown.
        """
        if storage not in _STORES:
            raise SourceError(f"storage {storage!r} is unknown; use {', '.join(_STORES)}")
        self._path = Path(path)
        if self._path.exists():
            raise SourceError(f"bag {path} exists already; remove it or choose another name")
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._types = self._store.types
        self._storage = _STORES[storage]
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        """Open the bag."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
        # The files inside bear the name of their folder, so this must be the bag's own.
        self._writer = Writer(self._unfinished / self._path.name, version=9, storage_plugin=self._storage)
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the bag, or remove what there is of it after an error."""
        try:
            self._writer.close()
            if error is None:
                self._writer.path.rename(self._path)
        finally:
            shutil.rmtree(self._unfinished, ignore_errors=True)

    def write_image(
        self, topic: str, stamp_ns: int, image: RgbImage, frame_id: str, *, jpeg_quality: int | None = 90
    ) -> None:
        """Write an image as CompressedImage (JPEG), or as raw rgb8 Image with `jpeg_quality` None.

        Args:
            topic: of the message.
            stamp_ns: of header and recording.
            image: (H, W, 3) uint8 RGB.
            frame_id: optical frame of the camera.
            jpeg_quality: 1 to 100.
        """
        header = self._header(stamp_ns, frame_id)
        if jpeg_quality is None:
            height, width = image.shape[:2]
            data = np.ascontiguousarray(image).reshape(-1)
            message = self._make("sensor_msgs/msg/Image", header, height, width, "rgb8", 0, 3 * width, data)
        else:
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
            message = self._make(
                "sensor_msgs/msg/CompressedImage", header, "rgb8; jpeg compressed bgr8", jpeg.reshape(-1)
            )
        self.write(topic, stamp_ns, message)

    def write_camera_info(self, topic: str, stamp_ns: int, frame_id: str, camera: CameraModel) -> None:
        """Write the CameraInfo of a pinhole camera without distortion."""
        (width, height), (fx, fy), (cx, cy) = camera.image_size_wh, camera.focal_xy_px, camera.centre_xy_px
        message = self._make(
            "sensor_msgs/msg/CameraInfo",
            self._header(stamp_ns, frame_id),
            height,
            width,
            "plumb_bob",
            np.zeros(5),
            np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], float),
            np.eye(3).reshape(-1),
            np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], float),
            0,
            0,
            self._make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False),
        )
        self.write(topic, stamp_ns, message)

    def write_static_transform(self, stamp_ns: int, parent: str, child: str, pose: Pose) -> None:
        """Write where a frame is in another for good, on /tf_static."""
        x, y, z = pose.known_xyz
        transform = self._make(
            "geometry_msgs/msg/Transform",
            self._make("geometry_msgs/msg/Vector3", x, y, z),
            self._make("geometry_msgs/msg/Quaternion", *pose.known_quat_xyzw),
        )
        stamped = self._make("geometry_msgs/msg/TransformStamped", self._header(stamp_ns, parent), child, transform)
        self.write("/tf_static", stamp_ns, self._make("tf2_msgs/msg/TFMessage", [stamped]))

    def write_odometry(self, topic: str, stamp_ns: int, pose: Pose, *, frame_id: str, child_frame_id: str) -> None:
        """Write a pose as Odometry with zero covariance and twist."""
        zero = self._make("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0)
        twist = self._make("geometry_msgs/msg/Twist", zero, zero)
        message = self._make(
            "nav_msgs/msg/Odometry",
            self._header(stamp_ns, frame_id),
            child_frame_id,
            self._make("geometry_msgs/msg/PoseWithCovariance", self.pose_message(pose), np.zeros(36)),
            self._make("geometry_msgs/msg/TwistWithCovariance", twist, np.zeros(36)),
        )
        self.write(topic, stamp_ns, message)

    def write_fix(self, topic: str, stamp_ns: int, geo: GeoPoint, frame_id: str, *, std_m: float) -> None:
        """Write a NavSatFix with a known standard deviation."""
        message = self._make(
            "sensor_msgs/msg/NavSatFix",
            self._header(stamp_ns, frame_id),
            self._make("sensor_msgs/msg/NavSatStatus", 0, 1),
            geo.latitude_deg,
            geo.longitude_deg,
            geo.altitude_m if geo.altitude_m is not None else math.nan,
            np.eye(3).reshape(-1) * std_m**2,
            2,
        )
        self.write(topic, stamp_ns, message)

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Write any message of the `rosbags` type store."""
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=self._store)
        self._writer.write(self._connections[topic], stamp_ns, self._store.serialize_cdr(message, kind))

    def pose_message(self, pose: Pose) -> Any:
        """A pose as geometry_msgs/Pose, which cannot say that something is unknown.

        Raises:
            TrajectoryError: height or orientation is unknown.
        """
        position = self._make("geometry_msgs/msg/Point", *pose.known_xyz)
        return self._make(
            "geometry_msgs/msg/Pose", position, self._make("geometry_msgs/msg/Quaternion", *pose.known_quat_xyzw)
        )

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = self._make("builtin_interfaces/msg/Time", seconds, nanoseconds)
        return self._make("std_msgs/msg/Header", stamp, frame_id)

    def _make(self, kind: str, *values: Any) -> Any:
        return self._types[kind](*values)
