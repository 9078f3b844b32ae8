"""A bag of two cameras through the node, each part a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from synthetic import picture

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import NodeError
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.nodes.replay import camera_parameters, topics_of_cameras
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.frame import Frame

TOPICS = ["/front/image_raw/compressed", "/rear/image_raw/compressed"]
PLACES = 4


def scene(number: int) -> np.ndarray:
    return picture(number, 320, 240)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Four moments; both cameras see the scene, the rear one five milliseconds later."""
    with BagWriter(tmp_path / "drive") as writer:
        writer.write_static_transform(999 * 10**9, "base_link", "front_optical", Pose.from_yaw(0.0, 0.0, 0.0, 0.5))
        for number in range(PLACES):
            stamp_ns = (1000 + number) * 10**9
            camera = CameraModel((320, 240), (300.0, 300.0), (159.5, 119.5))
            writer.write_camera_info("/front/camera_info", stamp_ns, "front_optical", camera)
            writer.write_image(TOPICS[0], stamp_ns, scene(number), "front_optical")
            writer.write_image(TOPICS[1], stamp_ns + 5_000_000, scene(number), "rear_optical")
    return tmp_path / "drive"


def test_a_moment_is_answered_once_by_both_cameras(drive: Path, tmp_path: Path, offline_extractor: FeatureExtractor):
    with PlaceMap.create(tmp_path / "house", fingerprint=offline_extractor.fingerprint) as place_map:
        frames = [
            Frame(f"{n}.jpg", "first", n, Pose.from_yaw(20.0 * n, 0.0, 0.0), None, lambda n=n: scene(n))
            for n in range(PLACES)
        ]
        build_map(place_map, offline_extractor, frames, BuildConfig())
    out = tmp_path / "matches.jsonl"
    arguments = ["--map", tmp_path / "house", "--bag", drive, "--image-topic", *TOPICS, "--out", out, "--rate", 0.25]
    arguments += ["--device", "cpu", "--engine", "torch"]
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.replay", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    # A busy machine may leave one out; each that is answered is so once, by both cameras.
    moments = [round(record["stamp_ns"] / 1e9) - 1000 for record in records]
    assert moments
    assert moments == sorted(set(moments))
    assert [record["candidates"][0]["place_id"] for record in records] == moments
    for record in records:
        assert "front" in record["reason"]
        assert "rear" in record["reason"]


def test_what_is_played_and_set_for_cameras(drive: Path):
    assert topics_of_cameras(drive, TOPICS) == ["/front/camera_info", "/tf_static"]
    assert camera_parameters(TOPICS[:1], "compressed") == {}
    assert camera_parameters(TOPICS, "compressed") == {
        "cameras": "front,rear",
        "front.image_topic": "/front/image_raw",
        "rear.image_topic": "/rear/image_raw",
    }
    with pytest.raises(NodeError, match="must end with /compressed"):
        camera_parameters(["/front/jpeg", "/rear/jpeg"], "compressed")
