"""Both nodes as processes, fed with messages and calls that no driver and no person would send on purpose."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from harness import Harness, image_message  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rcl_interfaces.msg import Parameter as ParameterMessage  # noqa: E402
from rcl_interfaces.srv import GetParameters, SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from synthetic import jpeg, picture, tiny_extractor  # noqa: E402

from effovpr_ros.core.poses import Pose  # noqa: E402
from effovpr_ros.mapping.build_config import BuildConfig  # noqa: E402
from effovpr_ros.mapping.builder import build_map  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.msg import Keyframe  # noqa: E402
from effovpr_ros.nodes.outputs import RESULT_QOS  # noqa: E402
from effovpr_ros.sources.frame import Frame  # noqa: E402
from effovpr_ros.srv import LoadMap, Localize, SaveMap  # noqa: E402

PROGRAM = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR1)
sys.path.insert(0, sys.argv.pop(1))
import synthetic
from effovpr_ros.nodes.{name} import main
main()
"""
FLOATS = (float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 0.0, -1.0, 5e-324)
TEXTS = ("", "x" * 70_000, "\N{SNOWMAN}" * 50, "../" * 40, "~nosuchuser/map", "a\nb\tc", "rgb8", "bayer_rggb8", "32FC1")
INTEGERS = (0, 1, -1, 127, 255, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
WARM = 300


class Fuzz:
    """Values at the edges of their types, in messages that were good."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def spoil(self, message: Any, chance: float) -> Any:
        """Change some fields of a message, those inside others too."""
        for name, kind in message.get_fields_and_field_types().items():
            value = getattr(message, name)
            if hasattr(value, "get_fields_and_field_types"):
                self.spoil(value, chance)
            elif self.rng.random() < chance:
                try:
                    setattr(message, name, self.another(value, kind))
                except (AssertionError, OverflowError, TypeError, ValueError):
                    continue  # the message itself refuses it
        return message

    def another(self, value: Any, kind: str) -> Any:
        if isinstance(value, str):
            return self.pick(TEXTS)
        if isinstance(value, bool | float):
            return self.pick(FLOATS)
        if isinstance(value, int):
            limits = np.iinfo(kind)
            return self.pick([number for number in INTEGERS if limits.min <= number <= limits.max])
        if isinstance(value, np.ndarray):
            return np.full(value.shape, self.pick(FLOATS))
        if "/" in kind:  # a sequence of messages
            return [self.spoil(item, 0.5) for item in value] * int(self.rng.integers(0, 4))
        if "string" in kind:
            return [self.pick(TEXTS) for _ in range(int(self.rng.integers(0, 4)))]
        if isinstance(value, list):
            return value * int(self.rng.integers(0, 4))
        kept = len(value) if self.rng.random() < 0.5 else int(self.rng.integers(0, len(value) + 1))
        noise = self.rng.integers(0, 256, kept, dtype=np.uint8).tobytes()
        if self.rng.random() < 0.5:
            return type(value)(value[:kept]) if isinstance(value, bytes) else value[:kept]
        return noise

    def garbled(self, message: Any) -> bytes:
        """A message as bytes of which some are wrong: lengths, texts and numbers alike."""
        data = bytearray(serialize_message(message))
        for _ in range(int(self.rng.integers(1, 6))):
            data[int(self.rng.integers(4, min(len(data), 200)))] = int(self.rng.integers(256))
        return bytes(data[: int(self.rng.integers(8, len(data)))] if self.rng.random() < 0.2 else data)


@contextmanager
def process(name: str, errors: Path, **parameters: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A node as a process of its own; what it and its libraries write goes to a file: a pipe would fill and stop it."""
    # Whatever a request names is written there.
    folder = errors.parent / "elsewhere"
    folder.mkdir()
    command = [sys.executable, "-P", "-c", PROGRAM.format(name=name), str(Path(__file__).parents[1]), "--ros-args"]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={value}"]
    with errors.open("wb") as stderr:
        running = subprocess.Popen(
            [*command, "--log-level", "fatal"],
            cwd=folder,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024.0


class Attack:
    """Sends what is fuzzed, and sees that the node lives and answers."""

    def __init__(self, client: Harness, running: subprocess.Popen[bytes], errors: Path, seed: int) -> None:
        self.client = client
        self.running = running
        self.errors = errors
        self.fuzz = Fuzz(seed)
        self._publishers = {
            topic: client.client.create_publisher(kind, topic, RESULT_QOS)
            for kind, topic in (
                (Image, "/image"),
                (CompressedImage, "/image/compressed"),
                (Odometry, "/odom"),
                (CameraInfo, "/camera_info"),
                (Image, "/depth"),
                (PoseWithCovarianceStamped, f"{client.name}/hint"),
            )
        }
        self._clients: dict[str, Any] = {}
        self._state = client.client.create_client(GetState, f"{client.name}/get_state")

    def publish(self, topic: str, message: Any) -> None:
        self._publishers[topic].publish(
            self.fuzz.garbled(message) if self.fuzz.rng.random() < 0.2 else self.fuzz.spoil(message, 0.25)
        )

    def ask(self, kind: Any, name: str, request: Any) -> None:
        """Call a service; nobody waits for the answer."""
        if name not in self._clients:
            self._clients[name] = self.client.client.create_client(kind, name)
            assert self._clients[name].wait_for_service(60.0)
        self._clients[name].call_async(self.fuzz.spoil(request, 0.5))

    def alive(self) -> None:
        """The node answers within five seconds of its own time: with what others take it may be some more."""
        assert self.running.poll() is None, f"the node ended with {self.running.returncode}: {self.last_words()}"
        answer = self._state.call_async(GetState.Request())
        deadline = time.monotonic() + 30.0
        while not answer.done():
            if time.monotonic() > deadline:
                self.running.send_signal(signal.SIGUSR1)
                time.sleep(1.0)
                pytest.fail(f"no answer to get_state: {self.last_words()}")
            time.sleep(0.01)

    def last_words(self) -> str:
        """The end of what the node wrote, with a trace of its threads where one was asked for."""
        return self.errors.read_text(encoding="utf-8", errors="replace")[-8000:]

    def run(self, count: int, send: Callable[[int], None]) -> None:
        """Send, look after the node now and then, and hold its memory against what it was when warm."""
        warm_mib = 0.0
        for number in range(count):
            send(number)
            time.sleep(0.002)
            if number % 50 == 49:
                self.alive()
            if number == min(WARM, count - 1):
                warm_mib = rss_mib(self.running.pid)
        self.alive()
        grown_mib = rss_mib(self.running.pid) - warm_mib
        assert grown_mib < 150.0, f"memory grew by {grown_mib:.0f} MiB from {warm_mib:.0f} MiB"
        print(f"{count} fuzzed messages: memory from {warm_mib:.0f} MiB, {grown_mib:+.1f} MiB")


COUNTS = [pytest.param(150, id="sample"), pytest.param(10_000, id="all", marks=pytest.mark.benchmark)]


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("count", COUNTS)
def test_the_recogniser_survives_what_it_is_sent(tmp_path: Path, count: int):
    extractor = tiny_extractor(tmp_path)
    with PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint) as place_map:
        frames = [
            Frame(f"{n}.jpg", "map", n, Pose.from_yaw(20.0 * n, 0.0, 0.5), None, lambda n=n: picture(n))
            for n in range(6)
        ]
        build_map(place_map, extractor, frames, BuildConfig())
    parameters = {
        "map_path": tmp_path / "map",
        "weights": extractor.config.weights,
        "engine": "torch",
        "device": "cpu",
        "sequence_length": 5,
        "max_megapixels": 4.0,
    }
    name = "/place_recognizer"
    errors = tmp_path / "stderr.txt"
    with process("place_recognizer", errors, **parameters) as running:
        client = Harness(None, {}, name)
        try:
            client.await_node()
            client.start()
            attack = Attack(client, running, errors, 11)

            def send(number: int) -> None:
                image = image_message(picture(number % 6), 50 + number)
                if number % 5 == 0:
                    attack.publish(f"{name}/hint", hint())
                elif number % 5 == 1:
                    attack.publish("/odom", odometry(number))
                elif number % 10 == 2:
                    attack.ask(Localize, f"{name}/localize", Localize.Request(image=image, timeout_s=1.0))
                elif number % 20 == 3:
                    attack.ask(LoadMap, f"{name}/load_map", LoadMap.Request(path=str(tmp_path / "map")))
                elif number % 20 == 13:
                    attack.ask(SetParameters, f"{name}/set_parameters", parameter(attack.fuzz))
                else:
                    attack.publish("/image", image)

            names = ["top_k", "score", "min_similarity"]
            before = client.call(GetParameters, f"{name}/get_parameters", GetParameters.Request(names=names)).values
            attack.run(count, send)
            back = [ParameterMessage(name=key, value=value) for key, value in zip(names, before, strict=True)]
            restored = client.call(
                SetParameters, f"{name}/set_parameters", SetParameters.Request(parameters=back)
            ).results
            assert all(result.successful for result in restored), restored
            # Of a time that no hint was given for.
            good = Localize.Request(image=image_message(picture(4), 1_000_000), timeout_s=60.0)
            load = LoadMap.Request(path=str(tmp_path / "map"))
            assert client.call(LoadMap, f"{name}/load_map", load).success
            answer = client.call(Localize, f"{name}/localize", good)
            assert answer.success, answer.message
            assert answer.match.candidates[0].source == "4.jpg"
        finally:
            client.close()


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("count", COUNTS)
def test_the_detector_survives_what_it_is_sent(tmp_path: Path, count: int):
    extractor = tiny_extractor(tmp_path)
    PlaceMap.create(tmp_path / "session", fingerprint=extractor.fingerprint, frame_id="odom").close()
    parameters = {
        "session_path": tmp_path / "session",
        "weights": extractor.config.weights,
        "engine": "torch",
        "device": "cpu",
        "image_transport": "compressed",
        "odom_wait_s": 0.01,
        "camera_pose": "0.2 0 0.5 -1.5708 0 -1.5708",
        "max_keyframes": 50,
        "max_megapixels": 4.0,
    }
    name = "/loop_closure_detector"
    errors = tmp_path / "stderr.txt"
    with process("loop_closure_detector", errors, **parameters) as running:
        client = Harness(None, {}, name)
        try:
            client.await_node()
            client.start()
            attack = Attack(client, running, errors, 12)
            keyframes = client.listen(Keyframe, f"{name}/keyframe")
            info = CameraInfo(width=96, height=72, k=[80.0, 0.0, 47.5, 0.0, 80.0, 35.5, 0.0, 0.0, 1.0])

            def send(number: int) -> None:
                image = CompressedImage(format="jpeg", data=jpeg(picture(number % 40)))
                image.header.stamp.sec = 50 + number
                if number % 4 == 0:
                    attack.publish("/odom", odometry(number))
                elif number % 8 == 1:
                    attack.publish("/camera_info", info)
                elif number % 40 == 5:
                    request = SaveMap.Request(path="/proc/none", name="x")
                    attack.ask(SaveMap, f"{name}/save_map", request)
                elif number % 40 == 25:
                    attack.ask(SetParameters, f"{name}/set_parameters", parameter(attack.fuzz))
                else:
                    attack.publish("/image/compressed", image)

            attack.run(count, send)
            # A stamp after all others, whatever those were.
            good = CompressedImage(format="jpeg", data=jpeg(picture(77)))
            good.header.stamp.sec = 2**31 - 2
            found = lambda: any(keyframe.header.stamp.sec == 2**31 - 2 for keyframe in keyframes)  # noqa: E731
            client.publish_until(good, found, "a keyframe of a good image", attack._publishers["/image/compressed"])
        finally:
            client.close()


def hint() -> PoseWithCovarianceStamped:
    message = PoseWithCovarianceStamped()
    message.header.stamp.sec, message.header.frame_id = 50, "map"
    return message


def odometry(number: int) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.stamp.sec, message.header.frame_id = 50 + number, "odom"
    message.pose.pose.position.x, message.pose.pose.orientation.w = float(number), 1.0
    return message


def parameter(fuzz: Fuzz) -> SetParameters.Request:
    name = fuzz.pick(("top_k", "score", "min_similarity", "map_path", "map_root", "closures", "nonsense"))
    value = fuzz.pick((*FLOATS, *TEXTS, *INTEGERS, True, ["a"], [1.5]))
    return SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
