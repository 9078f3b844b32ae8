"""CameraInfo as sensor_msgs defines it, mountings and what is stored of both, worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import CameraError
from effovpr_ros.core.mounted_cameras import MountedCamera, is_rectified_topic, rectified_mounting
from effovpr_ros.core.poses import Pose


def info(**changed: Any) -> SimpleNamespace:
    """A CameraInfo of a distorted camera of 1280 x 960 pixels."""
    values = {
        "width": 1280,
        "height": 960,
        "distortion_model": "plumb_bob",
        "d": [-0.3, 0.1, 0.0, 0.0, 0.0],
        "k": [1000.0, 0.0, 640.0, 0.0, 1010.0, 480.0, 0.0, 0.0, 1.0],
        "r": np.eye(3).ravel(),
        "p": [900.0, 0.0, 650.0, 0.0, 0.0, 905.0, 470.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False),
    }
    return SimpleNamespace(**{**values, **changed})


def test_a_raw_topic_has_k_and_the_distortion_and_a_rectified_one_p_without():
    raw = CameraModel.from_message(info(), rectified=False)
    assert (raw.focal_xy_px, raw.centre_xy_px) == ((1000.0, 1010.0), (640.0, 480.0))
    assert raw.distortion == (-0.3, 0.1, 0.0, 0.0, 0.0)
    rectified = CameraModel.from_message(info(), rectified=True)
    assert (rectified.focal_xy_px, rectified.centre_xy_px) == ((900.0, 905.0), (650.0, 470.0))
    assert rectified.distortion == ()
    with pytest.raises(CameraError, match="focal length"):
        CameraModel.from_message(info(p=[0.0] * 12), rectified=True)


def test_region_of_interest_and_then_binning():
    roi = SimpleNamespace(x_offset=200, y_offset=100, width=800, height=600, do_rectify=False)
    camera = CameraModel.from_message(info(roi=roi, binning_x=2, binning_y=2), rectified=False)
    assert camera.image_size_wh == (400, 300)
    assert camera.focal_xy_px == (500.0, 505.0)
    # (640 - 200 + 0.5) / 2 - 0.5, (480 - 100 + 0.5) / 2 - 0.5: a binned pixel's centre is that of the four under it.
    assert camera.centre_xy_px == pytest.approx((219.75, 189.75))
    outside = SimpleNamespace(x_offset=800, y_offset=0, width=800, height=600, do_rectify=False)
    with pytest.raises(CameraError, match="not inside"):
        CameraModel.from_message(info(roi=outside), rectified=False)


@pytest.mark.parametrize(
    ("size_wh", "fits"),
    [
        ((1280, 960), True),
        ((640, 480), True),
        ((320, 240), True),
        ((320, 239), True),
        ((320, 238), False),
        ((1280, 720), False),
    ],
)
def test_an_image_of_other_sides_is_not_the_cameras(size_wh: tuple[int, int], fits: bool):
    assert CameraModel.from_message(info(), rectified=False).fits(size_wh) is fits


def test_a_thumbnails_rounded_side_still_fits():
    """1282 x 961 shrunk to 320: 239.9 rows are 240."""
    camera = CameraModel((1282, 961), (900.0, 900.0), (640.0, 480.0))
    assert camera.fits((320, 240))


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/camera/image_rect", True),
        ("/camera/image_rect_color/compressed", True),
        ("image_rect", True),
        ("/camera/image_raw", False),
        ("/image_rectangles_of/image", False),
        ("/my_image_rect", False),
    ],
)
def test_rectified_topics_by_name(topic: str, rectified: bool):
    assert is_rectified_topic(topic) is rectified


def test_the_rectified_camera_is_turned_by_r():
    """R turns rays of the raw camera into the rectified one's, so that the mounting is turned back by it."""
    mounting = Pose((0.1, 0.2, 0.3), (0.0, 0.0, 0.0, 1.0))
    r = Rotation.from_euler("y", 10.0, degrees=True)
    turned = rectified_mounting(mounting, r.as_matrix().ravel())
    ray = np.array([0.1, -0.2, 1.0])
    assert Rotation.from_quat(turned.quat_xyzw).apply(r.apply(ray)) == pytest.approx(ray)
    assert turned.position_xyz == mounting.position_xyz
    assert rectified_mounting(mounting, [0.0] * 9) == mounting
    with pytest.raises(CameraError, match="no rotation"):
        rectified_mounting(mounting, [1.0, 0, 0, 0, 2.0, 0, 0, 0, 1.0])


def test_what_is_stored_comes_back():
    camera = CameraModel((640, 480), (500.0, 501.0), (319.5, 239.5), "equidistant", (0.1, 0.0, 0.0, 0.0))
    for mounted in (
        MountedCamera(camera, Pose((0.2, 0.0, 0.5), (-0.5, 0.5, -0.5, 0.5))),
        MountedCamera(camera, None, is_guess=True),
    ):
        assert MountedCamera.from_dict(mounted.to_dict()) == mounted


@pytest.mark.parametrize(
    "change",
    [
        {"camera": None},
        {"body_from_camera": {"position_xyz": (math.nan, 0, 0), "quat_xyzw": (0, 0, 0, 1)}},
        {"body_from_camera": {"position_xyz": "here"}},
        {"camera": {"image_size_wh": (0, 480)}},
    ],
)
def test_a_stored_camera_that_is_none_is_refused(change: dict[str, Any]):
    stored = MountedCamera(CameraModel((640, 480), (500.0, 501.0), (319.5, 239.5))).to_dict()
    with pytest.raises(CameraError, match="stored camera"):
        MountedCamera.from_dict({**stored, **change})
