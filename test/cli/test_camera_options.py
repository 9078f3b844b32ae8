"""Options that name the camera of pictures, and what a map keeps of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from synthetic import picture, tiny_weights

from effovpr_ros.cli.main import main
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import read_cameras

CALIBRATION = """image_width: 96
image_height: 72
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [80.0, 0.0, 47.5, 0.0, 81.0, 35.5, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.1, 0.01, 0.0, 0.0, 0.0]}
"""
AHEAD = ("--camera-pose", "0.2", "0", "0.5", "-1.5707963", "0", "-1.5707963")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["image,x,y,yaw_deg"]
    for number in range(3):
        # 26 mm for 35 mm film, as a phone has it.
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 26
        Image.fromarray(picture(number)).save(folder / f"{number}.jpg", exif=exif)
        rows.append(f"{number}.jpg,{20 * number},0,0")
    (folder / "poses.csv").write_text("\n".join(rows) + "\n")
    return folder


def build(photos: Path, folder: Path, *more: str) -> int:
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(tiny_weights(photos.parent)), "--size", "56"]
    table = ["--table", str(photos / "poses.csv"), "--t1", "0.0", "--points", "none"]
    return main(["map", "build", str(folder), str(photos), *table, *model, *more])


def test_a_map_keeps_the_camera_that_is_given_and_info_tells_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "front.yaml").write_text(CALIBRATION)
    assert build(photos, tmp_path / "map", "--camera", str(tmp_path / "front.yaml"), *AHEAD) == 0
    with PlaceMap.open(tmp_path / "map") as place_map:
        ((session, mounted),) = read_cameras(place_map).items()
    assert mounted.camera.focal_xy_px == (80.0, 81.0)
    assert mounted.camera.distortion == (-0.1, 0.01, 0.0, 0.0, 0.0)
    assert not mounted.is_guess
    assert mounted.body_from_camera is not None
    assert mounted.body_from_camera.position_xyz == (0.2, 0.0, 0.5)
    # An optical frame that looks ahead: z along x of the body.
    assert mounted.body_from_camera.known_quat_xyzw == pytest.approx((-0.5, 0.5, -0.5, 0.5), abs=1e-6)
    capsys.readouterr()
    assert main(["map", "info", str(tmp_path / "map"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["cameras"][session]
    assert said["camera"]["image_size_wh"] == [96, 72]


def test_the_focal_length_of_exif_is_a_guess_and_said_to_be_one(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert build(photos, tmp_path / "map") == 0
    with PlaceMap.open(tmp_path / "map") as place_map:
        (mounted,) = read_cameras(place_map).values()
    assert mounted.is_guess
    # 26 mm of a film's diagonal of 43.27 mm; the picture's is 120 px: 72.1 px.
    assert mounted.camera.focal_xy_px == pytest.approx((72.1, 72.1), abs=0.05)
    assert "a guess from the focal length" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image_width: 96\n", "not as camera_calibration writes it"),
        (CALIBRATION.replace("80.0", "0.0"), "is not positive"),
        (CALIBRATION.replace("plumb_bob", "kannala"), "distortion model 'kannala' is unknown"),
        (CALIBRATION.replace("80.0", ".nan"), "not finite"),
        ("[1, 2", "cannot be read"),
    ],
)
def test_an_impossible_calibration_builds_nothing(
    photos: Path, tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "front.yaml").write_text(text)
    assert build(photos, tmp_path / "map", "--camera", str(tmp_path / "front.yaml"), *AHEAD) == 1
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_an_impossible_mounting_and_a_missing_file_build_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "front.yaml").write_text(CALIBRATION)
    mounting = ("--camera-pose", "0", "0", "nan", "0", "0", "0")
    assert build(photos, tmp_path / "map", "--camera", str(tmp_path / "front.yaml"), *mounting) == 1
    assert "six numbers" in capsys.readouterr().err
    assert build(photos, tmp_path / "map", "--camera", str(tmp_path / "gone.yaml")) == 1
    assert "gone.yaml cannot be read" in capsys.readouterr().err
