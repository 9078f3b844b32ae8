"""End to end over DDS, each part a process of its own: bag player, lifecycle node, recorder."""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.lifecycle import LifecycleNode  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from ros1_bags import ros1  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from synthetic import jpeg, picture  # noqa: E402

from effovpr_ros.cli.main import main  # noqa: E402
from effovpr_ros.core.poses import Pose  # noqa: E402
from effovpr_ros.features.extractor import FeatureExtractor  # noqa: E402
from effovpr_ros.mapping.build_config import BuildConfig  # noqa: E402
from effovpr_ros.mapping.builder import build_map  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.msg import PlaceCandidate, PlaceMatch  # noqa: E402
from effovpr_ros.nodes import replay  # noqa: E402
from effovpr_ros.nodes.image_decoding import decode_message  # noqa: E402
from effovpr_ros.nodes.replaying import run_replay  # noqa: E402
from effovpr_ros.sources.bag_writer import BagWriter  # noqa: E402
from effovpr_ros.sources.frame import Frame  # noqa: E402

SECOND = 10**9
TOPIC = "/camera/compressed"
PLACES = 6


def scene(number: int) -> np.ndarray:
    return picture(number, 320, 240)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag of six scenes, one a second, and a fixed stamp."""
    path = tmp_path_factory.mktemp("bags") / "drive"
    with BagWriter(path) as writer:
        for number in range(PLACES):
            writer.write_image(TOPIC, (1000 + number) * SECOND, scene(number), "camera")
    return path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, offline_extractor: FeatureExtractor) -> Path:
    """A map of the six scenes, 20 m apart."""
    folder = tmp_path_factory.mktemp("maps") / "house"
    with PlaceMap.create(folder, fingerprint=offline_extractor.fingerprint) as place_map:
        frames = [
            Frame(f"{n}.jpg", "first", n, Pose.from_yaw(20.0 * n, 0.0, 0.0), None, lambda n=n: scene(n))
            for n in range(PLACES)
        ]
        build_map(place_map, offline_extractor, frames, BuildConfig())
    return folder


@pytest.fixture
def silent_recognizer() -> Iterator[None]:
    """Another recogniser of the default name on the same domain, which never answers."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode("place_recognizer", context=context)
    yield
    node.destroy_node()
    rclpy.shutdown(context=context)
    # The lifecycle services are withdrawn when the node is collected.
    del node
    gc.collect()


@pytest.mark.usefixtures("silent_recognizer")
def test_a_bag_through_the_node(house: Path, drive: Path, tmp_path: Path):
    out = tmp_path / "matches.jsonl"
    arguments = ["--map", house, "--bag", drive, "--image-topic", TOPIC, "--out", out, "--rate", 0.5]
    arguments += ["--device", "cpu", "--engine", "torch"]
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.replay", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    # A frame every two seconds is slower than the node, even on a busy machine: none is dropped, each keeps its stamp.
    assert [record["stamp_ns"] for record in records] == [(1000 + n) * SECOND for n in range(PLACES)]
    for number, record in enumerate(records):
        assert record["candidates"][0]["place_id"] == number
        assert record["status"] == "MATCH", record["reason"]
        assert record["candidates"][0]["pose"][:3] == [20.0 * number, 0.0, 0.0]
        assert record["latency_ms"]["total"] >= record["latency_ms"]["extract"] > 0.0
    assert f"{PLACES} answers" in done.stdout


