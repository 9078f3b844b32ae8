"""Node `bag_player`: replays a rosbag2 onto its topics where rosbag2 itself is not installed."""

from __future__ import annotations

import importlib
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock

from effovpr_ros.core.errors import SourceError
from effovpr_ros.core.settings import setting
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.conversions import time_from_ns
from effovpr_ros.nodes.parameters import declare, read
from effovpr_ros.nodes.program import run_node
from effovpr_ros.sources.bag_files import IMAGE_TYPES, remedy, storage_path

_CLOCK_PERIOD_S = 0.02
_SETTLE_S = 0.5
# A node that has no answer to an image, as to one that cannot be decoded, holds up the next one for so long.
_ANSWER_WITHIN_S = 5.0
_ROS2_TYPES = get_typestore(Stores.ROS2_HUMBLE)


@dataclass(frozen=True)
class PlayerConfig:
    """Parameters of the player."""

    bag_path: str = setting("", "rosbag2 directory (sqlite3 or mcap), or a .bag file of ROS 1, which is converted.")
    rate: float = setting(1.0, "Speed; 2.0 plays twice as fast.", min=0.01, max=1000.0)
    loop: bool = setting(False, "Start again at the end; /clock then jumps back.")
    clock: bool = setting(True, "Publish /clock, for nodes with use_sim_time.")
    topics: list[str] = field(
        default_factory=lambda: [""], metadata={"description": "Topics to play; [''] for all whose type is installed."}
    )
    start_delay_s: float = setting(
        1.0, "Seconds to wait for subscribers before the first message.", min=0.0, max=3600.0
    )
    answers_topic: str = setting(
        "",
        "Topic of effovpr_ros/PlaceMatch. Each image is played once the last one is answered,"
        " or after 5 s, and not at its recorded time. Empty: recorded times.",
    )


