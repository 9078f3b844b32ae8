"""Program `replay`: a bag through the real node over DDS, every answer recorded as a line of JSON.

ros2 run effovpr_ros replay --map MAP --bag BAG --image-topic TOPIC --out matches.jsonl
ros2 run effovpr_ros replay --running /place_recognizer --bag BAG --image-topic TOPIC --out matches.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from tqdm import tqdm

from effovpr_ros.errors import NodeError
from effovpr_ros.features.engines.catalogue import DEFAULT_ENGINE, ENGINE_NAMES
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.conversions import match_record

_RECORD_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_ALL, reliability=QoSReliabilityPolicy.RELIABLE)
_START_TIMEOUT_S = 30.0
_TRANSITION_TIMEOUT_S = 120.0
_QUIET_S = 3.0
# Discovery on a busy machine takes a second or two; an image published before it is lost.
_DISCOVERY_S = 4.0


class MatchRecorder(Node):
    """Writes each PlaceMatch of one recogniser as a line of JSON, and leads the recogniser through its lifecycle."""

    def __init__(self, out: TextIO, recognizer: str = "/place_recognizer", **options: object) -> None:
        """Subscribe.

        Args:
            out: open text file.
            recognizer: name of the recogniser.
            options: of `rclpy.node.Node`.
        """
        super().__init__("match_recorder", **options)
        self._out = out
        self._recognizer = recognizer
        self.recorded = 0
        self.last_s = time.monotonic()
        self.create_subscription(PlaceMatch, f"{recognizer}/match", self._on_match, _RECORD_QOS)
        self._change_state = self.create_client(ChangeState, f"{recognizer}/change_state")

    def bring_up(self, still_runs: Callable[[], None]) -> None:
        """Configure and activate the recogniser.

        Args:
            still_runs: called while waiting; raises where the recogniser's process has ended.

        Raises:
            NodeError: it did not appear, or refused.
        """
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self._change_state.wait_for_service(timeout_sec=0.5):
            still_runs()
            if time.monotonic() > deadline_s:
                raise NodeError(f"no service {self._change_state.srv_name} after {_START_TIMEOUT_S:.0f} s")
        for transition, name in (
            (Transition.TRANSITION_CONFIGURE, "configure"),
            (Transition.TRANSITION_ACTIVATE, "activate"),
        ):
            request = ChangeState.Request(transition=Transition(id=transition))
            future = self._change_state.call_async(request)
            deadline_s = time.monotonic() + _TRANSITION_TIMEOUT_S
            while not future.done():
                rclpy.spin_once(self, timeout_sec=0.2)
                still_runs()
                if time.monotonic() > deadline_s:
                    raise NodeError(f"the recogniser did not {name} within {_TRANSITION_TIMEOUT_S:.0f} s")
            if not future.result().success:
                raise NodeError(f"the recogniser refused to {name}; its log says why")

    def await_running(self, image_topic: str) -> None:
        """Wait for a recogniser that others started.

        Raises:
            NodeError: nobody publishes its answers, or nobody listens to the images.
        """
        topic = self.resolve_topic_name(f"{self._recognizer}/match")
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not (self.count_publishers(topic) and self.count_subscribers(image_topic)):
            rclpy.spin_once(self, timeout_sec=0.2)
            if time.monotonic() > deadline_s:
                if not self.count_publishers(topic):
                    raise NodeError(
                        f"no active node publishes {topic} after {_START_TIMEOUT_S:.0f} s; start and activate it, in "
                        "this ROS domain, or name it with --running (effovpr evaluate live: --match-topic)"
                    )
                raise NodeError(
                    f"nobody listens to {image_topic}; remap the images of {self._recognizer} to it, or name the topic "
                    "that it listens to with --image-topic"
                )

    def _on_match(self, message: PlaceMatch) -> None:
        self._out.write(json.dumps(match_record(message)) + "\n")
        self._out.flush()
        self.recorded += 1
        self.last_s = time.monotonic()


def replay(options: argparse.Namespace) -> int:
    """Start recogniser and player, record until both are quiet; returns the number of answers.

    Raises:
        NodeError: a process failed.
    """
    # A namespace of its own tells this recogniser from any other on the same domain.
    namespace = f"/replay_{os.getpid()}"
    remapping = ["-r", f"__ns:={namespace}"]
    remapping += ["-r", f"image:={options.image_topic}", "-r", f"image/compressed:={options.image_topic}"]
    recognizer_parameters = {
        "map_path": str(Path(options.map).resolve()),
        "image_transport": options.image_transport,
        "device": options.device,
        "engine": options.engine,
        "num_candidates": "10",
    }
    with (
        Path(options.out).open("w", encoding="utf-8") as out,
        _process("place_recognizer", recognizer_parameters, remapping) as recognizer,
    ):
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        recorder = MatchRecorder(out, f"{namespace}/place_recognizer")
        try:
            recorder.bring_up(lambda: _require_running(recognizer))
            _play(options, recorder, lambda: _require_running(recognizer))
            return recorder.recorded
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def play_to_running(options: argparse.Namespace) -> int:
    """Play to a recogniser that runs already, record until it is quiet; returns the number of answers.

    Raises:
        NodeError: it is not there, or the player failed.
    """
    with Path(options.out).open("w", encoding="utf-8") as out:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        recorder = MatchRecorder(out, options.running)
        try:
            recorder.await_running(options.image_topic)
            _play(options, recorder, lambda: None)
            return recorder.recorded
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def _play(options: argparse.Namespace, recorder: MatchRecorder, still_runs: Callable[[], None]) -> None:
    """Play the images of the bag and record until both are quiet."""
    parameters = {
        "bag_path": str(Path(options.bag).resolve()),
        "rate": f"{options.rate:.6f}",
        "topics": f"['{options.image_topic}']",
        "clock": "false",
        "start_delay_s": f"{_DISCOVERY_S}",
    }
    with _process("bag_player", parameters, []) as player, tqdm(unit="answer", disable=None) as bar:
        while player.poll() is None or time.monotonic() - recorder.last_s < _QUIET_S:
            rclpy.spin_once(recorder, timeout_sec=0.2)
            still_runs()
            bar.update(recorder.recorded - bar.n)
        if player.returncode:
            raise NodeError(f"bag_player ended with exit code {player.returncode}; its log says why")


@contextmanager
def _process(module: str, parameters: dict[str, str], remapping: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A node as a process of its own; interrupted at the end, killed if that does not help."""
    command = [sys.executable, "-P", "-m", f"effovpr_ros.nodes.{module}", "--ros-args", *remapping]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _require_running(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise NodeError(f"the recogniser ended with exit code {process.returncode}; its log says why")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="replay", description="Replay a bag through place_recognizer over DDS.")
    recogniser = parser.add_mutually_exclusive_group(required=True)
    recogniser.add_argument("--map", help="map folder; a recogniser of it is started")
    recogniser.add_argument("--running", metavar="NODE", help="play to this recogniser, which runs in this ROS domain")
    parser.add_argument("--bag", required=True, help="rosbag2 folder")
    parser.add_argument("--image-topic", required=True, help="topic of the bag")
    parser.add_argument("--image-transport", choices=("raw", "compressed"), default="compressed")
    parser.add_argument("--out", required=True, help="file of JSON lines to write")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the replay")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", choices=ENGINE_NAMES, default=DEFAULT_ENGINE)
    return parser.parse_args(arguments)


def isolated_environment() -> dict[str, str]:
    """Environment of a replay that meets no robot: this machine only, a domain of its own unless one is set."""
    environment: dict[str, Any] = dict(os.environ)
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    return environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = _parse(arguments)
    if not options.running:
        os.environ.update(isolated_environment())
    # The processes that were started end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        recorded = play_to_running(options) if options.running else replay(options)
    except (NodeError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    print(f"{recorded} answers in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
