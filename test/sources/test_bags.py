"""Bags of both storages: poses of every type, gaps, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import picture

from effovpr_ros.core.errors import ImageError, SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.sources.bag_files import bag_topics
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.bags import BagSource, image_from_message

SECOND = 10**9
IMAGE, ODOM, FIX = "/camera/image", "/odom", "/fix"


def pose_at(number: float) -> Pose:
    return Pose.from_yaw(number, -number, 0.1 * number)


def write_bag(path: Path, *, storage: str = "mcap", raw: bool = False, images: int = 5) -> Path:
    """Images at full seconds; odometry and fixes at half seconds around them."""
    with BagWriter(path, storage=storage) as writer:
        for half in range(2 * images):
            stamp_ns = 1000 * SECOND + half * SECOND // 2
            if half % 2 == 0:
                quality = None if raw else 95
                writer.write_image(IMAGE, stamp_ns, picture(half), "camera", jpeg_quality=quality)
            writer.write_odometry(ODOM, stamp_ns, pose_at(half / 2), frame_id="odom", child_frame_id="base_link")
            writer.write_fix(FIX, stamp_ns, GeoPoint(50.0, 8.0 + half * 1e-5), "gps", std_m=1.0)
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("raw", [True, False])
def test_images_and_poses_come_back(tmp_path: Path, storage: str, raw: bool):
    source = BagSource(write_bag(tmp_path / "drive", storage=storage, raw=raw), pose_topic=ODOM)
    assert source.image_topic == IMAGE
    assert len(source) == 5
    frames = list(source.frames())
    assert [frame.stamp_ns for frame in frames] == [(1000 + i) * SECOND for i in range(5)]
    assert {(frame.session, frame.name) for frame in frames} == {("drive", IMAGE)}
    for number, frame in enumerate(frames):
        assert frame.pose is not None
        assert frame.pose.position_xyz == pytest.approx((number, -number, 0.0))
        difference = np.abs(frame.load().astype(int) - picture(2 * number))
        assert difference.max() == 0 if raw else difference.mean() < 4.0


def test_fixes_give_geo_tags_and_a_datum(tmp_path: Path):
    path = write_bag(tmp_path / "drive")
    source = BagSource(path, pose_topic=FIX)
    frames = list(source.frames())
    assert source.datum == Datum(GeoPoint(50.0, 8.0))
    assert frames[2].geo == GeoPoint(50.0, 8.00004)
    assert frames[2].pose is not None
    # A degree of longitude at 50 degrees north is 71.7 km.
    assert frames[2].pose.position_xyz[0] == pytest.approx(71.7e3 * 4e-5, rel=1e-3)
    given = Datum(GeoPoint(50.0, 7.9))
    assert BagSource(path, pose_topic=FIX, datum=given).datum == given


def make(writer: BagWriter, kind: str, *values: Any) -> Any:
    return writer._types[kind](*values)


@pytest.mark.parametrize("kind", ["PoseStamped", "PoseWithCovarianceStamped", "Path"])
def test_other_pose_messages(tmp_path: Path, kind: str):
    with BagWriter(tmp_path / "bag") as writer:
        stamped = []
        for number in range(3):
            stamp_ns = 1000 * SECOND + number * SECOND // 2
            header, pose = writer._header(stamp_ns, "map"), writer.pose_message(pose_at(number))
            writer.write_image(IMAGE, stamp_ns, picture(number), "camera")
            if kind == "PoseWithCovarianceStamped":
                pose = make(writer, "geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36))
            if kind == "Path":
                stamped.append(make(writer, "geometry_msgs/msg/PoseStamped", header, pose))
                message = make(writer, "nav_msgs/msg/Path", header, list(stamped))
            else:
                message = make(writer, f"geometry_msgs/msg/{kind}", header, pose)
            writer.write("/pose", stamp_ns, message)
    poses = [frame.pose for frame in BagSource(tmp_path / "bag").frames()]
    assert [pose.position_xyz[0] for pose in poses if pose] == pytest.approx([0.0, 1.0, 2.0])


def test_gaps_and_nan_are_refused_and_counted(tmp_path: Path):
    with BagWriter(tmp_path / "bag") as writer:
        for number in range(10):
            stamp_ns = 1000 * SECOND + number * SECOND
            writer.write_image(IMAGE, stamp_ns + SECOND // 2, picture(number), "camera")
            if number in (0, 1, 2, 8, 9):
                writer.write_odometry(ODOM, stamp_ns, pose_at(number), frame_id="odom", child_frame_id="base")
            if number == 5:
                broken = writer.pose_message(pose_at(5))
                broken.position.x = float("nan")
                message = make(writer, "geometry_msgs/msg/PoseStamped", writer._header(stamp_ns, "odom"), broken)
                writer.write("/nan", stamp_ns, message)
    source = BagSource(tmp_path / "bag", pose_topic=ODOM, max_gap_s=1.0)
    # Images at 0.5, 1.5 and 8.5 s lie between poses; 2.5 to 7.5 in the gap; 9.5 after the end.
    assert [round(frame.stamp_ns / SECOND - 1000, 1) for frame in source.frames()] == [0.5, 1.5, 8.5]
    assert source.refused == {"in a gap of the trajectory": 6, "outside the trajectory": 1}
    with pytest.raises(SourceError, match="/nan: the trajectory is empty"):
        BagSource(tmp_path / "bag", pose_topic="/nan")


def test_a_missing_topic_lists_those_there_are(tmp_path: Path):
    path = write_bag(tmp_path / "bag")
    with pytest.raises(SourceError, match=r"pose topic /pose is not there; topics: .*/odom \(nav_msgs/msg/Odometry\)"):
        BagSource(path, pose_topic="/pose")
    with pytest.raises(SourceError, match="name the pose topic with --pose-topic, as 2 fit"):
        BagSource(path)
    with pytest.raises(SourceError, match=r"image topic /odom is nav_msgs/msg/Odometry, no image"):
        BagSource(path, image_topic=ODOM, pose_topic=ODOM)
    assert set(bag_topics(path)) == {IMAGE, ODOM, FIX}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_truncated_bags_are_said_to_be_damaged(tmp_path: Path, storage: str):
    path = write_bag(tmp_path / "bag", storage=storage, raw=True, images=40)
    data = next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"bag .*(damaged|cannot be read)"):
        list(BagSource(path, pose_topic=ODOM).frames())


def test_what_is_no_bag(tmp_path: Path):
    with pytest.raises(SourceError, match="does not exist"):
        bag_topics(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"wanted is a rosbag2 folder with metadata\.yaml"):
        bag_topics(tmp_path)
    write_bag(tmp_path / "bag")
    with pytest.raises(SourceError, match="exists already"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(SourceError, match="storage 'csv'"):
        BagWriter(tmp_path / "other", storage="csv")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_appears_whole_and_under_its_own_name(tmp_path: Path, storage: str):
    path = tmp_path / "drives" / "first"
    with BagWriter(path, storage=storage) as writer:
        writer.write_fix(FIX, SECOND, GeoPoint(50.0, 8.0), "gps", std_m=1.0)
        assert not path.exists()
    assert [entry.name for entry in path.parent.iterdir()] == ["first"]
    files = {entry.name for entry in path.iterdir()}
    assert files == {"metadata.yaml", "first.mcap" if storage == "mcap" else "first.db3"}
    assert "unfinished" not in (path / "metadata.yaml").read_text()

    def interrupted() -> None:
        with BagWriter(tmp_path / "drives" / "second", storage=storage):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [entry.name for entry in path.parent.iterdir()] == ["first"]


class Raw:
    """What rosbags gives for an Image."""

    __msgtype__ = "sensor_msgs/msg/Image"

    def __init__(self, encoding: str, data: np.ndarray, step: int, size: tuple[int, int] = (2, 2)) -> None:
        self.width, self.height = size
        self.encoding, self.step, self.is_bigendian = encoding, step, 0
        self.data = data.reshape(-1).view(np.uint8)

        class Stamp:
            sec, nanosec = 5, 0

        class Header:
            stamp = Stamp

        self.header = Header


@pytest.mark.parametrize(
    ("encoding", "pixels", "step", "expected"),
    [
        ("rgb8", np.tile(np.array([1, 2, 3], np.uint8), 4), 6, [1, 2, 3]),
        ("bgr8", np.tile(np.array([1, 2, 3], np.uint8), 4), 6, [3, 2, 1]),
        ("bgra8", np.tile(np.array([1, 2, 3, 9], np.uint8), 4), 8, [3, 2, 1]),
        ("mono8", np.full(4, 7, np.uint8), 2, [7, 7, 7]),
        ("mono16", np.array([0xFF00, 0, 0, 0x1234], np.uint16), 4, [0x12, 0x12, 0x12]),
    ],
)
def test_encodings(encoding: str, pixels: np.ndarray, step: int, expected: list[int]):
    assert image_from_message(Raw(encoding, pixels, step))[1, 1].tolist() == expected


def test_bayer_images_are_demosaiced():
    image = image_from_message(Raw("bayer_rggb8", np.full(36, 90, np.uint8), 6, (6, 6)))
    assert image.shape == (6, 6, 3)
    assert (image == 90).all()


def test_images_that_are_too_short_or_unknown_are_named():
    with pytest.raises(ImageError, match=r"at 5\.000 s: the image \(2x2 rgb8\) has 3 bytes, its step of 6 needs 12"):
        image_from_message(Raw("rgb8", np.zeros(3, np.uint8), 6))
    with pytest.raises(ImageError, match=r"32FC7.*cannot be converted"):
        image_from_message(Raw("32FC7", np.zeros(112, np.uint8), 56))
