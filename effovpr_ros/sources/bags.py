"""Bags as frames, without ROS: images with the pose that a topic of the bag, or a trajectory, gives at their stamp."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from effovpr_ros.core.errors import ImageError, SourceError, TrajectoryError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import MAX_PIXELS, RgbImage, shown
from effovpr_ros.core.pixels import compressed_to_rgb, raw_to_rgb
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.sources.bag_files import (
    IMAGE_TYPES,
    POSE_TYPES,
    TRANSFORM_TYPE,
    bag_topics,
    choose_topic,
    opened_bag,
    remedy,
)
from effovpr_ros.sources.bag_poses import (
    RefusedPoses,
    TransformChain,
    read_fixes,
    read_poses,
    read_transforms,
    require_poses,
    stamp_of,
)
from effovpr_ros.sources.frame import Frame, content_digest
from effovpr_ros.sources.images import enu_pose
from effovpr_ros.sources.kinds import NO_POSES
from effovpr_ros.sources.names import clocks_apart
from effovpr_ros.sources.trajectory import GeoTrajectory, Trajectory, read_tum

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BagLocation:
    """Where a bag says that the robot was.

    Attributes:
        pose: in the map frame; without an orientation where it follows from a fix; None where no poses are wanted.
        geo: the fix, if the poses are fixes.
    """

    pose: Pose | None
    geo: GeoPoint | None


@dataclass(frozen=True)
class BagPosition:
    """Where an image stands in a bag.

    Attributes:
        number: of the readable messages of its topic, from 0.
        recorded_ns: time of recording.
        of_moment: number among those that were recorded at that very time, from 0.
    """

    number: int
    recorded_ns: int
    of_moment: int = 0


class BagSource:
    """Images of a bag with the poses of the pose topic's child frame: no transform to the camera is applied."""

    def __init__(
        self,
        path: str | Path,
        *,
        image_topic: str | None = "",
        pose_topic: str = "",
        session: str = "",
        max_gap_s: float = 0.5,
        datum: Datum | None = None,
        pose_table: Path | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Open a bag and read its poses.

        Args:
            path: rosbag2 directory, a single .mcap or .db3 file, or a .bag file of ROS 1.
            image_topic: Image or CompressedImage; empty for the only one there is; None where only poses are wanted.
            pose_topic: Odometry, PoseStamped, PoseWithCovarianceStamped, Path, NavSatFix, or TFMessage (`/tf`: the
                robot's base_link in the root of its tree); empty for the only one there is, TFMessage aside; `none`
                for images without poses.
            session: name of the drive; the bag's name if empty.
            max_gap_s: images between poses further apart than this are refused.
            datum: origin of the map frame where the poses are fixes; the first fix if None.
            pose_table: TUM trajectory that takes the place of the pose topic.
            max_pixels: larger images are refused when they are loaded.

        Raises:
            SourceError: unreadable, no such topic (lists those there are), or no usable pose.
        """
        self.path = Path(path)
        self.session = session or shown(self.path.resolve().stem)
        self.refused: Counter[str] = Counter()
        self.refused_poses = RefusedPoses()
        self._max_gap_ns = round(max_gap_s * 1e9)
        self._max_pixels = max_pixels
        self._outside_ns: list[int] = []
        topics = bag_topics(self.path)
        self.image_topic = ""
        if image_topic is not None:
            self.image_topic = choose_topic(topics, image_topic, IMAGE_TYPES, "image", self.path)
        self.datum = datum
        self.pose_topic = ""
        self._located: GeoTrajectory | Trajectory | TransformChain | None = None
        if pose_table is not None:
            self._located, lines = require_poses(lambda: read_tum(pose_table), str(pose_table))
            for line in lines:
                self.refused_poses.add("invalid line", line)
        elif pose_topic != NO_POSES:
            self.pose_topic = choose_topic(topics, pose_topic, POSE_TYPES, "pose", self.path)
            self._located = require_poses(lambda: self._read_poses(topics), f"bag {self.path}, topic {self.pose_topic}")
        if isinstance(self._located, GeoTrajectory):
            self.datum = datum or Datum(self._located.origin)

    @property
    def has_poses(self) -> bool:
        """Whether images get poses."""
        return self._located is not None

    @property
    def transform_frames(self) -> tuple[str, str] | None:
        """Root of the tree of transforms and the robot's frame in it; None where poses are of another kind."""
        chain = self._located
        return (chain.frame_id, chain.child_frame_id) if isinstance(chain, TransformChain) else None

    def __len__(self) -> int:
        """Number of images, with or without a pose."""
        with opened_bag(self.path) as reader:
            return sum(item.msgcount for item in reader.connections if item.topic == self.image_topic)

    def frames(self, *, reread: bool = False, counting: bool = True) -> Iterator[Frame]:
        """Images in the order of recording that have a pose; the others are counted in `refused` by reason.

        An image's stamp is its header's, or where that is zero the time of recording.

        Args:
            reread: the frame reads its image from the bag again, so that a whole drive can be held; otherwise it
                holds the serialised image until it is dropped.
            counting: count anew what is refused; not where the frames are read once more beside another reading.

        Raises:
            SourceError: the bag turns out damaged midway.
        """
        for _, frame in self.numbered_frames(reread=reread, counting=counting):
            yield frame

    def numbered_frames(
        self, *, reread: bool = False, counting: bool = True, since: BagPosition | None = None
    ) -> Iterator[tuple[BagPosition, Frame]]:
        """Images as by `frames`, whose arguments it has too, and where each stands in the bag.

        Args:
            reread: see there.
            counting: see there.
            since: the first that is wanted, as an earlier reading has named it; None: the first there is.

        Raises:
            SourceError: the bag turns out damaged midway.
        """
        refused, outside_ns = (self.refused, self._outside_ns) if counting else (Counter[str](), list[int]())
        refused.clear()
        outside_ns.clear()
        first_ns, same_ns = (None, 0) if since is None else (since.recorded_ns, since.number - since.of_moment)
        last_ns, of_moment = -1, 0
        messages = self._messages(self.image_topic, since_ns=first_ns, refused=refused)
        for number, (recorded_ns, message) in enumerate(messages, same_ns):
            of_moment = of_moment + 1 if recorded_ns == last_ns else 0
            last_ns = recorded_ns
            if since is not None and number < since.number:
                continue
            stamp_ns = stamp_of(message) or recorded_ns
            try:
                where = self.location(stamp_ns)
            except TrajectoryError as error:
                reason = "in a gap of the trajectory" if "gap" in str(error) else "outside the trajectory"
                if counting and not refused[reason]:
                    _logger.warning("%s: image refused: %s", self.path, error)
                refused[reason] += 1
                outside_ns.append(stamp_ns)
                continue
            image = partial(image_from_message, message, self._max_pixels)
            load = partial(self._read_image, recorded_ns, stamp_ns) if reread else image
            digest = None if reread else partial(_message_digest, message, number)
            frame = Frame(self.image_topic, self.session, stamp_ns, where.pose, where.geo, load, digest)
            yield BagPosition(number, recorded_ns, of_moment), frame

    def why_none(self) -> str:
        """Why no image of the last `frames` had a pose, and what helps; empty where nothing is known of that."""
        if not self._outside_ns or self._located is None:
            return "" if self.refused else f"topic {self.image_topic} holds no message"
        return clocks_apart(self._outside_ns, self._located.span_ns, self.pose_topic or "the trajectory")

    def location(self, stamp_ns: int) -> BagLocation:
        """Where the robot was at a time.

        Raises:
            TrajectoryError: outside the trajectory, or in a gap of it.
        """
        if self._located is None:
            return BagLocation(None, None)
        if isinstance(self._located, GeoTrajectory):
            geo = self._located.at(stamp_ns, self._max_gap_ns)
            return BagLocation(enu_pose(self.datum, geo) if self.datum else None, geo)
        return BagLocation(self._located.at(stamp_ns, self._max_gap_ns), None)

    def _read_poses(self, topics: dict[str, str]) -> GeoTrajectory | Trajectory | TransformChain:
        kind = topics[self.pose_topic]
        messages = self._messages(self.pose_topic, refused=self.refused_poses.counts)
        if kind == "sensor_msgs/msg/NavSatFix":
            return read_fixes(messages, self.refused_poses)
        if kind == TRANSFORM_TYPE:
            static = f"{self.pose_topic}_static"
            fixed = self._messages(static, refused=self.refused_poses.counts) if static in topics else ()
            return read_transforms(messages, fixed, self.refused_poses)
        return read_poses(messages, self.refused_poses)

    def _read_image(self, recorded_ns: int, stamp_ns: int) -> RgbImage:
        for _, message in self._messages(self.image_topic, recorded_ns):
            if (stamp_of(message) or recorded_ns) == stamp_ns:
                return image_from_message(message, self._max_pixels)
        raise ImageError(f"bag {self.path} no longer holds the image of {stamp_ns * 1e-9:.3f} s; was it replaced?")

    def _messages(
        self,
        topic: str,
        only_ns: int | None = None,
        refused: Counter[str] | None = None,
        since_ns: int | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Time of recording and message; all of a topic, those recorded at one time, or from a time on.

        A message that cannot be deserialised is counted and left out; damage of the file ends the reading.
        """
        stop_ns = None if only_ns is None else only_ns + 1
        with opened_bag(self.path) as reader:
            connections = [item for item in reader.connections if item.topic == topic]
            if not connections:
                return
            messages = reader.messages(connections, since_ns if only_ns is None else only_ns, stop_ns)
            while True:
                try:
                    connection, recorded_ns, data = next(messages)
                except StopIteration:
                    return
                except Exception as error:  # storage plugins raise many types for damaged files
                    raise SourceError(
                        f"bag {shown(self.path)}, topic {topic}: damaged ({error}); {remedy(self.path)}"
                    ) from error
                try:
                    message = reader.deserialize(data, connection.msgtype)
                except Exception as error:  # rosbags raises what its generated code meets
                    if refused is not None:
                        if not refused["damaged message"]:
                            _logger.warning("%s, topic %s: a message is damaged: %r", self.path, topic, error)
                        refused["damaged message"] += 1
                    continue
                yield recorded_ns, message


def image_from_message(message: Any, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """An Image or CompressedImage, deserialised by `rosbags`, as RGB.

    Args:
        message: of either type.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        ImageError: empty, damaged, too large or of an unknown encoding; names it.
    """
    try:
        if hasattr(message, "format"):
            return compressed_to_rgb(message.data.tobytes(), message.format, max_pixels=max_pixels)
        return raw_to_rgb(message, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"at {stamp_of(message) * 1e-9:.3f} s: {error}") from error


def _message_digest(message: Any, number: int) -> str:
    """Of an image message and its number on its topic: images of a robot that stands still may be the same."""
    return content_digest(number.to_bytes(8, "little"), np.ascontiguousarray(message.data).data)
