"""Cameras and bearings, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from effovpr_ros.core.cameras import CameraModel, bearing_rad
from effovpr_ros.core.errors import CameraError

PINHOLE = CameraModel((640, 480), (320.0, 320.0), (319.5, 239.5))
K = (500.0, 0.0, 310.0, 0.0, 510.0, 250.0, 0.0, 0.0, 1.0)
D = {
    "plumb_bob": (-0.3, 0.1, 0.001, -0.002, -0.01),
    "rational_polynomial": (0.2, -0.1, 0.001, 0.001, 0.01, 0.3, -0.1, 0.02),
    "equidistant": (0.02, -0.01, 0.003, -0.001),
}


def test_a_pinhole_by_hand():
    assert math.degrees(PINHOLE.horizontal_fov_rad) == pytest.approx(90.0)
    assert PINHOLE.undistort(np.array([[319.5, 239.5], [639.5, 79.5]])) == pytest.approx(np.array([[0, 0], [1, -0.5]]))
    assert PINHOLE.undistort(np.empty((0, 2))).shape == (0, 2)
    assert CameraModel.from_field_of_view((640, 480), math.pi / 2).focal_xy_px == pytest.approx((320.0, 320.0))


@pytest.mark.parametrize("model", D)
def test_distorted_pixels_come_back_as_the_rays_that_made_them(model: str):
    camera = CameraModel.from_camera_info(640, 480, K, model, D[model])
    rays = np.array([[0.0, 0.0], [0.3, 0.2], [-0.4, 0.1], [0.1, -0.35]])
    points = np.column_stack([rays, np.ones(4)])[:, None]
    if model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), camera.matrix, np.array(D[model]))
    else:
        pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.matrix, np.array(D[model]))
    assert camera.undistort(pixels.reshape(-1, 2)) == pytest.approx(rays, abs=1e-4)
    # A thumbnail's pixel sees what the pixels under it saw.
    small = (pixels.reshape(-1, 2) + 0.5) / 2.0 - 0.5
    assert camera.scaled((320, 240)).undistort(small) == pytest.approx(rays, abs=1e-4)


def test_a_fisheye_by_hand():
    """Equidistant without coefficients: 200 px a radian."""
    k = (200.0, 0.0, 319.5, 0.0, 200.0, 239.5, 0.0, 0.0, 1.0)
    camera = CameraModel.from_camera_info(640, 480, k, "equidistant", (0.0, 0.0, 0.0, 0.0))
    assert camera.azimuth_rad(319.5 + 200.0) == pytest.approx(1.0, abs=1e-6)
    assert camera.horizontal_fov_rad == pytest.approx(math.pi)  # 3.2 rad, but the model ends at pi
    assert camera.undistort(np.array([[419.5, 239.5]]))[0] == pytest.approx([math.tan(0.5), 0.0])
    # 1.5 rad off the axis: a ray, but none of a picture plane.
    assert np.isnan(camera.undistort(np.array([[619.5, 239.5]]))).all()
    assert bearing_rad(0.25, camera) == pytest.approx(0.25 * 640 / 200, abs=1e-6)


def test_bearing_is_exact_for_a_turning_pinhole():
    """A camera that turns left by psi shifts a point from psi / 2 left of its axis to psi / 2 right of it."""
    for degrees in (-30.0, 0.0, 1.0, 40.0):
        psi = math.radians(degrees)
        offset = 2 * 320.0 * math.tan(psi / 2) / 640
        assert bearing_rad(offset, PINHOLE) == pytest.approx(psi)
        assert bearing_rad(offset, PINHOLE.scaled((160, 120))) == pytest.approx(psi)
    # All points of the shared view move at least as far.
    across = np.radians(np.linspace(-40.0, 20.0, 61))
    moved = 320.0 * (np.tan(across + math.radians(20.0)) - np.tan(across))
    assert bearing_rad(float(moved.min()) / 640, PINHOLE) == pytest.approx(math.radians(20.0), abs=1e-4)


@pytest.mark.parametrize("offset", [1.1, -2.0, float("nan")])
def test_offsets_beyond_the_image_are_refused(offset: float):
    with pytest.raises(CameraError, match=str(offset)):
        bearing_rad(offset, PINHOLE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((640, 480, (0.0,) * 9, "", ()), "not calibrated"),
        ((0, 0, K, "plumb_bob", ()), "image size"),
        ((640, 480, K[:4], "plumb_bob", ()), "4 values"),
        ((640, 480, (math.nan, *K[1:]), "plumb_bob", ()), "not finite"),
        ((640, 480, K, "omnidirectional", (0.1,)), "omnidirectional"),
        ((640, 480, K, "plumb_bob", (0.1, 0.2)), "2 distortion coefficients"),
    ],
)
def test_impossible_cameras_are_refused(values: tuple[Any, ...], message: str):
    with pytest.raises(CameraError, match=message):
        CameraModel.from_camera_info(*values)


def test_a_rectified_camera_without_a_model_is_a_pinhole():
    camera = CameraModel.from_camera_info(640, 480, K, "", ())
    assert camera.distortion_model == "plumb_bob" and camera.distortion == ()
