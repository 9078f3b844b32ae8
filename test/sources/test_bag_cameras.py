"""The camera of a bag and its mounting, calibration files, and guesses from EXIF."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import CameraError
from effovpr_ros.core.poses import Pose
from effovpr_ros.sources.bag_cameras import camera_of_bag, static_transform
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.camera_files import camera_of_exif, read_camera_file

CAMERA = CameraModel((64, 48), (50.0, 51.0), (31.5, 23.5))
AHEAD = Pose((0.2, 0.0, 0.5), (-0.5, 0.5, -0.5, 0.5))
YAML = """
image_width: 640
image_height: 480
camera_matrix: {rows: 3, cols: 3, data: [500.0, 0, 320.0, 0, 501.0, 240.0, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.1, 0.01, 0, 0, 0]}
projection_matrix: {rows: 3, cols: 4, data: [450.0, 0, 321.0, 0, 0, 451.0, 241.0, 0, 0, 0, 1, 0]}
"""


def link(parent: str, child: str, xyz: tuple[float, float, float], yaw: float = 0.0) -> SimpleNamespace:
    pose = Pose.from_yaw(*xyz[:2], yaw, xyz[2])
    x, y, z, w = pose.known_quat_xyzw
    transform = SimpleNamespace(
        translation=SimpleNamespace(x=xyz[0], y=xyz[1], z=xyz[2]), rotation=SimpleNamespace(x=x, y=y, z=z, w=w)
    )
    return SimpleNamespace(header=SimpleNamespace(frame_id=parent), child_frame_id=child, transform=transform)


def write_bag(
    path: Path, *, camera: CameraModel | None = CAMERA, mounted: bool = True, topic: str = "/cam/image"
) -> Path:
    with BagWriter(path) as writer:
        if mounted:
            writer.write_static_transform(0, "base_link", "mast", Pose((0.2, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
            writer.write_static_transform(0, "mast", "optical", Pose((0.0, 0.0, 0.5), AHEAD.known_quat_xyzw))
        for number in range(3):
            stamp_ns = (1 + number) * 10**9
            writer.write_odometry(
                "/odom", stamp_ns, Pose.from_yaw(number, 0, 0), frame_id="odom", child_frame_id="base_link"
            )
            if camera is not None:
                writer.write_camera_info("/cam/camera_info", stamp_ns, "optical", camera)
            writer.write_image(topic, stamp_ns, np.full((48, 64, 3), 40 * number, np.uint8), "optical")
    return path


def test_calibration_and_mounting_come_from_the_bag(tmp_path: Path):
    mounted, notes = camera_of_bag(BagSource(write_bag(tmp_path / "bag")), "base_link")
    assert mounted is not None
    assert notes == []
    assert mounted.camera == CAMERA
    assert not mounted.is_guess
    assert mounted.body_from_camera is not None
    assert mounted.body_from_camera.known_xyz == pytest.approx((0.2, 0.0, 0.5))
    assert mounted.body_from_camera.known_quat_xyzw == pytest.approx(AHEAD.known_quat_xyzw)


def test_a_mounting_that_was_given_counts_before_the_bags(tmp_path: Path):
    mounted, _ = camera_of_bag(BagSource(write_bag(tmp_path / "bag")), "base_link", AHEAD)
    assert mounted is not None
    assert mounted.body_from_camera == AHEAD


@pytest.mark.parametrize(("body", "mounted"), [("base_link", False), ("", True), ("elsewhere", True)])
def test_without_a_chain_of_transforms_the_mounting_is_unknown_and_the_remedy_named(
    tmp_path: Path, body: str, mounted: bool
):
    found, notes = camera_of_bag(BagSource(write_bag(tmp_path / "bag", mounted=mounted)), body)
    assert found is not None
    assert found.body_from_camera is None
    assert "--camera-pose" in notes[0]


def test_a_camera_that_is_not_calibrated_is_said_and_not_kept(tmp_path: Path):
    assert camera_of_bag(BagSource(write_bag(tmp_path / "none", camera=None)), "base_link") == (None, [])
    bag = tmp_path / "zeros"
    with BagWriter(bag) as writer:
        zeros = SimpleNamespace(image_size_wh=(64, 48), focal_xy_px=(0.0, 0.0), centre_xy_px=(0.0, 0.0))
        writer.write_camera_info("/cam/camera_info", 10**9, "optical", zeros)  # type: ignore[arg-type]
        writer.write_odometry("/odom", 10**9, AHEAD, frame_id="odom", child_frame_id="base_link")
        writer.write_image("/cam/image", 10**9, np.zeros((48, 64, 3), np.uint8), "optical")
    found, notes = camera_of_bag(BagSource(bag), "base_link")
    assert found is None
    assert "not calibrated" in notes[0]


def test_chains_lead_up_and_down():
    """From the camera's mast down to the base and up to the laser: 0.2 - 0.5 along x, turned by 90 degrees."""
    links = [link("base", "mast", (0.5, 0.0, 0.0)), link("base", "laser", (0.2, 0.0, 0.0), math.pi / 2)]
    pose = static_transform(links, "mast", "laser")
    assert pose is not None
    assert pose.known_xyz == pytest.approx((-0.3, 0.0, 0.0))
    assert pose.known_yaw_rad == pytest.approx(math.pi / 2)
    back = static_transform(links, "laser", "mast")
    assert back is not None
    assert back.known_xyz == pytest.approx((0.0, -0.3, 0.0), abs=1e-9)
    same = static_transform([], "base", "base")
    assert same is not None
    assert same.known_xyz == (0.0, 0.0, 0.0)
    assert static_transform(links, "base", "gps") is None


