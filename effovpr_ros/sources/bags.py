"""rosbag2 files as frames, without ROS: images with the pose that a topic of the bag gives at their stamp."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from effovpr_ros.core.errors import EffoVPRError, ImageError, SourceError, TrajectoryError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import MAX_PIXELS, RgbImage
from effovpr_ros.core.pixels import compressed_to_rgb, raw_to_rgb
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.sources.frame import Frame, content_digest
from effovpr_ros.sources.images import enu_pose
from effovpr_ros.sources.trajectory import GeoTrajectory, Trajectory

_logger = logging.getLogger(__name__)

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Path",
    "sensor_msgs/msg/NavSatFix",
)
_NO_FIX = -1


@dataclass(frozen=True)
class BagLocation:
    """Where a bag says that the robot was.

    Attributes:
        pose: in the map frame; without an orientation where it follows from a fix.
        geo: the fix, if the poses are fixes.
    """

    pose: Pose
    geo: GeoPoint | None


class BagSource:
    """Images of a bag with their poses.

    The pose is that of the pose topic's child frame: no transform from it to the camera is applied.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        image_topic: str | None = "",
        pose_topic: str = "",
        session: str = "",
        max_gap_s: float = 0.5,
        datum: Datum | None = None,
    ) -> None:
        """Open a bag and read its poses.

        Args:
            path: rosbag2 directory, or a single .mcap file.
            image_topic: Image or CompressedImage; empty for the only one there is; None where only poses are wanted.
            pose_topic: Odometry, PoseStamped, PoseWithCovarianceStamped, Path or NavSatFix; empty for the only one
                there is.
            session: name of the drive; the bag's name if empty.
            max_gap_s: images between poses further apart than this are refused.
            datum: origin of the map frame where the poses are fixes; the first fix if None.

        Raises:
            SourceError: unreadable, no such topic (lists those there are), or no usable pose.
        """
        self.path = Path(path)
        self.session = session or self.path.resolve().stem
        self.refused: Counter[str] = Counter()
        self._max_gap_ns = round(max_gap_s * 1e9)
        topics = bag_topics(self.path)
        self.image_topic = "" if image_topic is None else _choose(topics, image_topic, IMAGE_TYPES, "image", self.path)
        self.pose_topic = _choose(topics, pose_topic, POSE_TYPES, "pose", self.path)
        self.datum = datum
        self._fixes: GeoTrajectory | None = None
        self._poses: Trajectory | None = None
        try:
            if topics[self.pose_topic] == "sensor_msgs/msg/NavSatFix":
                self._fixes = self._read_fixes()
                self.datum = datum or Datum(self._fixes.origin)
            else:
                self._poses = self._read_poses()
        except TrajectoryError as error:
            raise SourceError(f"bag {self.path}, topic {self.pose_topic}: {error}") from error

    def __len__(self) -> int:
        """Number of images, with or without a pose."""
        with opened_bag(self.path) as reader:
            return sum(item.msgcount for item in reader.connections if item.topic == self.image_topic)

    def frames(self, *, reread: bool = False) -> Iterator[Frame]:
        """Images in the order of recording that have a pose; the others are counted in `refused` by reason.

        An image's stamp is its header's, or where that is zero the time of recording.

        Args:
            reread: the frame reads its image from the bag again, so that a whole drive can be held; otherwise it
                holds the serialised image until it is dropped.

        Raises:
            SourceError: the bag turns out damaged midway.
        """
        self.refused.clear()
        for number, (recorded_ns, message) in enumerate(self._messages(self.image_topic)):
            stamp_ns = _stamp_ns(message) or recorded_ns
            try:
                where = self.location(stamp_ns)
            except TrajectoryError as error:
                reason = "in a gap of the trajectory" if "gap" in str(error) else "outside the trajectory"
                if not self.refused[reason]:
                    _logger.warning("%s: image refused: %s", self.path, error)
                self.refused[reason] += 1
                continue
            load = partial(self._read_image, recorded_ns, stamp_ns) if reread else partial(image_from_message, message)
            digest = None if reread else partial(_message_digest, message, number)
            yield Frame(self.image_topic, self.session, stamp_ns, where.pose, where.geo, load, digest)

    def location(self, stamp_ns: int) -> BagLocation:
        """Where the robot was at a time.

        Raises:
            TrajectoryError: outside the trajectory, or in a gap of it.
        """
        if self._fixes is not None and self.datum is not None:
            geo = self._fixes.at(stamp_ns, self._max_gap_ns)
            return BagLocation(enu_pose(self.datum, geo), geo)
        if self._poses is None:
            raise TrajectoryError("no pose is known")
        return BagLocation(self._poses.at(stamp_ns, self._max_gap_ns), None)

    def _read_image(self, recorded_ns: int, stamp_ns: int) -> RgbImage:
        for _, message in self._messages(self.image_topic, recorded_ns):
            if (_stamp_ns(message) or recorded_ns) == stamp_ns:
                return image_from_message(message)
        raise ImageError(f"bag {self.path} no longer holds the image of {stamp_ns * 1e-9:.3f} s; was it replaced?")

    def _read_fixes(self) -> GeoTrajectory:
        stamps_ns, fixes = [], []
        for recorded_ns, message in self._messages(self.pose_topic):
            if message.status.status == _NO_FIX:
                self.refused["fix without a satellite solution"] += 1
                continue
            altitude = float(message.altitude)
            try:
                fix = GeoPoint(message.latitude, message.longitude, altitude if np.isfinite(altitude) else None)
            except EffoVPRError as error:
                self._refuse_pose(error)
                continue
            fixes.append(fix)
            stamps_ns.append(_stamp_ns(message) or recorded_ns)
        return GeoTrajectory(stamps_ns, fixes)

    def _read_poses(self) -> Trajectory:
        stamps_ns: list[int] = []
        poses: list[Pose] = []
        for recorded_ns, message in self._messages(self.pose_topic):
            if hasattr(message, "poses"):
                # Each Path repeats what the one before held; the last is the most refined.
                stamps_ns, poses = [], []
                stamped = [(_stamp_ns(item), item.pose) for item in message.poses]
            else:
                pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
                stamped = [(_stamp_ns(message) or recorded_ns, pose)]
            for stamp_ns, pose in stamped:
                try:
                    poses.append(_pose(pose))
                    stamps_ns.append(stamp_ns)
                except TrajectoryError as error:
                    self._refuse_pose(error)
        return Trajectory(stamps_ns, poses)

    def _refuse_pose(self, error: EffoVPRError) -> None:
        if not self.refused["invalid pose"]:
            _logger.warning("%s, topic %s: %s", self.path, self.pose_topic, error)
        self.refused["invalid pose"] += 1

    def _messages(self, topic: str, only_ns: int | None = None) -> Iterator[tuple[int, Any]]:
        """Time of recording and message; all of a topic, or those recorded at one time."""
        stop_ns = None if only_ns is None else only_ns + 1
        with opened_bag(self.path) as reader:
            connections = [item for item in reader.connections if item.topic == topic]
            try:
                for connection, recorded_ns, data in reader.messages(connections, only_ns, stop_ns):
                    yield recorded_ns, reader.deserialize(data, connection.msgtype)
            except GeneratorExit:
                raise
            except Exception as error:  # storage plugins raise many types for damaged files
                raise SourceError(
                    f"bag {self.path}, topic {topic}: damaged ({error}); see `ros2 bag reindex`"
                ) from error


