"""Program `replay`: a bag through the real node over DDS, every answer recorded as a line of JSON.

ros2 run effovpr_ros replay --map MAP --bag BAG --image-topic TOPIC --out matches.jsonl
ros2 run effovpr_ros replay --running /place_recognizer --bag BAG --image-topic TOPIC --out matches.jsonl
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import rclpy
from rclpy.signals import SignalHandlerOptions

from effovpr_ros.core.errors import NodeError
from effovpr_ros.core.mounted_cameras import camera_names
from effovpr_ros.engines.catalogue import DEFAULT_ENGINE, ENGINE_NAMES
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.conversions import match_record
from effovpr_ros.nodes.replaying import (
    AnswerRecorder,
    Answers,
    isolated_environment,
    node_process,
    play_bag,
    require_images,
    require_running,
    run_replay,
)
from effovpr_ros.sources.bag_cameras import info_topic_beside
from effovpr_ros.sources.bag_files import bag_topics

_ACTIVE_TIMEOUT_S = 30.0


class MatchRecorder(AnswerRecorder):
    """Writes each PlaceMatch of one recogniser as a line of JSON.

    Attributes:
        topic: of the answers.
    """

    def __init__(self, out: TextIO, recognizer: str = "/place_recognizer", **options: object) -> None:
        """Subscribe.

        Args:
            out: open text file.
            recognizer: name of the recogniser.
            options: of `rclpy.node.Node`.
        """
        self.topic = f"{recognizer}/match"
        matches = Answers(PlaceMatch, self.topic, match_record, out)
        super().__init__("match_recorder", recognizer, [matches], **options)

    def await_running(self, image_topic: str) -> None:
        """Wait for a recogniser that others started.

        Raises:
            NodeError: nobody publishes its answers, or nobody listens to the images.
        """
        topic = self.resolve_topic_name(f"{self._target}/match")
        deadline_s = time.monotonic() + _ACTIVE_TIMEOUT_S
        while not (self.count_publishers(topic) and self.count_subscribers(image_topic)):
            rclpy.spin_once(self, timeout_sec=0.2)
            if time.monotonic() > deadline_s:
                if not self.count_publishers(topic):
                    raise NodeError(
                        f"no active node publishes {topic} after {_ACTIVE_TIMEOUT_S:.0f} s; start and activate it, in "
                        "this ROS domain, or name it with --running (effovpr evaluate live: --match-topic)"
                    )
                raise NodeError(
                    f"nobody listens to {image_topic}; remap the images of {self._target} to it, or name the topic "
                    "that it listens to with --image-topic"
                )


def replay(options: argparse.Namespace) -> int:
    """Start recogniser and player, record until both are quiet; returns the number of answers.

    Raises:
        NodeError: a process failed.
    """
    _require_one_topic_in_step(options)
    for topic in options.image_topic:
        require_images(options.bag, topic, options.image_transport)
    # A namespace of its own tells this recogniser from any other on the same domain.
    namespace = f"/replay_{os.getpid()}"
    remapping = ["-r", f"__ns:={namespace}"]
    first = options.image_topic[0]
    if len(options.image_topic) == 1:
        remapping += ["-r", f"image:={first}", "-r", f"image/compressed:={first}"]
    recognizer_parameters = {
        "map_path": str(Path(options.map).resolve()),
        "image_transport": options.image_transport,
        # As the bag is played: a subscription that first has to find that out loses an image when it changes over.
        "image_reliability": "reliable",
        "device": options.device,
        "engine": options.engine,
        "num_candidates": "10",
        **camera_parameters(options.image_topic, options.image_transport),
    }
    with (
        Path(options.out).open("w", encoding="utf-8") as out,
        node_process("place_recognizer", recognizer_parameters, remapping) as recognizer,
    ):
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        recorder = MatchRecorder(out, f"{namespace}/place_recognizer")
        try:
            recorder.bring_up(lambda: require_running(recognizer, "place_recognizer"))
            _play(options, recorder, lambda: require_running(recognizer, "place_recognizer"))
            return recorder.recorded
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def play_to_running(options: argparse.Namespace) -> int:
    """Play to a recogniser that runs already, record until it is quiet; returns the number of answers.

    Raises:
        NodeError: it is not there, or the player failed.
    """
    _require_one_topic_in_step(options)
    for topic in options.image_topic:
        require_images(options.bag, topic)
    with Path(options.out).open("w", encoding="utf-8") as out:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        recorder = MatchRecorder(out, options.running)
        try:
            recorder.await_running(options.image_topic[0])
            _play(options, recorder, lambda: None)
            return recorder.recorded
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def _play(options: argparse.Namespace, recorder: MatchRecorder, still_runs: Callable[[], None]) -> None:
    topics = [*options.image_topic, *topics_of_cameras(Path(options.bag), options.image_topic)]
    in_step = recorder.topic if options.rate == 0.0 else ""
    play_bag(options.bag, topics, options.rate, recorder, still_runs, in_step)


def camera_parameters(image_topics: Sequence[str], image_transport: str) -> dict[str, str]:
    """Parameters of `place_recognizer` for several cameras; none for one.

    Raises:
        NodeError: a topic of compressed images is not called as image_transport calls it.
    """
    if len(image_topics) == 1:
        return {}
    names = camera_names(image_topics)
    parameters = {"cameras": ",".join(names)}
    for name, topic in zip(names, image_topics, strict=True):
        base = topic.removesuffix("/compressed") if image_transport == "compressed" else topic
        if image_transport == "compressed" and base == topic:
            raise NodeError(f"{topic} is compressed, so of several cameras its name must end with /compressed")
        parameters[f"{name}.image_topic"] = base
    return parameters


def topics_of_cameras(bag: Path, image_topics: Sequence[str]) -> list[str]:
    """Topics of a bag that tell of cameras: `camera_info` beside their images, and `/tf_static`."""
    there = bag_topics(bag)
    wanted = dict.fromkeys([*map(info_topic_beside, image_topics), "/tf_static"])
    return [topic for topic in wanted if topic in there]


def _require_one_topic_in_step(options: argparse.Namespace) -> None:
    if options.rate == 0.0 and len(options.image_topic) > 1:
        raise NodeError("--rate 0 plays one --image-topic; for several cameras give a speed, such as --rate 1")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="replay", description="Replay a bag through place_recognizer over DDS.")
    recogniser = parser.add_mutually_exclusive_group(required=True)
    recogniser.add_argument("--map", help="map folder; a recogniser of it is started")
    recogniser.add_argument("--running", metavar="NODE", help="play to this recogniser, which runs in this ROS domain")
    parser.add_argument("--bag", required=True, help="rosbag2 folder")
    parser.add_argument(
        "--image-topic", required=True, nargs="+", metavar="TOPIC", help="of the bag; several are cameras of one body"
    )
    parser.add_argument("--image-transport", choices=("raw", "compressed"), default="compressed")
    parser.add_argument("--out", required=True, help="file of JSON lines to write")
    parser.add_argument("--rate", type=float, default=1.0, help="speed; 0: each image once the last is answered")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", choices=ENGINE_NAMES, default=DEFAULT_ENGINE)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = _parse(arguments)
    if not options.running:
        os.environ.update(isolated_environment())
    return run_replay("replay", play_to_running if options.running else replay, options)


if __name__ == "__main__":
    sys.exit(main())
