"""Replaying a bag through a node: processes, the node's lifecycle, and its answers as lines of JSON."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from tqdm import tqdm

from effovpr_ros.core.errors import EffoVPRError, NodeError
from effovpr_ros.sources.bag_files import IMAGE_TYPES, bag_topics, choose_topic, opened_bag

_RECORD_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_ALL, reliability=QoSReliabilityPolicy.RELIABLE)
# A slow machine takes most of a minute to load torch.
_START_TIMEOUT_S = 120.0
_TRANSITION_TIMEOUT_S = 120.0
_QUIET_S = 3.0
_QUIET_IN_STEP_S = 0.5
# Discovery on a busy machine takes a second or two; an image published before it is lost.
_DISCOVERY_S = 4.0


@dataclass(frozen=True)
class Answers:
    """A topic whose messages are recorded.

    Attributes:
        kind: of message.
        topic: its name.
        record: a message as plain values for JSON.
        out: open text file; one line a message.
    """

    kind: type
    topic: str
    record: Callable[[Any], dict[str, Any]]
    out: TextIO


class AnswerRecorder(Node):
    """Writes what one lifecycle node publishes as lines of JSON, and leads that node through its lifecycle."""

    def __init__(self, name: str, target: str, answers: Sequence[Answers], **options: Any) -> None:
        """Subscribe.

        Args:
            name: of this node.
            target: name of the lifecycle node.
            answers: what is recorded; the first counts in `recorded`.
            options: of `rclpy.node.Node`.
        """
        super().__init__(name, **options)
        self._target = target
        self.recorded = 0
        self.last_s = time.monotonic()
        for number, answer in enumerate(answers):
            self.create_subscription(answer.kind, answer.topic, self._writer(answer, number == 0), _RECORD_QOS)
        self._change_state: Client[Any, Any] = self.create_client(ChangeState, f"{target}/change_state")

    def bring_up(self, still_runs: Callable[[], None]) -> None:
        """Configure and activate the node.

        Args:
            still_runs: called while waiting; raises where the node's process has ended.

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
                    raise NodeError(f"{self._target} did not {name} within {_TRANSITION_TIMEOUT_S:.0f} s")
            answer = future.result()
            if answer is None or not answer.success:
                raise NodeError(f"{self._target} refused to {name}; its log says why")

    def _writer(self, answer: Answers, counts: bool) -> Callable[[Any], None]:
        def write(message: Any) -> None:
            answer.out.write(json.dumps(answer.record(message)) + "\n")
            answer.out.flush()
            self.recorded += counts
            self.last_s = time.monotonic()

        return write


def play_bag(
    bag: str,
    topics: Sequence[str],
    rate: float,
    recorder: AnswerRecorder,
    still_runs: Callable[[], None],
    answers_topic: str = "",
) -> None:
    """Play topics of a bag and record until player and node are quiet.

    Args:
        bag: its folder.
        topics: to play.
        rate: speed, where there is no answers_topic.
        recorder: of the answers.
        still_runs: called while waiting; raises where the node's process has ended.
        answers_topic: of PlaceMatch; each image is played once the last one is answered. Empty: by time.

    Raises:
        NodeError: the player failed, or what `still_runs` raises.
    """
    listed = ", ".join(f"'{topic}'" for topic in topics)
    parameters = {
        "bag_path": str(Path(bag).resolve()),
        "topics": f"[{listed}]",
        "clock": "false",
        "start_delay_s": f"{_DISCOVERY_S}",
        **({"answers_topic": answers_topic} if answers_topic else {"rate": f"{rate:.6f}"}),
    }
    quiet_s = _QUIET_IN_STEP_S if answers_topic else _QUIET_S
    with node_process("bag_player", parameters, []) as player, tqdm(unit="answer", disable=None) as bar:
        while player.poll() is None or time.monotonic() - recorder.last_s < quiet_s:
            rclpy.spin_once(recorder, timeout_sec=0.2)
            still_runs()
            bar.update(recorder.recorded - bar.n)
        if player.returncode:
            raise NodeError(f"bag_player ended with exit code {player.returncode}; its log says why")


def require_images(bag: str, topic: str, transport: str = "") -> None:
    """Refuse a bag whose images would not reach the node, before anything is started.

    Args:
        bag: its path.
        topic: of the images.
        transport: raw or compressed, as the node listens; empty where the node is another's.

    Raises:
        NodeError: the topic is empty, or of the other transport.
        SourceError: the bag cannot be read, or has no such topic of images.
    """
    path = Path(bag)
    topics = bag_topics(path)
    kind = topics[choose_topic(topics, topic, IMAGE_TYPES, "image", path)]
    there = "compressed" if kind.endswith("CompressedImage") else "raw"
    if transport and transport != there:
        raise NodeError(f"{topic} of {bag} is {there} and {transport} was asked; use --image-transport {there}")
    with opened_bag(path) as reader:
        if not sum(item.msgcount for item in reader.connections if item.topic == topic):
            raise NodeError(f"{topic} of {bag} holds no message; record it again, or name another --image-topic")


@contextmanager
def node_process(
    module: str, parameters: Mapping[str, str], remapping: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
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


def require_running(process: subprocess.Popen[bytes], name: str) -> None:
    """Raise NodeError where the process of a node has ended."""
    if process.poll() is not None:
        raise NodeError(f"{name} ended with exit code {process.returncode}; its log says why")


def isolated_environment() -> dict[str, str]:
    """Environment of a replay that meets no robot: this machine only, a domain of its own unless one is set."""
    environment: dict[str, Any] = dict(os.environ)
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    return environment


def run_replay(program: str, play: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Play and print how many answers came; returns the exit code of the program."""
    # The processes that were started end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        recorded = play(options)
    except (EffoVPRError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    if not recorded:
        topics = options.image_topic
        print(
            f"{program}: 0 answers: the node answered none of the images of "
            f"{topics if isinstance(topics, str) else ' and '.join(topics)}; its log says why; "
            "where it heard none, compare --image-topic with what it listens to",
            file=sys.stderr,
        )
        return 1
    print(f"{recorded} answers in {options.out}")
    return 0
