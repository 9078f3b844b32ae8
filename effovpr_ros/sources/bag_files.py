"""Bags on disk: what is one, how it is opened, which topics it has."""

from __future__ import annotations

from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from effovpr_ros.core.errors import SourceError
from effovpr_ros.core.images import shown

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Path",
    "sensor_msgs/msg/NavSatFix",
)
TRANSFORM_TYPE = "tf2_msgs/msg/TFMessage"

_STORAGE = ("*.mcap", "*.db3")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic")
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def is_bag(path: str | Path) -> bool:
    """Whether a path looks like a bag: a file, or a folder with the metadata or storage files of rosbag2."""
    root = Path(path)
    if root.is_file():
        return True
    try:
        described = b"rosbag2_bagfile_information" in (root / "metadata.yaml").read_bytes()[:4096]
    except OSError:
        described = False
    return described or any(found for pattern in _STORAGE for found in root.glob(pattern))


def bag_topics(path: str | Path) -> dict[str, str]:
    """Topics of a bag and their types.

    Raises:
        SourceError: missing or unreadable.
    """
    with opened_bag(Path(path)) as reader:
        return {connection.topic: connection.msgtype for connection in reader.connections}


def choose_topic(topics: dict[str, str], wanted: str, kinds: tuple[str, ...], what: str, path: Path) -> str:
    """The topic that is asked for, else the only one of the kinds.

    Raises:
        SourceError: it is not there, of another type, or there are none or several; lists those there are.
    """
    listed = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(topics.items())) or "none"
    if wanted:
        if topics.get(wanted) in kinds or (what == "pose" and topics.get(wanted) == TRANSFORM_TYPE):
            return wanted
        problem = f"is {topics[wanted]}, no {what}" if wanted in topics else "is not there"
        raise SourceError(f"bag {path}: {what} topic {wanted} {problem}; topics: {listed}")
    fitting = [topic for topic, kind in topics.items() if kind in kinds]
    if len(fitting) == 1:
        return fitting[0]
    found = f"{len(fitting)} fit" if fitting else "none fits"
    transforms = [topic for topic, kind in topics.items() if kind == TRANSFORM_TYPE and not topic.endswith("_static")]
    hint = ""
    if what == "pose" and not fitting and transforms:
        hint = f"; poses of transforms are read with --pose-topic {transforms[0]}"
    elif what == "pose" and not fitting:
        hint = "; a TUM trajectory is given with --table, and --pose-topic none builds a map without positions"
    raise SourceError(f"bag {path}: name the {what} topic with --{what}-topic, as {found}; topics: {listed}{hint}")


class opened_bag:  # noqa: N801
    """Context of an open reader whose errors on opening are this package's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> AnyReader:
        """Open.

        Raises:
            SourceError: missing or unreadable.
        """
        if not self._path.exists():
            raise SourceError(f"bag {shown(self._path)} does not exist")
        try:
            self._reader = AnyReader([storage_path(self._path)], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except Exception as error:  # storage plugins raise many types for damaged files
            raise SourceError(f"bag {shown(self._path)} cannot be read: {error}; {remedy(self._path)}") from error
        return self._reader

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._reader.close()


def remedy(path: Path) -> str:
    """What helps with a file or folder that cannot be read as a bag."""
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return "it is a picture: give the folder that holds it"
    if suffix in _VIDEOS:
        return f"it is a video: make pictures of it first, as by `ffmpeg -i {path.name} -r 2 pictures/%06d.jpg`"
    if suffix == ".bag":
        return f"a recording of ROS 1 that was not finished is made whole by `rosbag reindex {path.name}`"
    storage = path if path.is_file() else next((file for kind in _STORAGE for file in sorted(path.glob(kind))), None)
    if storage is not None and storage.suffix == ".mcap":
        return (
            f"a recording that was not finished is made whole by `mcap recover {storage.name} -o whole.mcap` (the tool "
            "is at https://mcap.dev/guides/cli)"
        )
    if storage is not None and storage.suffix == ".db3":
        return (
            f"metadata that are missing are made by `ros2 bag reindex {path.name}`, a damaged database is saved by "
            f'`sqlite3 {storage.name} ".recover" | sqlite3 whole.db3`'
        )
    return "wanted is a rosbag2 folder with metadata.yaml, a single .mcap or .db3 file, or a .bag file of ROS 1"


def storage_path(path: Path) -> Path:
    """What is opened of a bag: a folder without metadata but one storage file is read as that file."""
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = [file for pattern in _STORAGE for file in path.glob(pattern)]
        if len(files) == 1:
            return files[0]
    return path