def is_bag(path: str | Path) -> bool:
    """Whether a path looks like a bag: a single file, or a folder with metadata or storage files of rosbag2."""
    root = Path(path)
    return root.is_file() or (root / "metadata.yaml").is_file() or any((*root.glob("*.mcap"), *root.glob("*.db3")))


def bag_topics(path: str | Path) -> dict[str, str]:
    """Topics of a bag and their types.

    Raises:
        SourceError: missing or unreadable.
    """
    with opened_bag(Path(path)) as reader:
        return {connection.topic: connection.msgtype for connection in reader.connections}


def image_from_message(message: Any, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """An Image or CompressedImage as RGB.

    Args:
        message: deserialised by `rosbags`.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        ImageError: empty, damaged, too large or of an unknown encoding; names it.
    """
    stamp = f"at {_stamp_ns(message) * 1e-9:.3f} s"
    try:
        if hasattr(message, "format"):
            return compressed_to_rgb(message.data.tobytes(), message.format, max_pixels=max_pixels)
        return raw_to_rgb(message, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{stamp}: {error}") from error


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
            raise SourceError(f"bag {self._path} does not exist")
        try:
            self._reader = AnyReader([self._path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except Exception as error:  # storage plugins raise many types for damaged files
            raise SourceError(
                f"bag {self._path} cannot be read: {error}; it wants a rosbag2 directory with metadata.yaml "
                "(`ros2 bag reindex` makes one) or a single .mcap file"
            ) from error
        return self._reader

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._reader.close()


def _choose(topics: dict[str, str], wanted: str, kinds: tuple[str, ...], what: str, path: Path) -> str:
    listed = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(topics.items())) or "none"
    if wanted:
        if topics.get(wanted) in kinds:
            return wanted
        problem = f"is {topics[wanted]}, no {what}" if wanted in topics else "is not there"
        raise SourceError(f"bag {path}: {what} topic {wanted} {problem}; topics: {listed}")
    fitting = [topic for topic, kind in topics.items() if kind in kinds]
    if len(fitting) != 1:
        found = f"{len(fitting)} fit" if fitting else "none fits"
        raise SourceError(f"bag {path}: name the {what} topic with --{what}-topic, as {found}; topics: {listed}")
    return fitting[0]


def _message_digest(message: Any, number: int) -> str:
    """Of an image message and its number on its topic: images of a robot that stands still may be the same."""
    return content_digest(number.to_bytes(8, "little"), np.ascontiguousarray(message.data).data)


def _pose(message: Any) -> Pose:
    position, orientation = message.position, message.orientation
    return Pose((position.x, position.y, position.z), (orientation.x, orientation.y, orientation.z, orientation.w))


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
