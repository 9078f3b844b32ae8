"""What a source says of the frame of its poses, as far as its files tell."""

from __future__ import annotations

from itertools import islice
from typing import Any

from rosbags.highlevel import AnyReader

from effovpr_ros.core.errors import SourceError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.sources.bag_files import opened_bag
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.frame import Frame, PoseKind, PoseOrigin, content_digest
from effovpr_ros.sources.images import ImageFolder

_FIRST_POSES = 200


def origin_of_bag(source: BagSource) -> PoseOrigin:
    """Frames of a bag's poses as the first message of their topic names them.

    The drive is known again by its first poses, the number of all and the bag's time.

    Raises:
        SourceError: the bag is damaged.
    """
    if not source.pose_topic:
        return PoseOrigin(PoseKind.MAP if source.has_poses else PoseKind.NONE)
    with opened_bag(source.path) as reader:
        connections = [item for item in reader.connections if item.topic == source.pose_topic]
        counts = (sum(item.msgcount for item in connections), reader.start_time, reader.end_time)
        raw, first = [repr(counts).encode()], None
        try:
            for connection, _, data in islice(reader.messages(connections), _FIRST_POSES):
                raw.append(bytes(data))
                first = first or _readable(reader, data, connection.msgtype)
        except Exception as error:  # storage plugins raise many types for damaged files
            raise SourceError(f"bag {source.path}, topic {source.pose_topic}: damaged ({error})") from error
    if first is None:
        return PoseOrigin(PoseKind.NONE)
    frame_id, child_frame_id = source.transform_frames or _frames(first)
    drive = content_digest(*raw)
    if connections[0].msgtype == "sensor_msgs/msg/NavSatFix":
        # The header of a fix names the antenna; its positions are on the earth.
        return PoseOrigin(PoseKind.EARTH, "", frame_id, source.datum, drive)
    return PoseOrigin(PoseKind.DRIVE, frame_id, child_frame_id, None, drive)


def origin_of_folder(folder: ImageFolder) -> PoseOrigin:
    """Frame of the poses of a folder's images: the map's for tables, whose columns are defined so."""
    posed = [frame for frame in folder.frames if frame.pose is not None]
    if not posed:
        return PoseOrigin(PoseKind.NONE)
    datum = folder.datum
    if datum is not None and all(_follows_from_tag(frame, datum) for frame in posed):
        return PoseOrigin(PoseKind.EARTH, datum=datum, position_std_m=folder.position_std_m)
    if folder.kind == "utm":
        # Metres from the folder's first image.
        return PoseOrigin(PoseKind.DRIVE, drive=content_digest(posed[0].name.encode()))
    return PoseOrigin(PoseKind.MAP)


def _follows_from_tag(frame: Frame, datum: Datum) -> bool:
    return frame.geo is not None and frame.pose is not None and frame.pose.position_xyz == datum.to_enu(frame.geo)


def _readable(reader: AnyReader, data: bytes, kind: str) -> Any:
    """A message; None for a damaged one, which the reading of poses counts."""
    try:
        return reader.deserialize(data, kind)
    except Exception:  # rosbags raises what its generated code meets
        return None


def _frames(message: Any) -> tuple[str, str]:
    """Frame and child frame of a message of poses; empty where it names none."""
    return str(message.header.frame_id).lstrip("/"), str(getattr(message, "child_frame_id", "")).lstrip("/")
