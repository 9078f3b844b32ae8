"""What is known of the camera's geometry: its calibration, and depth by time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sensor_msgs.msg import CameraInfo, Image

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import CameraError, ImageError
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.image_decoding import DepthImage, decode_depth

# An image's depth may arrive before or after it; a second of it at the usual 30 Hz.
_KEPT_DEPTHS = 30
_MAX_APART_NS = 20_000_000


class CameraGeometry:
    """The newest camera_info and the depth images of the last second; callbacks store, the worker asks."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """Start without either.

        Args:
            report: called with what is wrong with a message.
        """
        self._report = report
        self._info: CameraInfo | None = None
        self._read: tuple[CameraInfo, CameraModel | None] | None = None
        self._depths: deque[Image] = deque(maxlen=_KEPT_DEPTHS)

    def on_camera_info(self, message: CameraInfo) -> None:
        """Keep a message."""
        self._info = message

    def on_depth(self, message: Image) -> None:
        """Keep a message."""
        self._depths.append(message)

    def camera(self) -> CameraModel | None:
        """The camera; None where none is known, or what is known is impossible, which is reported once."""
        info = self._info
        if info is None:
            return None
        if self._read is None or not _is_same(self._read[0], info):
            self._read = (info, self._model(info))
        return self._read[1]

    def depth_m(self, stamp_ns: int) -> DepthImage | None:
        """The depth at a time; None where no depth image of that time was heard."""
        near = min(list(self._depths), key=lambda item: abs(ns_from_time(item.header.stamp) - stamp_ns), default=None)
        if near is None or abs(ns_from_time(near.header.stamp) - stamp_ns) > _MAX_APART_NS:
            return None
        try:
            return decode_depth(near)
        except ImageError as error:
            self._report(str(error))
            return None

    def _model(self, info: CameraInfo) -> CameraModel | None:
        try:
            return CameraModel.from_camera_info(info.width, info.height, info.k, info.distortion_model, info.d)
        except CameraError as error:
            self._report(f"camera_info: {error}")
            return None


def _is_same(a: CameraInfo, b: CameraInfo) -> bool:
    same_kind = (a.width, a.height, a.distortion_model) == (b.width, b.height, b.distortion_model)
    return same_kind and list(a.k) == list(b.k) and list(a.d) == list(b.d)