def test_what_has_no_value_or_would_close_a_loop_is_left_out():
    """A publisher that tells the same the other way round took the place of the first one once."""
    nothing, zero = link("base", "mast", (1.0, 0.0, 0.0)), link("base", "mast", (1.0, 0.0, 0.0))
    nothing.transform.translation.x = math.nan
    zero.transform.rotation.w = 0.0
    links = [link("base", "mast", (0.5, 0.0, 0.0)), link("mast", "base", (9.0, 0.0, 0.0)), nothing, zero]
    links += [link("", "mast", (1.0, 0.0, 0.0)), link("mast", "mast", (1.0, 0.0, 0.0))]
    pose = static_transform(links, "base", "mast")
    assert pose is not None
    assert pose.known_xyz == (0.5, 0.0, 0.0)
    # Of two of one frame the later counts, also under another parent, as in tf2.
    moved = static_transform([*links, link("lift", "mast", (2.0, 0.0, 0.0))], "lift", "mast")
    assert moved is not None
    assert moved.known_xyz == (2.0, 0.0, 0.0)
    assert static_transform([*links, link("lift", "mast", (2.0, 0.0, 0.0))], "base", "mast") is None


def test_a_calibration_file(tmp_path: Path):
    path = tmp_path / "camera.yaml"
    path.write_text(YAML)
    raw, rectified = read_camera_file(path), read_camera_file(path, rectified=True)
    assert (raw.focal_xy_px, raw.distortion) == ((500.0, 501.0), (-0.1, 0.01, 0.0, 0.0, 0.0))
    assert (rectified.focal_xy_px, rectified.centre_xy_px) == ((450.0, 451.0), (321.0, 241.0))


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "image_width: 640", "a: [", YAML.replace("500.0", "-1"), YAML.replace("500.0", "x")]
)
def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path: Path, text: str):
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(CameraError, match=r"camera\.yaml"):
        read_camera_file(path)
    with pytest.raises(CameraError, match="cannot be read"):
        read_camera_file(tmp_path / "missing.yaml")


def test_a_focal_length_of_exif_is_a_guess(tmp_path: Path):
    """28 mm on film of 43.27 mm diagonal, on 500 pixels of diagonal: 323.6 px."""
    image, exif = Image.new("RGB", (400, 300)), Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    image.save(tmp_path / "tagged.jpg", exif=exif)
    camera = camera_of_exif(tmp_path / "tagged.jpg")
    assert camera is not None
    assert camera.focal_xy_px == pytest.approx((323.55, 323.55), abs=0.01)
    image.save(tmp_path / "plain.jpg")
    assert camera_of_exif(tmp_path / "plain.jpg") is None
    assert camera_of_exif(tmp_path / "missing.jpg") is None
