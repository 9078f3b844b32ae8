"""A calibrated camera: pixels to rays, field of view, displacement to bearing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import CameraError

DISTORTION_LENGTHS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12, 14), "equidistant": (0, 4)}
"""Distortion models of sensor_msgs/CameraInfo that are understood, and how many coefficients each may have."""

# Beyond 80 degrees from the optical axis tan() turns a pixel's error into metres of the image plane.
_MAX_TANGENT = math.tan(math.radians(80.0))


@dataclass(frozen=True)
class CameraModel:
    """A pinhole camera with distortion, as in sensor_msgs/CameraInfo.

    Pixel (0, 0) is the centre of the upper left one. Camera axes are optical (REP 103): x right, y down, z forward.

    Attributes:
        image_size_wh: pixels of the image that the other values are for.
        focal_xy_px: fx, fy.
        centre_xy_px: cx, cy, the principal point.
        distortion_model: a key of `DISTORTION_LENGTHS`.
        distortion: coefficients in the order of CameraInfo's d; empty for none.

    Raises:
        CameraError: a value is impossible, or the model is not known.
    """

    image_size_wh: tuple[int, int]
    focal_xy_px: tuple[float, float]
    centre_xy_px: tuple[float, float]
    distortion_model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no camera has."""
        if min(self.image_size_wh) <= 0:
            raise CameraError(f"camera image size {self.image_size_wh} is not positive; is camera_info complete?")
        values = (*self.focal_xy_px, *self.centre_xy_px, *self.distortion)
        if not all(math.isfinite(value) for value in values):
            raise CameraError(f"camera calibration {values} is not finite; calibrate the camera")
        # A driver without calibration publishes zeros (sensor_msgs/CameraInfo).
        if min(self.focal_xy_px) <= 0.0:
            raise CameraError(f"focal length {self.focal_xy_px} px is not positive; the camera is not calibrated")
        lengths = DISTORTION_LENGTHS.get(self.distortion_model)
        if lengths is None:
            known = ", ".join(DISTORTION_LENGTHS)
            raise CameraError(f"distortion model {self.distortion_model!r} is unknown; known are {known}")
        if len(self.distortion) not in lengths:
            raise CameraError(
                f"{len(self.distortion)} distortion coefficients do not fit {self.distortion_model}, which has "
                f"{' or '.join(map(str, lengths))}"
            )

    @classmethod
    def from_camera_info(
        cls, width: int, height: int, k: Sequence[float], distortion_model: str, d: Sequence[float]
    ) -> CameraModel:
        """The camera that a CameraInfo describes.

        Args:
            width: pixels.
            height: pixels.
            k: nine values, row by row: fx 0 cx, 0 fy cy, 0 0 1.
            distortion_model: may be empty where d is: rectified and simulated cameras publish that.
            d: distortion coefficients; all zeros is no distortion.

        Raises:
            CameraError: not calibrated, or a model that is not known.
        """
        if len(k) != 9:
            raise CameraError(f"k of camera_info has {len(k)} values; it must have 9")
        coefficients = tuple(float(value) for value in d) if any(d) else ()
        model = distortion_model if distortion_model or coefficients else "plumb_bob"
        return cls((width, height), (float(k[0]), float(k[4])), (float(k[2]), float(k[5])), model, coefficients)

    @classmethod
    def from_message(cls, message: Any, *, rectified: bool) -> CameraModel:
        """The camera of the images beside which a CameraInfo was published, as sensor_msgs/CameraInfo defines it.

        K, D and P are for the full resolution of calibration; the image is the region of interest of it, then binned.

        Args:
            message: sensor_msgs/CameraInfo of rclpy or of `rosbags`.
            rectified: the image comes from a rectified topic, whose camera is P without distortion. The fourth column
                of P, which a second camera of a stereo pair has, is not used: it moves no ray.

        Raises:
            CameraError: not calibrated, impossible, or a model that is not known.
        """
        if rectified:
            p = [float(value) for value in message.p]
            if len(p) != 12:
                raise CameraError(f"p of camera_info has {len(p)} values; it must have 12")
            camera = cls.from_camera_info(message.width, message.height, [*p[:3], *p[4:7], *p[8:11]], "", ())
        else:
            camera = cls.from_camera_info(
                message.width,
                message.height,
                message.k,
                message.distortion_model,
                [float(value) for value in message.d],
            )
        roi = message.roi
        # All zeros is the full picture, and a binning of 0 is none.
        if (roi.width, roi.height) != (0, 0):
            camera = camera.cropped((roi.x_offset, roi.y_offset), (roi.width, roi.height))
        binning = (max(1, message.binning_x), max(1, message.binning_y))
        width, height = camera.image_size_wh
        return camera if binning == (1, 1) else camera.scaled((width // binning[0], height // binning[1]))

    @classmethod
    def from_field_of_view(cls, image_size_wh: tuple[int, int], horizontal_fov_rad: float) -> CameraModel:
        """A pinhole with square pixels and its principal point in the middle: a guess where nothing was calibrated.

        Raises:
            CameraError: no pinhole has such a field of view.
        """
        if not 0.0 < horizontal_fov_rad < math.pi:
            raise CameraError(f"a pinhole's field of view is between 0 and pi, not {horizontal_fov_rad} rad")
        focal = image_size_wh[0] / 2.0 / math.tan(horizontal_fov_rad / 2.0)
        return cls(image_size_wh, (focal, focal), ((image_size_wh[0] - 1) / 2.0, (image_size_wh[1] - 1) / 2.0))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) K."""
        (fx, fy), (cx, cy) = self.focal_xy_px, self.centre_xy_px
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    @property
    def horizontal_fov_rad(self) -> float:
        """Angle between the rays at the left and right border, at the height of the principal point.

        At most pi: OpenCV's fisheye model ends there.
        """
        return self.azimuth_rad(self.image_size_wh[0] - 0.5) - self.azimuth_rad(-0.5)

    def cropped(self, offset_xy: tuple[int, int], image_size_wh: tuple[int, int]) -> CameraModel:
        """The same camera for a part of its image.

        Raises:
            CameraError: the part is not inside the image.
        """
        if any(
            offset < 0 or size <= 0 or offset + size > full
            for offset, size, full in zip(offset_xy, image_size_wh, self.image_size_wh, strict=True)
        ):
            raise CameraError(
                f"region of interest {image_size_wh} at {offset_xy} is not inside an image of {self.image_size_wh}"
            )
        centre = (self.centre_xy_px[0] - offset_xy[0], self.centre_xy_px[1] - offset_xy[1])
        return replace(self, image_size_wh=image_size_wh, centre_xy_px=centre)

    def fits(self, image_size_wh: tuple[int, int]) -> bool:
        """Whether an image of this size may be the camera's, resized: the ratio of its sides is the same.

        A side is rounded to whole pixels, so that a small picture's ratio may be off by one of them.
        """
        (width, height), (own_width, own_height) = image_size_wh, self.image_size_wh
        return min(image_size_wh) > 0 and abs(width * own_height - height * own_width) <= max(own_width, own_height)

    def scaled(self, image_size_wh: tuple[int, int]) -> CameraModel:
        """The same camera for its image resized, such as a thumbnail; sides may be scaled differently.

        Raises:
            CameraError: a side of the image is not positive.
        """
        scale_x, scale_y = (new / old for new, old in zip(image_size_wh, self.image_size_wh, strict=True))
        (fx, fy), (cx, cy) = self.focal_xy_px, self.centre_xy_px
        centre = ((cx + 0.5) * scale_x - 0.5, (cy + 0.5) * scale_y - 0.5)
        return replace(self, image_size_wh=image_size_wh, focal_xy_px=(fx * scale_x, fy * scale_y), centre_xy_px=centre)

    def undistort(self, points_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels to normalised image coordinates.

        Args:
            points_xy: (N, 2) pixels; N may be 0.

        Returns:
            (N, 2) x / z and y / z of the ray; NaN for rays more than 80 degrees off the optical axis.
        """
        if len(points_xy) == 0:
            return np.empty((0, 2))
        pixels = np.asarray(points_xy, np.float64).reshape(-1, 1, 2)
        coefficients = np.array(self.distortion) if self.distortion else None
        if self.distortion_model == "equidistant":
            # Equidistant without coefficients is a fisheye still: r = f theta.
            fisheye = np.zeros(4) if coefficients is None else coefficients
            undistorted = cv2.fisheye.undistortPoints(pixels, self.matrix, fisheye)
        else:
            undistorted = cv2.undistortPoints(pixels, self.matrix, coefficients)
        rays = np.asarray(undistorted, np.float64).reshape(-1, 2)
        rays[~(np.hypot(rays[:, 0], rays[:, 1]) < _MAX_TANGENT)] = np.nan
        return rays

    def azimuth_rad(self, column_px: float) -> float:
        """Angle of a column's ray right of the optical axis, at the height of the principal point."""
        cx, cy = self.centre_xy_px
        if self.distortion_model == "equidistant":
            # By the tangent, as `undistort` does it, a wide fisheye's border would be lost.
            return self._fisheye_angle((column_px - cx) / self.focal_xy_px[0])
        pixel = np.array([[[column_px, cy]]], np.float64)
        coefficients = np.array(self.distortion) if self.distortion else None
        return math.atan(float(cv2.undistortPoints(pixel, self.matrix, coefficients)[0, 0, 0]))

    def _fisheye_angle(self, distorted_rad: float) -> float:
        """Solve theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8) = theta_d, 0 <= theta <= pi / 2."""
        angles = np.linspace(0.0, math.pi / 2.0, 1801)
        k1, k2, k3, k4 = self.distortion or (0.0, 0.0, 0.0, 0.0)
        square = angles**2
        radii = angles * (1.0 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
        # Past its largest radius a fitted polynomial means nothing.
        rising = int(np.argmax(radii)) + 1
        return math.copysign(float(np.interp(abs(distorted_rad), radii[:rising], angles[:rising])), distorted_rad)


def bearing_rad(bearing_offset: float, camera: CameraModel) -> float:
    """How far the query looks to the left of the place (msg/LoopClosure), from the displacement of the scene.

    A camera that only turns shifts the scene by different amounts across the image, least where a point lies as far
    right of the principal point in one image as left of it in the other. Most matches agree on that displacement, so
    it is the one that wins: the angle is between the rays half the displacement right and left of the principal point,
    for a pinhole 2 atan(offset width / (2 fx)). That is exact for a pure turn; a sideways step adds its parallax.

    Args:
        bearing_offset: fraction of the image width; positive: the query sees the scene further right.
        camera: of both images, of any image size.

    Returns:
        Radians, positive counter-clockwise seen from above (REP 103): the query looks further left.

    Raises:
        CameraError: the offset is not finite or beyond the image's width.
    """
    if not abs(bearing_offset) <= 1.0:
        raise CameraError(f"bearing offset {bearing_offset} is no fraction of the image width in [-1, 1]")
    half = bearing_offset * camera.image_size_wh[0] / 2.0
    return camera.azimuth_rad(camera.centre_xy_px[0] + half) - camera.azimuth_rad(camera.centre_xy_px[0] - half)