class BagPlayer(Node):
    """Publishes the serialised messages of a bag at their original distances in time."""

    def __init__(self, **options: Any) -> None:
        """Open the bag and advertise.

        Raises:
            SourceError: no readable bag, or nothing in it to play.
        """
        # A node that finds no bag is destroyed before its constructor comes to an end.
        self._closing = ExitStack()
        super().__init__("bag_player", **options)
        declare(self, PlayerConfig())
        self._config = read(self, PlayerConfig)
        self._stop = threading.Event()
        self.finished = threading.Event()
        self.published = 0
        path = Path(self._config.bag_path)
        if not self._config.bag_path or not path.exists():
            raise SourceError(f"bag {self._config.bag_path!r} does not exist; set the parameter bag_path")
        try:
            self._reader = AnyReader([storage_path(path)], default_typestore=_ROS2_TYPES)
            self._reader.open()
            self._closing.callback(self._reader.close)
        except Exception as error:  # storage plugins raise many types for damaged files
            raise SourceError(f"bag {path} cannot be read: {error}; {remedy(path)}") from error
        self._targets = self._advertise()
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10) if self._config.clock else None
        self._answered = threading.Event()
        self._answered.set()
        if self._config.answers_topic:
            self.create_subscription(PlaceMatch, self._config.answers_topic, lambda _: self._answered.set(), 10)
        thread = threading.Thread(target=self._play, name="play", daemon=True)
        thread.start()
        # The thread ends before the bag is closed.
        self._closing.callback(thread.join)
        self._closing.callback(self._stop.set)

    def _advertise(self) -> dict[int, Publisher[Any]]:
        wanted = set(filter(None, self._config.topics))
        available = {connection.topic: connection.msgtype for connection in self._reader.connections}
        missing = wanted - set(available)
        if missing:
            listed = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(available.items()))
            raise SourceError(f"bag {self._config.bag_path} has no topic {sorted(missing)[0]}; it has {listed}")
        targets: dict[int, Publisher[Any]] = {}
        by_topic: dict[str, Publisher[Any]] = {}
        for connection in self._reader.connections:
            if (wanted and connection.topic not in wanted) or connection.topic == "/clock":
                continue
            if not self._reader.is2 and connection.msgtype not in _ROS2_TYPES.fielddefs:
                self.get_logger().warning(f"{connection.topic} is skipped: {connection.msgtype} of ROS 1 is not known")
                continue
            if connection.topic not in by_topic:
                package, _, name = connection.msgtype.split("/")
                try:
                    kind = getattr(importlib.import_module(f"{package}.msg"), name)
                except (ImportError, AttributeError):
                    self.get_logger().warning(f"{connection.topic} is skipped: {connection.msgtype} is not installed")
                    continue
                by_topic[connection.topic] = self.create_publisher(kind, connection.topic, _qos(connection))
            targets[connection.id] = by_topic[connection.topic]
        if not targets:
            raise SourceError(f"bag {self._config.bag_path} has no topic that can be played")
        return targets

    def _play(self) -> None:
        try:
            self._await_listeners()
            while not self._stop.is_set():
                self._play_once()
                if not self._config.loop:
                    break
            if not self._stop.is_set():
                self.get_logger().info(f"played {self.published} messages")
        except Exception as error:  # storage plugins raise many types for damaged files
            self.get_logger().error(f"bag {self._config.bag_path} cannot be played on, it is damaged: {error}")
        finally:
            self.finished.set()

    def _await_listeners(self) -> None:
        """Wait as long as was asked for; in step with answers only until both sides have found each other."""
        ends_s = time.monotonic() + self._config.start_delay_s
        images = [self._targets[item.id] for item in self._reader.connections if self._is_image(item)]
        while (left_s := ends_s - time.monotonic()) > _SETTLE_S and not self._stop.is_set():
            heard = self._config.answers_topic and self.count_publishers(self._config.answers_topic)
            if heard and all(publisher.get_subscription_count() for publisher in images):
                # The other side learns of this one a little later.
                left_s = _SETTLE_S
                break
            self._stop.wait(min(left_s, _CLOCK_PERIOD_S))
        self._stop.wait(max(0.0, left_s))

    def _is_image(self, connection: Connection) -> bool:
        return connection.id in self._targets and connection.msgtype in IMAGE_TYPES

    def _play_once(self) -> None:
        started_s, first_ns = time.monotonic(), self._reader.start_time
        connections = [item for item in self._reader.connections if item.id in self._targets]
        for connection, stamp_ns, data in self._reader.messages(connections=connections):
            if not self._config.answers_topic:
                self._await_time(started_s, stamp_ns - first_ns)
            elif self._is_image(connection):
                self._await_answer()
                self._answered.clear()
            if self._stop.is_set():
                return
            self._publish_clock(stamp_ns)
            self._targets[connection.id].publish(self._serialised(connection, bytes(data)))
            self.published += 1
        self._await_answer()

    def _await_time(self, started_s: float, since_first_ns: int) -> None:
        due_s = started_s + since_first_ns * 1e-9 / self._config.rate
        while (left_s := due_s - time.monotonic()) > 0.0 and not self._stop.is_set():
            passed_ns = (time.monotonic() - started_s) * 1e9 * self._config.rate
            self._publish_clock(int(self._reader.start_time + passed_ns))
            self._stop.wait(min(left_s, _CLOCK_PERIOD_S))

    def _await_answer(self) -> None:
        ends_s = time.monotonic() + _ANSWER_WITHIN_S
        while not self._answered.wait(_CLOCK_PERIOD_S) and not self._stop.is_set() and time.monotonic() < ends_s:
            continue

    def _serialised(self, connection: Connection, data: bytes) -> bytes:
        """A message as ROS 2 serialises it."""
        return data if self._reader.is2 else bytes(_ROS2_TYPES.ros1_to_cdr(data, connection.msgtype))

    def _publish_clock(self, stamp_ns: int) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=time_from_ns(stamp_ns)))

    def destroy_node(self) -> None:
        """Stop playing and close the bag."""
        self._closing.close()
        super().destroy_node()


def _qos(connection: Connection) -> QoSProfile:
    """Reliable, which suits every subscriber; latched where the recorded topic was, and where tf2 wants it."""
    profiles = getattr(connection.ext, "offered_qos_profiles", None) or []
    latched = connection.topic.endswith("/tf_static") or any(
        getattr(profile.durability, "name", "") == "TRANSIENT_LOCAL" for profile in profiles
    )
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        # Of static transforms, which one robot has tens of, none may be forgotten.
        depth=100 if latched else 10,
        reliability=QoSReliabilityPolicy.RELIABLE,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
    )


def main() -> None:
    """Play one bag; ends with it."""

    def spin(node: BagPlayer) -> None:
        while not node.finished.is_set():
            rclpy.spin_once(node, timeout_sec=0.1)
        # The last messages are still on their way when they have been handed over.
        time.sleep(0.5)

    run_node("bag_player", BagPlayer, spin)


if __name__ == "__main__":
    main()
