"""Image messages to RGB: by cv_bridge where it imports and works, else by rosbags-image; both give the same pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage, decode_image, to_rgb_uint8
from effovpr_ros.geometry.depth import depth_metres

Decoder = Callable[[Image], RgbImage]
DepthImage = NDArray[np.float32]
"""(H, W) metres, NaN where not known."""


def make_decoder() -> tuple[str, Decoder]:
    """The name of the decoder that works here, and the decoder."""
    try:
        return "cv_bridge", cv_bridge_decoder()
    except Exception:  # a cv_bridge of ROS 1 or built for another numpy fails in many ways
        return "rosbags-image", rosbags_decoder


def cv_bridge_decoder() -> Decoder:
    """A decoder by cv_bridge, tried on one pixel.

    Raises:
        Exception: whatever cv_bridge raises where it does not work.
    """
    from cv_bridge import CvBridge

    bridge = CvBridge()

    def decode(message: Image) -> RgbImage:
        mono = message.encoding.startswith(("mono", "8UC1", "16UC1"))
        wanted = "passthrough" if mono else "rgb8"
        return to_rgb_uint8(np.asarray(bridge.imgmsg_to_cv2(message, desired_encoding=wanted)))

    probe = Image(height=1, width=1, encoding="rgb8", step=3, data=[1, 2, 3])
    if decode(probe).tolist() != [[[1, 2, 3]]]:
        raise ImageError("cv_bridge returns other pixels than it was given")
    return decode


def rosbags_decoder(message: Image) -> RgbImage:
    """Decode by rosbags-image, which takes messages of rclpy too."""
    from rosbags.image import message_to_cvimage

    mono = message.encoding.startswith(("mono", "8UC1", "16UC1"))
    return to_rgb_uint8(np.asarray(message_to_cvimage(message, None if mono else "rgb8")))


def decode_message(message: Image | CompressedImage, decode: Decoder) -> RgbImage:
    """An image message as RGB.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: empty, truncated, or of an encoding that cannot be shown as RGB; names it.
    """
    if isinstance(message, CompressedImage):
        return decode_image(bytes(message.data), f"compressed image ({message.format or 'no format given'})")
    size = _require_pixels(message)
    try:
        return decode(message)
    except ImageError:
        raise
    except Exception as error:  # the decoders raise many types for unknown encodings
        raise ImageError(
            f"the image ({size}) cannot be converted to RGB: {error}; use rgb8, bgr8, mono8, mono16 or a Bayer encoding"
        ) from error


def decode_depth(message: Image) -> DepthImage:
    """Depth of an image message.

    Args:
        message: of encoding 32FC1 (metres) or 16UC1 (millimetres), as REP 118 has them.

    Returns:
        (H, W) float32 metres, NaN where not known.

    Raises:
        ImageError: empty, truncated or of another encoding.
    """
    size = _require_pixels(message)
    if message.encoding not in ("32FC1", "16UC1", "mono16"):
        raise ImageError(f"the depth image ({size}) is no depth; use 32FC1 in metres or 16UC1 in millimetres")
    from rosbags.image import message_to_cvimage

    return depth_metres(np.asarray(message_to_cvimage(message)))


def _require_pixels(message: Image) -> str:
    """Size and encoding of an image, for people.

    Raises:
        ImageError: it is empty or truncated.
    """
    size = f"{message.width}x{message.height} {message.encoding or 'without encoding'}"
    if not message.width or not message.height or not len(message.data):
        raise ImageError(f"the image is empty ({size}); check the camera driver")
    if len(message.data) < message.step * message.height:
        raise ImageError(
            f"the image ({size}) has {len(message.data)} bytes, its step of {message.step} needs "
            f"{message.step * message.height}; check the camera driver"
        )
    return size
