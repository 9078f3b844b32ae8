"""Image messages to RGB and to depth; a map that is built from a bag sees the same pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from effovpr_ros.core.images import MAX_PIXELS, RgbImage
from effovpr_ros.core.pixels import compressed_to_rgb, raw_depth, raw_to_rgb
from effovpr_ros.geometry.depth import depth_metres

DepthImage = NDArray[np.float32]
"""(H, W) metres, NaN where not known."""


def decode_message(message: Image | CompressedImage, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """An image message as RGB.

    Args:
        message: raw or compressed.
        max_pixels: a larger picture is refused before it is decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: empty, truncated, too large, or of an encoding that cannot be shown as RGB; names it.
    """
    if isinstance(message, CompressedImage):
        return compressed_to_rgb(bytes(message.data), message.format, max_pixels=max_pixels)
    return raw_to_rgb(message, max_pixels=max_pixels)


def decode_depth(message: Image) -> DepthImage:
    """Depth of an image message.

    Args:
        message: of encoding 32FC1 (metres) or 16UC1 (millimetres), as REP 118 has them.

    Returns:
        (H, W) float32 metres, NaN where not known.

    Raises:
        ImageError: empty, truncated or of another encoding.
    """
    return depth_metres(raw_depth(message))
