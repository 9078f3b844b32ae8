"""Cameras of a map's sessions: kept, read again, refused where they are another's or damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from posed_scene import CAMERA, MOUNTED
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import read_cameras, set_session_camera

FISHEYE = MountedCamera(
    CameraModel((320, 240), (160.0, 161.0), (159.0, 120.5), "equidistant", (0.1, -0.02, 0.003, 0.0)),
    None,
    is_guess=True,
)


def test_cameras_are_kept_by_session_and_read_again(tmp_path: Path):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as made:
        assert read_cameras(made) == {}
        set_session_camera(made, "a", MOUNTED)
        set_session_camera(made, "b", FISHEYE)
    with PlaceMap.open(tmp_path / "map") as opened:
        assert read_cameras(opened) == {"a": MOUNTED, "b": FISHEYE}
        # The same again changes nothing, also of a map that is read only; another one is a change.
        set_session_camera(opened, "a", MOUNTED)
        with pytest.raises(MapError):
            set_session_camera(opened, "c", MOUNTED)


def test_a_session_has_one_camera_once_it_has_places(tmp_path: Path):
    other = replace(MOUNTED, camera=CAMERA.scaled((320, 240)))
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as made:
        set_session_camera(made, "a", MOUNTED)
        set_session_camera(made, "a", other)
        assert read_cameras(made) == {"a": other}
        made.add([new_place(0)])
        with pytest.raises(MapError, match=r"session 'a' .* has another camera, of \(320, 240\) pixels .* session of"):
            set_session_camera(made, "a", MOUNTED)
        assert read_cameras(made) == {"a": other}


@pytest.mark.parametrize(
    "stored",
    [b"[", b"[1]", b'{"a": 3}', b'{"a": {"camera": {}}}', b"\xff", b'{"a": ' * 3000],
)
def test_damaged_cameras_are_an_error_of_the_map(tmp_path: Path, stored: bytes):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as made:
        made.set_property("session_cameras", stored)
        with pytest.raises(MapFormatError, match=r"cameras is damaged .* rebuild it"):
            read_cameras(made)


def test_an_impossible_calibration_that_was_stored_is_damage(tmp_path: Path):
    values = MOUNTED.to_dict()
    values["camera"]["focal_xy_px"] = (0.0, 0.0)
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as made:
        made.set_property("session_cameras", json.dumps({"a": values}).encode())
        with pytest.raises(MapFormatError, match="focal length"):
            read_cameras(made)