@pytest.fixture
def running_recognizer() -> Iterator[str]:
    """A node that answers each image of second 1000 + n with a place at x = n; returns its name."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("running", context=context)
    publisher = node.create_publisher(PlaceMatch, "/running/match", 10)

    def answer(image: CompressedImage) -> None:
        candidate = PlaceCandidate(place_id=image.header.stamp.sec - 1000, has_pose=True)
        candidate.pose.position.x = float(candidate.place_id)
        publisher.publish(
            PlaceMatch(header=image.header, status=PlaceMatch.MATCH, confidence=0.9, candidates=[candidate])
        )

    node.create_subscription(CompressedImage, TOPIC, answer, 10)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield "/running"
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_running_node_is_evaluated(running_recognizer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    bag = tmp_path / "drive"
    with BagWriter(bag) as writer:
        for number in range(4):
            stamp_ns = (1000 + number) * SECOND
            writer.write_image(TOPIC, stamp_ns, picture(number), "camera")
            # The last answer is 7 m off.
            pose = Pose.from_yaw(number + (7.0 if number == 3 else 0.5), 0.0, 0.0)
            writer.write_odometry("/odom", stamp_ns, pose, frame_id="map", child_frame_id="base")
    arguments = ["evaluate", "live", str(bag), "--pose", "/odom", "--rate", "4", "--json"]
    assert main([*arguments, "--match-topic", f"{running_recognizer}/match"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["dataset"]["queries"] == 4
    live = result["methods"]["live"]
    assert (live["recall"]["1"], live["matches"], live["wrong_matches"]) == (3 / 4, 4, 1)
    assert live["position_error_m"] == {"p50": 0.5, "p95": pytest.approx(0.5 + 0.85 * 6.5), "max": 7.0, "count": 4}


def test_each_image_waits_for_the_last_ones_answer(tmp_path: Path):
    bag, out = tmp_path / "drive", tmp_path / "m.jsonl"
    with BagWriter(bag) as writer:
        for number in range(5):
            # All within five thousandths of a second: played by time, they would wait in the node together.
            writer.write_image(TOPIC, 1000 * SECOND + number * 10**6, picture(number), "camera")
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("slow", context=context)
    publisher = node.create_publisher(PlaceMatch, "/slow/match", 10)
    waiting: list[CompressedImage] = []
    most_waiting = 0

    def receive(image: CompressedImage) -> None:
        nonlocal most_waiting
        waiting.append(image)
        most_waiting = max(most_waiting, len(waiting))

    def answer() -> None:
        if waiting:
            publisher.publish(PlaceMatch(header=waiting.pop(0).header))

    node.create_subscription(CompressedImage, TOPIC, receive, 10)
    node.create_timer(0.3, answer)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        arguments = ["--running", "/slow", "--bag", str(bag), "--image-topic", TOPIC, "--out", str(out)]
        assert replay.main([*arguments, "--rate", "0"]) == 0
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.shutdown(context=context)
    stamps = [json.loads(line)["stamp_ns"] for line in out.read_text().splitlines()]
    assert stamps == [1000 * SECOND + number * 10**6 for number in range(5)]
    assert most_waiting == 1


def test_several_cameras_are_played_by_time(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--running", "/any", "--bag", str(drive), "--out", str(tmp_path / "m"), "--rate", "0"]
    assert replay.main([*arguments, "--image-topic", TOPIC, TOPIC]) == 1
    assert "--rate 0 plays one --image-topic" in capsys.readouterr().err


def test_a_node_that_does_not_run_is_said(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(replay, "_ACTIVE_TIMEOUT_S", 1.0)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + 50) % 100))
    arguments = ["--running", "/nobody", "--bag", str(drive), "--image-topic", TOPIC, "--out", str(tmp_path / "m")]
    assert replay.main(arguments) == 1
    assert "no active node publishes /nobody/match after 1 s; start and activate it" in capsys.readouterr().err


def test_a_replay_without_a_map_fails_with_the_nodes_reason(drive: Path, tmp_path: Path):
    arguments = ["--map", tmp_path / "gone", "--bag", drive, "--image-topic", TOPIC, "--out", tmp_path / "m.jsonl"]
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.replay", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert "refused to configure" in done.stderr
    assert "does not exist; build one" in done.stderr + done.stdout


def test_a_topic_of_the_other_transport_is_said(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--map", "any", "--bag", str(drive), "--image-topic", TOPIC, "--out", str(tmp_path / "m.jsonl")]
    assert replay.main([*arguments, "--image-transport", "raw"]) == 1
    assert "is compressed and raw was asked; use --image-transport compressed" in capsys.readouterr().err
    assert replay.main(["--running", "/any", *arguments[2:4], "--image-topic", "/rear", "--out", "m"]) == 1
    assert "image topic /rear is not there; topics: /camera/compressed" in capsys.readouterr().err


def test_no_answers_are_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = argparse.Namespace(out=tmp_path / "m.jsonl", image_topic=TOPIC)
    assert run_replay("replay", lambda _: 0, options) == 1
    assert f"replay: 0 answers: the node answered none of the images of {TOPIC}" in capsys.readouterr().err
    assert run_replay("replay", lambda _: 2, options) == 0


def test_the_player_converts_a_bag_of_ros_1(tmp_path: Path):
    ros1(tmp_path, topic=TOPIC)
    images, _, code = play(tmp_path / "drive.bag", 2, rate="2.0", start_delay_s="4.0")
    assert code == 0
    assert [message.header.stamp.sec for _, message in images] == [1000, 1001]
    shown = decode_message(images[1][1]).astype(int)
    assert np.abs(shown - picture(2)).mean() < 10.0


def test_a_recogniser_ends_cleanly_while_it_recognises(house: Path, drive: Path):
    name = f"/ended_{os.getpid()}"
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.place_recognizer", "--ros-args", "-r", f"__ns:={name}"]
    command += ["-p", f"map_path:={house}", "-p", "image_transport:=compressed", "-p", "device:=cpu"]
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    recorder = replay.MatchRecorder(io.StringIO(), f"{name}/place_recognizer")
    publisher = recorder.create_publisher(CompressedImage, f"{name}/image/compressed", 1)
    message = CompressedImage(format="jpeg", data=jpeg(scene(0)))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            recorder.bring_up(lambda: None)
            deadline = time.monotonic() + 100.0
            while recorder.recorded == 0 and time.monotonic() < deadline:
                publisher.publish(message)
                rclpy.spin_once(recorder, timeout_sec=0.1)
            assert recorder.recorded > 0
            publisher.publish(message)
            time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            # A terminal interrupts a second time.
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60.0)
        finally:
            process.kill()
            recorder.destroy_node()
            rclpy.shutdown()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "terminate called" not in said


def test_a_parameter_out_of_range_is_said_in_one_line():
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.place_recognizer", "--ros-args", "-p", "top_k:=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "place_recognizer: " in done.stderr
    assert "top_k" in done.stderr
    assert "Traceback" not in done.stderr


def play(bag: Path, most: int, **parameters: str) -> tuple[list[tuple[float, CompressedImage]], list[int], int]:
    """Run the player as a process until it ends or `most` images have come.

    Returns received images with their time, clocks in ns, and the exit code.
    """
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.bag_player", "--ros-args", "-p", f"bag_path:={bag}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("listener", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    images: list[tuple[float, CompressedImage]] = []
    clocks: list[int] = []
    node.create_subscription(CompressedImage, TOPIC, lambda m: images.append((time.monotonic(), m)), 10)
    node.create_subscription(Clock, "/clock", lambda m: clocks.append(m.clock.sec * SECOND + m.clock.nanosec), 10)
    try:
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 100.0
            while process.poll() is None and len(images) < most and time.monotonic() < deadline:
                executor.spin_once(timeout_sec=0.1)
            # What was sent last may still be on its way.
            for _ in range(10):
                executor.spin_once(timeout_sec=0.1)
            process.terminate()
            process.wait(60.0)
            return images, clocks, process.returncode
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_the_player_keeps_the_timing_and_gives_the_clock(drive: Path):
    images, clocks, code = play(drive, 2 * PLACES, rate="2.0", start_delay_s="4.0")
    assert code == 0
    assert [message.header.stamp.sec for _, message in images] == [1000 + n for n in range(PLACES)]
    steps = np.diff([received for received, _ in images])
    assert np.median(steps) == pytest.approx(0.5, abs=0.15)
    assert clocks == sorted(clocks)
    assert clocks[0] >= 1000 * SECOND
    assert clocks[-1] == (1000 + PLACES - 1) * SECOND
    assert len(clocks) > 30


def test_the_player_loops(drive: Path):
    images, _, _ = play(drive, 3 * PLACES, rate="20.0", loop="true", clock="false")
    stamps = [message.header.stamp.sec for _, message in images]
    assert len(stamps) > 2 * PLACES
    end = stamps.index(1000 + PLACES - 1)
    assert stamps[end + 1 : end + 1 + PLACES] == [1000 + n for n in range(PLACES)]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"bag_path": "/nowhere"}, "bag '/nowhere' does not exist; set the parameter bag_path"),
        ({"topics": "['/other']"}, "has no topic /other; it has /camera/compressed (sensor_msgs/msg/CompressedImage)"),
    ],
)
def test_the_player_says_what_is_wrong(drive: Path, parameters: dict[str, str], said: str):
    command = [sys.executable, "-P", "-m", "effovpr_ros.nodes.bag_player", "--ros-args"]
    for name, value in {"bag_path": str(drive), **parameters}.items():
        command += ["-p", f"{name}:={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_replay_is_kept_away_from_robots(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE")
    monkeypatch.delenv("ROS_DOMAIN_ID")
    environment = replay.isolated_environment()
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert 1 <= int(environment["ROS_DOMAIN_ID"]) <= 100
    assert {**environment, "PATH": ""} == {**os.environ, **environment, "PATH": ""}
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    assert replay.isolated_environment()["ROS_DOMAIN_ID"] == "42"
