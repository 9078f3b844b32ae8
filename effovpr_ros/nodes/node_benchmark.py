"""Program `node_benchmark`: the real `place_recognizer` over DDS: start, latency and memory; for `effovpr bench`.

python -m effovpr_ros.nodes.node_benchmark --map MAP --images FOLDER --out figures.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage

from effovpr_ros.core.errors import NodeError
from effovpr_ros.engines.catalogue import DEFAULT_ENGINE, ENGINE_NAMES
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.conversions import ns_from_time, time_from_ns
from effovpr_ros.nodes.outputs import RESULT_QOS
from effovpr_ros.nodes.replaying import (
    AnswerRecorder,
    isolated_environment,
    node_process,
    require_running,
    run_replay,
)

_ANSWER_TIMEOUT_S = 60.0
_WARM_UP = 3
_STAGES = ("extract_ms", "search_ms", "rerank_ms", "verify_ms", "decide_ms", "total_ms")


class Probe(AnswerRecorder):
    """Sends one image at a time and waits for its answer."""

    def __init__(self, recognizer: str, topic: str) -> None:
        """Make publisher and subscription.

        Args:
            recognizer: name of the node.
            topic: of its images.
        """
        super().__init__("node_benchmark", recognizer, [])
        self._images = self.create_publisher(CompressedImage, topic, qos_profile_sensor_data)
        self._answers: dict[int, PlaceMatch] = {}
        self.create_subscription(PlaceMatch, f"{recognizer}/match", self._on_match, RESULT_QOS)

    def ask(self, jpeg: bytes, process: subprocess.Popen[bytes]) -> tuple[float, PlaceMatch]:
        """Milliseconds from the publication of an image to the arrival of its answer, and the answer.

        Raises:
            NodeError: none came, or the node ended.
        """
        stamp_ns = time.time_ns()
        message = CompressedImage(format="jpeg", data=jpeg)
        message.header.stamp = time_from_ns(stamp_ns)
        started = time.perf_counter()
        self._images.publish(message)
        while stamp_ns not in self._answers:
            rclpy.spin_once(self, timeout_sec=0.2)
            require_running(process, "place_recognizer")
            if time.perf_counter() - started > _ANSWER_TIMEOUT_S:
                raise NodeError(f"no answer to an image within {_ANSWER_TIMEOUT_S:.0f} s; the node's log says why")
        return (time.perf_counter() - started) * 1e3, self._answers.pop(stamp_ns)

    def await_listener(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the node listens to the images and its answers are heard."""
        while not (self._images.get_subscription_count() and self.count_publishers(f"{self._target}/match")):
            rclpy.spin_once(self, timeout_sec=0.05)
            require_running(process, "place_recognizer")

    def _on_match(self, message: PlaceMatch) -> None:
        self._answers[ns_from_time(message.header.stamp)] = message


def measure(options: argparse.Namespace) -> int:
    """Start the node several times, ask it at the last; returns the number of answers.

    Written are `start_s` of each start, `latency_ms` of each image, `stages_ms` as the node gives them, `resident_mib`
    and `anonymous_mib` of the node after the last image.

    Raises:
        NodeError: the node did not start or did not answer.
    """
    jpegs = [path.read_bytes() for path in sorted(Path(options.images).iterdir())]
    starts_s: list[float] = []
    for number in range(options.starts):
        namespace = f"/bench_{os.getpid()}_{number}"
        topic = f"{namespace}/image/compressed"
        parameters = {
            "map_path": str(Path(options.map).resolve()),
            "image_transport": "compressed",
            "device": options.device,
            "precision": options.precision,
            "engine": options.engine,
        }
        if options.weights:
            parameters["weights"] = options.weights
        started = time.perf_counter()
        with node_process("place_recognizer", parameters, ["-r", f"__ns:={namespace}"]) as process:
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
            probe = Probe(f"{namespace}/place_recognizer", topic)
            try:
                probe.bring_up(partial(require_running, process, "place_recognizer"))
                starts_s.append(time.perf_counter() - started)
                if number + 1 < options.starts:
                    continue
                probe.await_listener(process)
                answers = [probe.ask(jpegs[turn % len(jpegs)], process) for turn in range(options.rounds + _WARM_UP)]
                resident_mib, anonymous_mib = _memory_mib(process.pid)
            finally:
                probe.destroy_node()
                rclpy.try_shutdown()
    answers = answers[_WARM_UP:]
    figures = {
        "start_s": starts_s,
        "latency_ms": [latency_ms for latency_ms, _ in answers],
        "stages_ms": {stage: [getattr(match, stage) for _, match in answers] for stage in _STAGES},
        "resident_mib": resident_mib,
        "anonymous_mib": anonymous_mib,
    }
    Path(options.out).write_text(json.dumps(figures), encoding="utf-8")
    return len(answers)


def _memory_mib(pid: int) -> tuple[float, float]:
    """Memory of a process: resident, and of that anonymous: what no file stands behind."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    resident, anonymous = (int(values[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return resident, anonymous


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write; returns the exit code."""
    parser = argparse.ArgumentParser(description="start the node, ask it over DDS, and write its times and memory")
    parser.add_argument("--map", required=True, help="map folder")
    parser.add_argument("--images", required=True, help="folder of JPEG files to ask with, in turn")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=30, help="images to ask with")
    parser.add_argument("--starts", type=int, default=3, help="times to start the node")
    parser.add_argument("--weights", default="", help="as the node's parameter")
    parser.add_argument("--device", default="auto", help="as the node's parameter")
    parser.add_argument("--precision", default="auto", help="as the node's parameter")
    parser.add_argument("--engine", choices=ENGINE_NAMES, default=DEFAULT_ENGINE, help="as the node's parameter")
    options = parser.parse_args(arguments)
    if options.starts < 1 or options.rounds < 1:
        parser.error("--starts and --rounds must be at least 1")
    os.environ.update(isolated_environment())
    return run_replay("node_benchmark", measure, options)


if __name__ == "__main__":
    sys.exit(main())
