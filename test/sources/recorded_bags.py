"""Bags as people record them, each with what is to become of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import recorded_pictures as pictures
from inputs import Make, Right, add
from ros1_bags import ros1
from synthetic import picture

from effovpr_ros.core.poses import Pose
from effovpr_ros.sources.bag_writer import BagWriter

SECOND = 10**9
START = 1000 * SECOND
IMAGE, ODOM, FIX = "/camera/image", "/odom", "/fix"
Fill = Callable[[BagWriter], None]


def bag(fill: Fill, *options: str, storage: str = "mcap", source: str = "drive") -> Make:
    """A bag; `source` is the path that is given, below the folder it is made in."""

    def make(at: Path) -> list[str]:
        with BagWriter(at / "drive", storage=storage) as writer:
            fill(writer)
        return [str(at / source), *options]

    return make


def then(make: Make, change: Callable[[Path], object]) -> Make:
    """What was made, changed afterwards."""

    def made(at: Path) -> list[str]:
        arguments = make(at)
        change(at)
        return arguments

    return made


def both(*fills: Fill) -> Fill:
    return lambda writer: [fill(writer) for fill in fills] and None


def images(
    count: int = 2, *, start: int = START, raw: bool = False, topic: str = IMAGE, header: int | None = None
) -> Fill:
    """Pictures of seeds 1, 2, ... at full seconds; `header` in place of their stamps."""

    def fill(writer: BagWriter) -> None:
        for number in range(count):
            stamp = start + number * SECOND
            if header is None:
                writer.write_image(topic, stamp, picture(1 + number), "camera", jpeg_quality=None if raw else 95)
            else:
                data = pictures.encoded("JPEG", picture(1 + number), quality=95)
                compressed(data, stamp=header, recorded=stamp, topic=topic)(writer)

    return fill


def compressed(
    data: bytes, format: str = "jpeg", *, stamp: int = START, recorded: int | None = None, topic: str = IMAGE
) -> Fill:
    def fill(writer: BagWriter) -> None:
        header = writer._header(stamp, "camera")
        message = writer._make("sensor_msgs/msg/CompressedImage", header, format, np.frombuffer(data, np.uint8))
        writer.write(topic, stamp if recorded is None else recorded, message)

    return fill


def raw(
    encoding: str,
    rows: np.ndarray,
    size: tuple[int, int] = (96, 72),
    *,
    gap: int = 0,
    big: bool = False,
    cut: int = 0,
    stamp: int = START,
) -> Fill:
    """One raw image of rows of bytes, each followed by a gap."""

    def fill(writer: BagWriter) -> None:
        lines = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
        padded = np.pad(lines, ((0, 0), (0, gap)), constant_values=0xEE)
        data = padded.reshape(-1)[: padded.size - cut]
        header = writer._header(stamp, "camera")
        message = writer._make(
            "sensor_msgs/msg/Image", header, size[1], size[0], encoding, int(big), padded.shape[1], data
        )
        writer.write(IMAGE, stamp, message)

    return fill


def odometry(*, start: int = START - SECOND, count: int = 9, poses: dict[int, Pose] | None = None) -> Fill:
    """Half a metre along x in each half of a second; x is 1 m at START."""

    def fill(writer: BagWriter) -> None:
        for half in range(count):
            pose = Pose.from_yaw(half / 2, 0.0, 0.0)
            writer.write_odometry(ODOM, start + half * SECOND // 2, pose, frame_id="odom", child_frame_id="base_link")

    return fill


def broken_odometry(at_half: int, **values: float) -> Fill:
    def fill(writer: BagWriter) -> None:
        message = writer.pose_message(Pose.from_yaw(at_half / 2, 0.0, 0.0))
        for name, value in values.items():
            part, _, axis = name.partition("_")
            setattr(getattr(message, part), axis, value)
        stamp = START - SECOND + at_half * SECOND // 2
        stamped = writer._make("geometry_msgs/msg/PoseStamped", writer._header(stamp, "map"), message)
        writer.write("/pose", stamp, stamped)

    return fill


def stamped_poses(*, skip: tuple[int, ...] = ()) -> Fill:
    def fill(writer: BagWriter) -> None:
        for half in range(9):
            if half not in skip:
                broken_odometry(half)(writer)

    return fill


def path(stamps: list[int], *, empty_last: bool = False) -> Fill:
    def fill(writer: BagWriter) -> None:
        poses = [
            writer._make(
                "geometry_msgs/msg/PoseStamped",
                writer._header(stamp, "map"),
                writer.pose_message(Pose.from_yaw(number / 2, 0.0, 0.0)),
            )
            for number, stamp in enumerate(stamps)
        ]
        for recorded, content in ((START, poses), (START + SECOND, [] if empty_last else poses)):
            writer.write("/path", recorded, writer._make("nav_msgs/msg/Path", writer._header(recorded, "map"), content))

    return fill


def fixes(*changes: dict[str, Any], count: int = 9) -> Fill:
    """Fixes at 50 north, 8 east; `changes` are for the first ones."""

    def fill(writer: BagWriter) -> None:
        for half in range(count):
            values = {"latitude": 50.0, "longitude": 8.0, "altitude": 100.0, "status": 0}
            values.update(changes[half] if half < len(changes) else {})
            stamp = START - SECOND + half * SECOND // 2
            message = writer._make(
                "sensor_msgs/msg/NavSatFix",
                writer._header(stamp, "gps"),
                writer._make("sensor_msgs/msg/NavSatStatus", values["status"], 1),
                values["latitude"],
                values["longitude"],
                values["altitude"],
                np.zeros(9),
                0,
            )
            writer.write(FIX, stamp, message)

    return fill


def transforms(body: str = "base_link", *, static: bool = True) -> Fill:
    """odom -> body moves along x; map -> odom stands 10 m along x, turned by 90 degrees."""

    def write(writer: BagWriter, topic: str, stamp: int, parent: str, child: str, pose: Pose) -> None:
        message = writer.pose_message(pose)
        translation = writer._make(
            "geometry_msgs/msg/Vector3", message.position.x, message.position.y, message.position.z
        )
        transform = writer._make("geometry_msgs/msg/Transform", translation, message.orientation)
        stamped = writer._make("geometry_msgs/msg/TransformStamped", writer._header(stamp, parent), child, transform)
        writer.write(topic, stamp, writer._make("tf2_msgs/msg/TFMessage", [stamped]))

    def fill(writer: BagWriter) -> None:
        if static:
            write(writer, "/tf_static", START - SECOND, "map", "odom", Pose.from_yaw(10.0, 0.0, np.pi / 2))
        for half in range(9):
            write(writer, "/tf", START - SECOND + half * SECOND // 2, "odom", body, Pose.from_yaw(half / 2, 0.0, 0.0))

    return fill


def garbage(topic: str, like: str, *, stamp: int = START) -> Fill:
    """Bytes that are no message, on a topic of that type."""

    def fill(writer: BagWriter) -> None:
        if topic not in writer._connections:
            writer._connections[topic] = writer._writer.add_connection(topic, like, typestore=writer._store)
        writer._writer.write(writer._connections[topic], stamp, b"\x00\x01\x00\x00\xff\xff\xff\x7f")

    return fill


def silent(topic: str, kind: str) -> Fill:
    """A topic without a message."""

    def fill(writer: BagWriter) -> None:
        writer._connections[topic] = writer._writer.add_connection(topic, kind, typestore=writer._store)

    return fill


def cut(name: str, keep: float) -> Callable[[Path], object]:
    """Keep the first part of a file."""

    def change(at: Path) -> None:
        file = next(at.rglob(name))
        content = file.read_bytes()
        file.write_bytes(content[: round(keep * len(content))])

    return change


AT = {
    f"{IMAGE} 0": Right(xyz=(1, 0, 0), yaw_deg=0.0, stamp_ns=START, looks=1),
    f"{IMAGE} 1": Right(xyz=(2, 0, 0), looks=2),
}
ONE = {IMAGE: Right(xyz=(1, 0, 0), looks=1)}
UNPOSED = {f"{IMAGE} 0": Right(xyz=None, looks=1), f"{IMAGE} 1": Right(xyz=None, looks=2)}
RGB = picture(1)


def storages() -> None:
    """How a bag lies on the disk."""
    whole = both(images(), odometry())
    for storage, ending in (("mcap", "mcap"), ("sqlite3", "db3")):
        add(f"{storage} bag", bag(whole, storage=storage), AT)
        add(
            f"single {ending} file",
            then(
                bag(whole, storage=storage, source=f"drive/drive.{ending}"),
                lambda at: (at / "drive" / "metadata.yaml").unlink(),
            ),
            AT,
        )
        add(
            f"{storage} bag without metadata",
            then(bag(whole, storage=storage), lambda at: (at / "drive" / "metadata.yaml").unlink()),
            AT,
        )
    add(
        "bag of ROS 1", ros1, {f"{IMAGE} 0": Right(xyz=(1, 0, 0), looks=1), f"{IMAGE} 1": Right(xyz=(2, 0, 0), looks=2)}
    )
    add("bag of ROS 1 cut off", then(ros1, cut("*.bag", 0.5)), said=("cannot be read", "rosbag reindex drive.bag"))
    add(
        "mcap that was not finished",
        then(bag(both(images(20, raw=True), odometry())), cut("*.mcap", 0.6)),
        said="mcap recover drive.mcap -o whole.mcap",
    )
    add(
        "db3 cut off",
        then(bag(both(images(20, raw=True), odometry()), storage="sqlite3"), cut("*.db3", 0.3)),
        said="ros2 bag reindex drive",
    )
    add("mcap of no bytes", then(bag(whole), cut("*.mcap", 0.0)), said="cannot be read")
    add("db3 of no bytes", then(bag(whole, storage="sqlite3"), cut("*.db3", 0.0)), said="cannot be read")
    add("metadata of no bytes", then(bag(whole), cut("metadata.yaml", 0.0)), said="cannot be read")
    add("metadata cut off", then(bag(whole), cut("metadata.yaml", 0.5)), said="cannot be read")
    add("storage that is gone", then(bag(whole), lambda at: next(at.rglob("*.mcap")).unlink()), said="cannot be read")
    add("text named mcap", lambda at: [str(_text(at / "a.mcap"))], said="cannot be read")
    add("text named bag", lambda at: [str(_text(at / "a.bag"))], said="cannot be read")
    add(
        "file of another kind",
        lambda at: [str(_text(at / "a.zip"))],
        said="wanted is a rosbag2 folder with metadata.yaml",
    )
    add(
        "bag without a message",
        bag(lambda writer: None),
        said="name the image topic with --image-topic, as none fits; topics: none",
    )
    add(
        "image topic without a message",
        bag(both(odometry(), silent(IMAGE, "sensor_msgs/msg/Image"))),
        said=f"topic {IMAGE} holds no message",
    )
    add(
        "pose topic without a message",
        bag(both(images(), silent(ODOM, "nav_msgs/msg/Odometry"))),
        said="the trajectory is empty",
    )


def _text(path: Path) -> Path:
    path.write_text("no bag\n" * 100)
    return path


def topics() -> None:
    """Which topics there are and which are asked for."""
    whole = both(images(), odometry())
    add("no image topic", bag(odometry()), said=("name the image topic", "/odom (nav_msgs/msg/Odometry)"))
    add(
        "two image topics",
        bag(both(whole, images(topic="/rear"))),
        said="name the image topic with --image-topic, as 2 fit",
    )
    add("one of two image topics", bag(both(whole, images(topic="/rear")), "--image-topic", IMAGE), AT)
    add(
        "image topic of another type",
        bag(whole, "--image-topic", ODOM),
        said=f"image topic {ODOM} is nav_msgs/msg/Odometry, no image",
    )
    add("pose topic of another type", bag(whole, "--pose-topic", IMAGE), said="no pose; topics:")
    add(
        "topic that is not there",
        bag(whole, "--image-topic", "/front"),
        said="image topic /front is not there; topics:",
    )
    add("no poses", bag(images()), said=("--pose-topic none builds a map without positions", "--table"))
    add("no poses wanted", bag(images(), "--pose-topic", "none"), UNPOSED, said="no image says where it was taken")

    def table(at: Path) -> list[str]:
        (at / "traj.txt").write_text("999 0 0 0 0 0 0 1\n1000 1 0 0 0 0 0 1\n1001 2 0 0 0 0 0 1\n1002 3 0 0 0 0 0 1\n")
        return [*bag(images())(at), "--table", str(at / "traj.txt"), "--max-gap-s", "1"]

    add("poses of a TUM trajectory", table, AT)
    add(
        "poses in /tf alone",
        bag(both(images(), transforms())),
        said="poses of transforms are read with --pose-topic /tf",
    )
    add(
        "poses of /tf",
        bag(both(images(), transforms()), "--pose-topic", "/tf"),
        {f"{IMAGE} 0": Right(xyz=(10, 1, 0), yaw_deg=90.0, looks=1), f"{IMAGE} 1": Right(xyz=(10, 2, 0))},
    )
    add("poses of /tf without /tf_static", bag(both(images(), transforms(static=False)), "--pose-topic", "/tf"), AT)
    add(
        "/tf without base_link",
        bag(both(images(), transforms("laser")), "--pose-topic", "/tf"),
        said=("no transform leads to base_link or base_footprint", "odom -> laser"),
    )
    add("/tf beside odometry", bag(both(whole, transforms())), AT)


def poses() -> None:
    """Poses and fixes, and what is wrong with some."""
    add("stamped poses", bag(both(images(), stamped_poses())), AT)
    add(
        "a pose of nan",
        bag(both(images(), stamped_poses(skip=(8,)), broken_odometry(8, position_x=float("nan")))),
        AT,
        said="1 x invalid pose",
    )
    add(
        "a pose without orientation",
        bag(both(images(), stamped_poses(skip=(8,)), broken_odometry(8, orientation_w=0.0))),
        AT,
        said="1 x invalid pose",
    )
    add(
        "only poses of nan",
        bag(both(images(), broken_odometry(2, position_x=float("nan")))),
        said="the trajectory is empty: 1 x invalid pose",
    )
    add(
        "a gap of poses",
        bag(both(images(), stamped_poses(skip=(3, 4, 5)))),
        ONE,
        refused=1,
        said="1 x in a gap of the trajectory",
    )
    add(
        "images before the poses",
        bag(both(images(3, start=START - 2 * SECOND), odometry())),
        {f"{IMAGE} 0": Right(xyz=(0, 0, 0), looks=2), f"{IMAGE} 1": Right(xyz=(1, 0, 0))},
        refused=1,
        said="1 x outside the trajectory",
    )
    add(
        "clocks of a bag apart by hours",
        bag(both(images(start=START + 7200 * SECOND), odometry())),
        refused=2,
        said=("the clocks of images and poses differ", "7197.000 s apart"),
    )
    add(
        "camera without a clock",
        bag(both(images(header=0), odometry())),
        {f"{IMAGE} 0": Right(xyz=(1, 0, 0), stamp_ns=START), f"{IMAGE} 1": Right(xyz=(2, 0, 0))},
    )
    add(
        "camera whose clock stands still",
        bag(both(images(header=START), odometry())),
        {f"{IMAGE} 0": Right(xyz=(1, 0, 0), looks=1), f"{IMAGE} 1": Right(xyz=(1, 0, 0), looks=2)},
    )
    halves = [START - SECOND + half * SECOND // 2 for half in range(9)]
    add("a path", bag(both(images(), path(halves))), AT)
    add("a path that is empty in the end", bag(both(images(), path(halves, empty_last=True))), AT)
    add("a path without stamps", bag(both(images(), path([0] * 9))), said="the 9 poses of the Path carry no stamp")
    here = {
        f"{IMAGE} 0": Right(xyz=(0, 0, 0), yaw_deg=None, geo=(50.0, 8.0, 100.0)),
        f"{IMAGE} 1": Right(geo=(50.0, 8.0, 100.0)),
    }
    add("fixes", bag(both(images(), fixes())), here)
    add(
        "the first fixes of status -1",
        bag(both(images(), fixes({"status": -1, "latitude": 0.0}, {"status": -1}))),
        here,
        said="2 x fix of status -1",
    )
    add(
        "all fixes of status -1",
        bag(both(images(), fixes(*[{"status": -1}] * 9))),
        said="no fix can be used: 9 x fix of status -1 (no satellite solution)",
    )
    add(
        "the first fix at (0, 0)",
        bag(both(images(), fixes({"latitude": 0.0, "longitude": 0.0}))),
        here,
        said="1 x fix at exactly (0, 0)",
    )
    add(
        "all fixes at (0, 0)",
        bag(both(images(), fixes(*[{"latitude": 0.0, "longitude": 0.0}] * 9))),
        said="no fix can be used: 9 x fix at exactly (0, 0)",
    )
    add("a fix of nan", bag(both(images(), fixes({"latitude": float("nan")}))), here, said="1 x invalid fix")
    add("a fix at latitude 95", bag(both(images(), fixes({"latitude": 95.0}))), here, said="1 x invalid fix")
    flat = {f"{IMAGE} 0": Right(xyz=(0, 0, None), geo=(50.0, 8.0, None)), f"{IMAGE} 1": Right(xyz=(0, 0, None))}
    add("fixes without altitude", bag(both(images(), fixes(*[{"altitude": float("nan")}] * 9))), flat)
    add(
        "a damaged message of odometry",
        bag(both(garbage(ODOM, "nav_msgs/msg/Odometry"), images(), odometry())),
        AT,
        said="1 x damaged message",
    )


def bag_pictures() -> None:
    """Raw and compressed images on a topic."""
    rows = RGB.reshape(72, -1)
    grey = Right(xyz=(1, 0, 0))
    alpha = np.concatenate([RGB, np.full((72, 96, 1), 9, np.uint8)], axis=2).reshape(72, -1)
    for name, fill in (
        ("rgb8", raw("rgb8", rows)),
        ("rgb8 with a gap between rows", raw("rgb8", rows, gap=32)),
        ("bgr8 with a gap between rows", raw("bgr8", RGB[..., ::-1].reshape(72, -1), gap=7)),
        ("rgba8", raw("rgba8", alpha)),
        ("rgb16 of 12 bits", raw("rgb16", rows.astype("<u2") * 16)),
        ("rgb16 in the other byte order", raw("rgb16", rows.astype(">u2") * 257, big=True)),
    ):
        add(f"raw {name}", bag(both(fill, odometry())), ONE)
    luma = RGB[..., 1]
    for name, fill in (
        ("mono8", raw("mono8", luma, gap=3)),
        ("mono16 of 12 bits", raw("mono16", luma.astype("<u2") * 16)),
        ("nv12", raw("nv12", np.concatenate([luma, np.full((36, 96), 128, np.uint8)]))),
        ("nv21", raw("nv21", np.concatenate([luma, np.full((36, 96), 128, np.uint8)]), gap=32)),
        ("yuyv", raw("yuv422_yuy2", np.dstack([luma, np.full_like(luma, 128)]).reshape(72, -1))),
        ("uyvy", raw("uyvy", np.dstack([np.full_like(luma, 128), luma]).reshape(72, -1))),
        ("bayer_rggb8", raw("bayer_rggb8", luma)),
    ):
        add(f"raw {name}", bag(both(fill, odometry())), {IMAGE: grey})
    later = images(1, start=START + SECOND, raw=True)
    second = {IMAGE: Right(xyz=(2, 0, 0), looks=1)}
    for name, fill, said in (
        ("an unknown encoding", raw("yuv9", rows), "yuv9"),
        ("a float encoding", raw("32FC1", luma.astype("<f4")), "32FC1"),
        ("data cut off", raw("rgb8", rows, cut=1), "20735 bytes, its step of 288 needs 20736"),
        ("no pixels", raw("rgb8", rows, (0, 0)), "empty"),
        ("a step shorter than a row", raw("rgb8", rows, (97, 72)), "a row needs 291"),
        ("a size of two billion", raw("rgb8", rows, (2**31, 2**31)), "more than 100 million pixels"),
    ):
        add(f"raw image of {name}", bag(both(fill, later, odometry())), second, refused=1, said=said)
    add(
        "a damaged image message",
        bag(both(garbage(IMAGE, "sensor_msgs/msg/Image"), later, odometry())),
        second,
        refused=1,
        said="1 x damaged message",
    )
    later = images(1, start=START + SECOND)
    for name, fill, said in (
        ("JPEG cut off", compressed(pictures.encoded("JPEG")[:900]), "cannot be decoded"),
        ("nothing", compressed(b""), "cannot be decoded (0 bytes)"),
        ("a video frame", compressed(b"\0\0\0\x01\x67\x42", "h264"), "compressed image (h264) cannot be decoded"),
        ("a bomb", compressed(pictures.png_header(60000, 60000), "png"), "the limit is 100 million"),
        (
            "depth",
            compressed(bytes(12) + pictures.encoded("PNG"), "16UC1; compressedDepth png"),
            "is depth, no picture",
        ),
    ):
        add(f"compressed image of {name}", bag(both(fill, later, odometry())), second, refused=1, said=said)
    add(
        "only images that cannot be read",
        bag(both(compressed(b"x"), odometry())),
        refused=1,
        said="0 places built: none of the 1 images",
    )
    add("compressed PNG", bag(both(compressed(pictures.encoded("PNG"), "rgb8; png compressed bgr8"), odometry())), ONE)


storages()
topics()
poses()
bag_pictures()
