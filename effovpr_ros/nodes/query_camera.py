"""The camera of the images that the node is asked with: calibration and mounting as the robot tells them."""

from __future__ import annotations

from typing import Any

from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.static_transforms import StaticTransforms
from effovpr_ros.sources.bag_cameras import frame_of, info_topic_beside, mounted_camera

_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
OF_THE_MAP = "of the map's session"
"""What takes the place of a camera or mounting that is not known."""


class QueryCamera:
    """The newest camera_info of one camera, with its mounting from a parameter or from /tf_static.

    Attributes:
        calibration: where the calibration is from, for people.
        mounting: where the mounting is from, for people.
    """

    def __init__(
        self,
        node: GuardedNode,
        image_topic: str,
        info_topic: str,
        given: Pose | None,
        transforms: StaticTransforms | None,
        body_frame: str,
        frame_id: str = "",
    ) -> None:
        """Subscribe.

        Args:
            node: that listens.
            image_topic: of its images, resolved.
            info_topic: of its camera_info; empty: beside the images.
            given: T_body_camera of the parameter; None: from the transforms.
            transforms: of the robot; None where the mounting is given.
            body_frame: whose poses the map holds.
            frame_id: optical frame; empty: as camera_info names it.
        """
        self._frame_id = frame_id
        self._node = node
        self._image_topic = image_topic
        self._given = given
        self._transforms = transforms
        self._body_frame = body_frame
        self._info: CameraInfo | None = None
        self._made: tuple[CameraInfo, int] | None = None
        self._camera: MountedCamera | None = None
        self.topic = info_topic or info_topic_beside(image_topic)
        self.calibration = f"{OF_THE_MAP}: nothing heard on {self.topic}"
        self.mounting = OF_THE_MAP
        self._subscription = node.subscribe(CameraInfo, self.topic, self._on_info, _QOS)

    def destroy(self) -> None:
        """Hear nothing any more."""
        self._node.destroy_subscription(self._subscription)

    @property
    def is_own(self) -> bool:
        """Whether calibration and mounting are the camera's own."""
        camera = self.camera()
        return camera is not None and camera.body_from_camera is not None

    @property
    def frame_id(self) -> str:
        """Optical frame; empty before camera_info names it."""
        return self._frame_id or (frame_of(self._info) if self._info is not None else "")

    def camera(self) -> MountedCamera | None:
        """As it is known now; None without a usable calibration."""
        version = self._transforms.version if self._transforms is not None else 0
        made = self._made
        if self._info is not None and (made is None or made[0] is not self._info or made[1] != version):
            self._made = (self._info, version)
            self._camera = self._make(self._info)
        return self._camera

    def _make(self, info: CameraInfo) -> MountedCamera | None:
        mounting, frame = self._given, self.frame_id
        self.mounting = "camera_pose"
        if mounting is None and self._transforms is not None:
            mounting = self._transforms.pose(self._body_frame, frame)
            self.mounting = f"/tf_static from {self._body_frame} to {frame}"
        camera, wrong = mounted_camera(info, self._image_topic, mounting)
        if wrong:
            self._node.report(f"{self.topic}: {wrong}")
        self.calibration = self.topic if camera is not None else f"{OF_THE_MAP}: {self.topic}: {wrong}"
        if mounting is None:
            self.mounting = f"{OF_THE_MAP}: no static transform from {self._body_frame} to {frame!r} on /tf_static"
        elif camera is None or camera.body_from_camera is None:
            self.mounting = f"{OF_THE_MAP}: {self.topic}: {wrong}"
        return camera

    def _on_info(self, message: CameraInfo) -> None:
        if self._info is None or not _is_same(self._info, message):
            self._info = message


def _is_same(a: CameraInfo, b: CameraInfo) -> bool:
    """Whether two messages describe one camera."""
    return _values(a) == _values(b)


def _values(info: CameraInfo) -> tuple[Any, ...]:
    arrays = (list(info.d), list(info.k), list(info.r), list(info.p))
    return (info.header.frame_id, info.width, info.height, info.distortion_model, *arrays, info.binning_x,
            info.binning_y, info.roi)  # fmt: skip
