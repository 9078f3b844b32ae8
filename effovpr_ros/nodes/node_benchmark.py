"""Program `node_benchmark`: the real `place_recognizer` over DDS: start, latency and memory; for `effovpr bench`.

python -m effovpr_ros.nodes.node_benchmark --map MAP --images FOLDER --out figures.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage

from effovpr_ros.core.errors import NodeError
from effovpr_ros.engines.catalogue import AUTO, DEFAULT_ENGINE, ENGINE_NAMES, TORCH
from effovpr_ros.features.engine_takeover import SEEKING
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
# After the fastest engine was found; and at most so long.
_MORE_ANSWERS = 20
_SETTLED_WITHIN_S = 120.0
_STAGES = ("extract_ms", "search_ms", "rerank_ms", "verify_ms", "decide_ms", "total_ms")

_numbers = itertools.count()


class Probe(AnswerRecorder):
    """Sends one image at a time and waits for its answer.

    Attributes:
        is_settled: whether the node says that it looks for no faster engine any more.
    """

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
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RESULT_QOS)
        self.is_settled = False

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

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = {item.key: item.value for status in message.status for item in status.values}
        self.is_settled |= SEEKING not in values.get("engine_choice", SEEKING)

    def _on_match(self, message: PlaceMatch) -> None:
        self._answers[ns_from_time(message.header.stamp)] = message


@dataclass(frozen=True)
class _Run:
    """A node that is active and listens; `started_s` on the clock of `time.perf_counter`."""

    process: subprocess.Popen[bytes]
    probe: Probe
    started_s: float
    active_s: float

    def ask(self, jpeg: bytes) -> tuple[float, PlaceMatch]:
        """See `Probe.ask`."""
        return self.probe.ask(jpeg, self.process)

    @property
    def since_start_s(self) -> float:
        """Time since the process was started."""
        return time.perf_counter() - self.started_s


def measure(options: argparse.Namespace) -> int:
    """Start the node several times by two engines in turn, ask it at the last; returns the number of answers.

    Written are `start_s` of each start to active, `first_answer_s` of each start to the answer to a first image,
    `first_answer_torch_s` the same by PyTorch, `latency_ms` of each image, `stages_ms` as the node gives them,
    `resident_mib` and `anonymous_mib` of the node after the last image; and `settling`, see `_settling`.

    Raises:
        NodeError: the node did not start or did not answer.
    """
    jpegs = [path.read_bytes() for path in sorted(Path(options.images).iterdir())]
    engines = list(dict.fromkeys((TORCH, options.engine)))
    starts_s: list[float] = []
    firsts_s: dict[str, list[float]] = {engine: [] for engine in engines}
    answers: list[tuple[float, PlaceMatch]] = []
    for number in range(options.starts):
        for engine in engines:
            with _node(options, engine) as run:
                answers = [run.ask(jpegs[0])]
                firsts_s[engine].append(run.since_start_s)
                if engine == options.engine:
                    starts_s.append(run.active_s)
                if number + 1 == options.starts and engine == options.engine:
                    answers += [run.ask(jpegs[turn % len(jpegs)]) for turn in range(1, options.rounds + _WARM_UP)]
                    resident_mib, anonymous_mib = _memory_mib(run.process.pid)
    answers = answers[_WARM_UP:]
    figures = {
        "start_s": starts_s,
        "first_answer_s": firsts_s[options.engine],
        "first_answer_torch_s": firsts_s[TORCH],
        "latency_ms": [latency_ms for latency_ms, _ in answers],
        "stages_ms": {stage: [getattr(match, stage) for _, match in answers] for stage in _STAGES},
        "resident_mib": resident_mib,
        "anonymous_mib": anonymous_mib,
        "settling": _settling(options, jpegs) if options.settle else [],
    }
    Path(options.out).write_text(json.dumps(figures), encoding="utf-8")
    return len(answers)


def _settling(options: argparse.Namespace, jpegs: Sequence[bytes]) -> list[list[tuple[float, float]]]:
    """Answers of two starts by engine `auto`, the first of them with an empty cache: seconds since the start, extract.

    Images are asked one after the other until the node says that it has the fastest engine, and some more.
    """
    own = {name: os.environ.get(name) for name in ("XDG_CACHE_HOME", "HF_HOME")}
    with tempfile.TemporaryDirectory(prefix="effovpr_cache_") as cache:
        # Weights that were downloaded are no engine's.
        os.environ.setdefault("HF_HOME", str(platformdirs.user_cache_path("huggingface", appauthor=False)))
        os.environ["XDG_CACHE_HOME"] = cache
        try:
            return [_settled(options, jpegs) for _ in range(2)]
        finally:
            for name, value in own.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _settled(options: argparse.Namespace, jpegs: Sequence[bytes]) -> list[tuple[float, float]]:
    answers: list[tuple[float, float]] = []
    with _node(options, AUTO) as run:
        more = _MORE_ANSWERS
        while more and run.since_start_s < _SETTLED_WITHIN_S:
            more -= run.probe.is_settled
            _, match = run.ask(jpegs[len(answers) % len(jpegs)])
            answers.append((run.since_start_s, match.extract_ms))
    return answers


@contextmanager
def _node(options: argparse.Namespace, engine: str) -> Iterator[_Run]:
    """The node as a process of its own, active.

    Raises:
        NodeError: it did not start.
    """
    namespace = f"/bench_{os.getpid()}_{next(_numbers)}"
    parameters = {
        "map_path": str(Path(options.map).resolve()),
        "image_transport": "compressed",
        "device": options.device,
        "precision": options.precision,
        "engine": engine,
    }
    if options.weights:
        parameters["weights"] = options.weights
    started_s = time.perf_counter()
    with node_process("place_recognizer", parameters, ["-r", f"__ns:={namespace}"]) as process:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        probe = Probe(f"{namespace}/place_recognizer", f"{namespace}/image/compressed")
        try:
            probe.bring_up(partial(require_running, process, "place_recognizer"))
            active_s = time.perf_counter() - started_s
            probe.await_listener(process)
            yield _Run(process, probe, started_s, active_s)
        finally:
            probe.destroy_node()
            rclpy.try_shutdown()


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
    parser.add_argument("--settle", action="store_true", help="also how long engine auto takes to full speed")
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
