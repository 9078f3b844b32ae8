"""Cameras of pictures in a folder: a calibration file, or the focal length that EXIF names as a first guess."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from PIL import ExifTags, Image

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import CameraError

_MOST_BYTES = 1_000_000
# Width and height of the film that EXIF's equivalent focal length is for.
_FILM_DIAGONAL_MM = 43.27


def read_camera_file(path: Path, *, rectified: bool = False) -> CameraModel:
    """A calibration as ROS's camera_calibration writes it.

    Args:
        path: YAML with image_width, image_height, camera_matrix, distortion_model, distortion_coefficients and, for
            rectified images, projection_matrix.
        rectified: the images are rectified: the projection matrix counts.

    Raises:
        CameraError: unreadable, of another form, or impossible values; names what is missing.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CameraError(f"camera file {path} has {path.stat().st_size} bytes; that is no calibration")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CameraError(f"camera file {path} cannot be read: {error}") from error
    try:
        message = SimpleNamespace(
            width=int(values["image_width"]),
            height=int(values["image_height"]),
            k=_numbers(values["camera_matrix"]),
            distortion_model=str(values.get("distortion_model", "")),
            d=_numbers(values.get("distortion_coefficients", {"data": []})),
            p=_numbers(values["projection_matrix"]) if rectified else [],
            binning_x=0,
            binning_y=0,
            roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CameraError(
            f"camera file {path} is not as camera_calibration writes it ({error!r}); needed: image_width, "
            "image_height, camera_matrix, distortion_model and distortion_coefficients"
        ) from error
    try:
        return CameraModel.from_message(message, rectified=rectified)
    except CameraError as error:
        raise CameraError(f"camera file {path}: {error}") from error


def camera_of_exif(path: Path) -> CameraModel | None:
    """A guess from the focal length for 35 mm film that EXIF names; None where it names none.

    The picture's size is that of its header, turned as its EXIF orientation says.
    """
    try:
        with Image.open(path) as image:
            exif, (width, height) = image.getexif(), image.size
            focal_mm = float(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm) or 0.0)
            if exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
                width, height = height, width
    except (OSError, ValueError, TypeError, SyntaxError, ZeroDivisionError, Image.DecompressionBombError):
        return None
    if not 1.0 <= focal_mm <= 5000.0:
        return None
    focal_px = focal_mm / _FILM_DIAGONAL_MM * (width**2 + height**2) ** 0.5
    return CameraModel((width, height), (focal_px, focal_px), ((width - 1) / 2.0, (height - 1) / 2.0))


def _numbers(values: Mapping[str, Any]) -> list[float]:
    return [float(value) for value in values["data"]]
