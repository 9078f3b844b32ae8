"""Raw pixels as sensor_msgs/Image carries them, by encoding, row length and byte order; works without ROS.

Encodings are those of `sensor_msgs/image_encodings.hpp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import MAX_PIXELS, RgbImage, decode_image, decode_mosaic, to_rgb_uint8

DEPTH_ENCODINGS = ("32FC1", "16UC1", "mono16")


class ImageMessage(Protocol):
    """What sensor_msgs/Image has, whether of rclpy or of `rosbags`."""

    width: int
    height: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclass(frozen=True)
class _Layout:
    """One pixel of an encoding.

    Attributes:
        type: NumPy's name of a channel.
        channels: of a pixel.
        to_rgb: OpenCV's conversion; None where the channels are grey or red first already.
        half_planes: how many planes of half the rows follow the first one.
        multiple_of: what width (and, with half planes, height) must be a multiple of.
    """

    type: str
    channels: int
    to_rgb: int | None = None
    half_planes: int = 0
    multiple_of: int = 1


def _layouts() -> dict[str, _Layout]:
    layouts = {
        "uyvy": _Layout("u1", 2, cv2.COLOR_YUV2RGB_UYVY, multiple_of=2),
        "yuyv": _Layout("u1", 2, cv2.COLOR_YUV2RGB_YUY2, multiple_of=2),
        "nv12": _Layout("u1", 1, cv2.COLOR_YUV2RGB_NV12, half_planes=1, multiple_of=2),
        "nv21": _Layout("u1", 1, cv2.COLOR_YUV2RGB_NV21, half_planes=1, multiple_of=2),
        "8UC1": _Layout("u1", 1),
        "16UC1": _Layout("u2", 1),
        # OpenCV's names tell no order; publishers that name no colour mean red first, as rqt_image_view takes it.
        "8UC3": _Layout("u1", 3),
        "16UC3": _Layout("u2", 3),
    }
    layouts |= {"yuv422": layouts["uyvy"], "yuv422_yuy2": layouts["yuyv"]}
    for bits, kind in ((8, "u1"), (16, "u2")):
        layouts |= {
            f"mono{bits}": _Layout(kind, 1),
            f"rgb{bits}": _Layout(kind, 3),
            f"rgba{bits}": _Layout(kind, 4),
            f"bgr{bits}": _Layout(kind, 3, cv2.COLOR_BGR2RGB),
            f"bgra{bits}": _Layout(kind, 4, cv2.COLOR_BGRA2RGB),
            # OpenCV names a Bayer pattern by its second row and column.
            f"bayer_rggb{bits}": _Layout(kind, 1, cv2.COLOR_BayerBG2RGB),
            f"bayer_bggr{bits}": _Layout(kind, 1, cv2.COLOR_BayerRG2RGB),
            f"bayer_gbrg{bits}": _Layout(kind, 1, cv2.COLOR_BayerGR2RGB),
            f"bayer_grbg{bits}": _Layout(kind, 1, cv2.COLOR_BayerGB2RGB),
        }
    return layouts


_LAYOUTS = _layouts()
_DEPTH_LAYOUTS = {"32FC1": _Layout("f4", 1), "16UC1": _Layout("u2", 1), "mono16": _Layout("u2", 1)}


def raw_to_rgb(message: ImageMessage, *, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """Pixels of an Image message as RGB; rows may be longer than their pixels (`step`).

    Args:
        message: of rclpy or `rosbags`.
        max_pixels: a larger image is refused.

    Returns:
        (H, W, 3) uint8; 16 bits as by `to_rgb_uint8`.

    Raises:
        ImageError: empty, of an encoding that cannot be shown as RGB, or its data do not fit its size; names it.
    """
    name = describe(message)
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise ImageError(
            f"the image ({name}) cannot be converted to RGB; use rgb8, bgr8, mono8, mono16, yuyv, uyvy, nv12, nv21 "
            "or a Bayer encoding"
        )
    if message.width * message.height > max_pixels:
        raise ImageError(
            f"the image ({name}) has more than {max_pixels / 1e6:.0f} million pixels; shrink it, or raise the limit "
            "(max_megapixels)"
        )
    pixels = _pixels(message, layout, name)
    try:
        return to_rgb_uint8(pixels if layout.to_rgb is None else cv2.cvtColor(pixels, layout.to_rgb), f"image ({name})")
    except cv2.error as error:
        raise ImageError(f"the image ({name}) cannot be converted to RGB: {' '.join(str(error).split())}") from error


def raw_depth(message: ImageMessage) -> NDArray[Any]:
    """Pixels of a depth image, 32FC1 (metres) or 16UC1 (millimetres) as REP 118 has them.

    Returns:
        (H, W) float32 or uint16.

    Raises:
        ImageError: empty, of another encoding, or its data do not fit its size.
    """
    name = describe(message)
    layout = _DEPTH_LAYOUTS.get(message.encoding)
    if layout is None:
        raise ImageError(f"the depth image ({name}) is no depth; use 32FC1 in metres or 16UC1 in millimetres")
    return _pixels(message, layout, name)


def compressed_to_rgb(data: bytes, format: str, *, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """The picture of a CompressedImage message.

    image_transport compresses the mosaic of a Bayer sensor as it is and names the pattern in `format`.

    Args:
        data: of the message.
        format: of the message, e.g. `jpeg`, or `bayer_rggb8; jpeg compressed `.
        max_pixels: a larger picture is refused.

    Raises:
        ImageError: unreadable or too large; names the format.
    """
    name = f"compressed image ({format or 'no format given'})"
    if "compressedDepth" in format:
        raise ImageError(f"the {name} is depth, no picture; choose the topic of the colour or grey image")
    encoding, _, how = format.partition(";")
    layout = _LAYOUTS.get(encoding.strip())
    if encoding.startswith("bayer_") and layout is not None and layout.to_rgb is not None and "bgr8" not in how:
        mosaic = decode_mosaic(data, name, max_pixels=max_pixels)
        return to_rgb_uint8(cv2.cvtColor(mosaic, layout.to_rgb), name)
    return decode_image(data, name, max_pixels=max_pixels)


def describe(message: ImageMessage) -> str:
    """Size and encoding of an image, for people."""
    return f"{message.width}x{message.height} {message.encoding or 'without encoding'}"


def _pixels(message: ImageMessage, layout: _Layout, name: str) -> NDArray[Any]:
    """(H, W) or (H, W, channels) of the machine's byte order; planes of half the rows stand below the first."""
    width, height, data = message.width, message.height, message.data
    if not width or not height or not len(data):
        raise ImageError(f"the image is empty ({name}); check the camera driver")
    if width % layout.multiple_of or (layout.half_planes and height % 2):
        raise ImageError(f"the image ({name}) needs an even width{' and height' if layout.half_planes else ''}")
    rows = height + layout.half_planes * height // 2
    pixel_type = np.dtype(layout.type).newbyteorder(">" if message.is_bigendian else "<")
    row_bytes = width * layout.channels * pixel_type.itemsize
    # Drivers that leave it out mean rows without a gap.
    step = message.step or row_bytes
    if step < row_bytes:
        raise ImageError(f"the image ({name}) has a step of {step} bytes, a row needs {row_bytes}; check the driver")
    if len(data) != step * rows:
        raise ImageError(
            f"the image ({name}) has {len(data)} bytes, its step of {step} needs {step * rows}; check the camera driver"
        )
    lines = np.frombuffer(data, np.uint8).reshape(rows, step)[:, :row_bytes]
    pixels = np.ascontiguousarray(lines).view(pixel_type).astype(pixel_type.newbyteorder("="), copy=False)
    return pixels if layout.channels == 1 else pixels.reshape(rows, width, layout.channels)
