"""What a running node answered: read from a bag that holds its `~/match`, or from the lines that `replay` writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from effovpr_ros.core.errors import EvaluationError, SourceError
from effovpr_ros.core.poses import Pose
from effovpr_ros.recognition.recognizer import Latency, Status
from effovpr_ros.sources.bag_files import bag_topics, opened_bag

MATCH_TYPE = "effovpr_ros/msg/PlaceMatch"
_DEFINITIONS = ("PlaceCandidate", "PlaceMatch")


@dataclass(frozen=True)
class RecordedCandidate:
    """A place that the node named.

    Attributes:
        place_id: in its map.
        session: of the map.
        pose: of the place in the map frame; None if unknown.
    """

    place_id: int
    session: str
    pose: Pose | None


@dataclass(frozen=True)
class RecordedAnswer:
    """One answer of the node.

    Attributes:
        stamp_ns: of the query image.
        status: NO_MATCH, AMBIGUOUS or MATCH.
        confidence: in [0, 1].
        map_name: of the map in use.
        candidates: best first, as many as the node publishes.
        latency_ms: by stage; total from the receipt of the image.
    """

    stamp_ns: int
    status: Status
    confidence: float
    map_name: str
    candidates: tuple[RecordedCandidate, ...]
    latency_ms: Latency


def read_matches(bag: Path, topic: str) -> list[RecordedAnswer]:
    """Answers that a bag holds.

    Where the bag does not store the definition of its messages, this package's own are used.

    Args:
        bag: rosbag2 directory or .mcap file.
        topic: of type effovpr_ros/PlaceMatch.

    Raises:
        SourceError: unreadable, no such topic, no message, or no definition of the messages.
    """
    topics = bag_topics(bag)
    if topics.get(topic) != MATCH_TYPE:
        listed = ", ".join(f"{name} ({kind})" for name, kind in sorted(topics.items())) or "none"
        raise SourceError(
            f"bag {bag} has no topic {topic} of {MATCH_TYPE}; name it with --match-topic; topics: {listed}"
        )
    answers = []
    with opened_bag(bag) as reader:
        known = reader.typestore.fielddefs
        if MATCH_TYPE not in known:
            wanted = {**get_typestore(Stores.ROS2_HUMBLE).fielddefs, **_package_types()}
            reader.typestore.register({name: kind for name, kind in wanted.items() if name not in known})
        connections = [item for item in reader.connections if item.topic == topic]
        try:
            for connection, _, data in reader.messages(connections):
                answers.append(_from_message(reader.deserialize(data, connection.msgtype)))
        except Exception as error:  # storage plugins and deserialisation raise many types
            raise SourceError(f"bag {bag}, topic {topic}: a message cannot be read ({error})") from error
    if not answers:
        raise SourceError(f"bag {bag}: topic {topic} has no message; was the node active while it was recorded?")
    return answers


def read_match_lines(path: Path) -> list[RecordedAnswer]:
    """Answers that `replay` recorded, one JSON object a line.

    Raises:
        EvaluationError: no answer, or a line of another form.
    """
    answers = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            answers.append(_from_record(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise EvaluationError(f"{path}, line {number}: no answer of replay ({error!r})") from error
    if not answers:
        raise EvaluationError(
            f"{path} holds no answer: the node answered no image; is it active, and does it listen to the image topic?"
        )
    return answers


def _from_message(message: Any) -> RecordedAnswer:
    return RecordedAnswer(
        stamp_ns=int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec),
        status=Status(int(message.status)),
        confidence=float(message.confidence),
        map_name=str(message.map_name),
        candidates=tuple(_candidate_from_message(candidate) for candidate in message.candidates),
        latency_ms=Latency(
            extract=float(message.extract_ms),
            search=float(message.search_ms),
            rerank=float(message.rerank_ms),
            # Bags that were recorded before have none.
            verify=float(getattr(message, "verify_ms", 0.0)),
            decide=float(message.decide_ms),
            total=float(message.total_ms),
        ),
    )


def _candidate_from_message(message: Any) -> RecordedCandidate:
    position, orientation = message.pose.position, message.pose.orientation
    pose = None
    if message.has_pose:
        # Messages of earlier versions, which bags hold too, do not say what is unknown.
        z = position.z if getattr(message, "has_height", True) else None
        quat = (orientation.x, orientation.y, orientation.z, orientation.w)
        pose = Pose((position.x, position.y, z), quat if getattr(message, "has_heading", True) else None)
    return RecordedCandidate(int(message.place_id), str(message.session), pose)


def _from_record(record: Mapping[str, Any]) -> RecordedAnswer:
    return RecordedAnswer(
        stamp_ns=int(record["stamp_ns"]),
        status=Status[record["status"]],
        confidence=float(record["confidence"]),
        map_name=str(record["map_name"]),
        candidates=tuple(
            RecordedCandidate(int(item["place_id"]), str(item["session"]), _pose(item["pose"]))
            for item in record["candidates"]
        ),
        latency_ms=Latency(**{stage: float(value) for stage, value in record["latency_ms"].items()}),
    )


def _pose(values: Sequence[float | None] | None) -> Pose | None:
    if values is None:
        return None
    x, y, z, qx, qy, qz, qw = values
    if x is None or y is None:
        return None
    if qx is None or qy is None or qz is None or qw is None:
        return Pose((x, y, z), None)
    return Pose((x, y, z), (qx, qy, qz, qw))


def _package_types() -> dict[str, Any]:
    """Definitions of this package's messages: installed ones, else those beside the sources.

    Raises:
        SourceError: neither is there.
    """
    prefixes = [Path(item) for item in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if item]
    folders = [prefix / "share" / "effovpr_ros" / "msg" for prefix in prefixes]
    folders.append(Path(__file__).resolve().parents[3] / "msg")
    for folder in folders:
        if all((folder / f"{name}.msg").is_file() for name in _DEFINITIONS):
            types: dict[str, Any] = {}
            for name in _DEFINITIONS:
                text = (folder / f"{name}.msg").read_text(encoding="utf-8")
                types.update(get_types_from_msg(text, f"effovpr_ros/msg/{name}"))
            return types
    raise SourceError(
        f"the bag does not store the definition of {MATCH_TYPE}, and PlaceMatch.msg is in none of "
        f"{', '.join(map(str, folders))}; source the workspace that effovpr_ros was built in, or record as mcap"
    )
