"""Program `loop_replay`: a bag through a loop closure detector over DDS; keyframes and closures as lines of JSON.

ros2 run effovpr_ros loop_replay --bag BAG --image-topic TOPIC --odom-topic TOPIC --out FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import Pose
from rclpy.signals import SignalHandlerOptions

from effovpr_ros.loop_closure.closure_pose import MeasuredBy
from effovpr_ros.msg import Keyframe, LoopClosure
from effovpr_ros.nodes.conversions import ns_from_time
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

_NODE = "loop_closure_detector"
KEYFRAMES_NAME, CLOSURES_NAME = "keyframes.jsonl", "closures.jsonl"


def replay(options: argparse.Namespace) -> int:
    """Start detector and player, record until both are quiet; returns the number of keyframes.

    Raises:
        NodeError: a process failed.
    """
    require_images(options.bag, options.image_topic, options.image_transport)
    # A namespace of its own tells this detector from any other on the same domain.
    namespace = f"/loop_replay_{os.getpid()}"
    remapping = ["-r", f"__ns:={namespace}", "-r", f"odom:={options.odom_topic}"]
    remapping += ["-r", f"image:={options.image_topic}", "-r", f"image/compressed:={options.image_topic}"]
    topics = [options.image_topic, options.odom_topic]
    if options.camera_info_topic:
        remapping += ["-r", f"camera_info:={options.camera_info_topic}"]
        topics.append(options.camera_info_topic)
    parameters = {
        "image_transport": options.image_transport,
        "image_reliability": "reliable",  # as the bag is played, see `replay`
        "device": options.device,
    }
    for setting in options.param:
        name, _, value = setting.partition("=")
        parameters[name] = value
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / KEYFRAMES_NAME).open("w", encoding="utf-8") as keyframes,
        (folder / CLOSURES_NAME).open("w", encoding="utf-8") as closures,
        node_process(_NODE, parameters, remapping) as detector,
    ):
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        target = f"{namespace}/{_NODE}"
        answers = [
            Answers(Keyframe, f"{target}/keyframe", keyframe_record, keyframes),
            Answers(LoopClosure, f"{target}/loop_closure", closure_record, closures),
        ]
        recorder = AnswerRecorder("loop_recorder", target, answers)
        try:
            recorder.bring_up(lambda: require_running(detector, _NODE))
            play_bag(options.bag, topics, options.rate, recorder, lambda: require_running(detector, _NODE))
            return recorder.recorded
        finally:
            recorder.destroy_node()
            rclpy.try_shutdown()


def keyframe_record(message: Keyframe) -> dict[str, Any]:
    """A keyframe as plain values for JSON."""
    return {
        "keyframe_id": message.keyframe_id,
        "session": message.session,
        "stamp_ns": ns_from_time(message.header.stamp),
        "odom_pose": _values(message.odom_pose) if message.has_odom_pose else None,
        "distance_m": message.distance_m,
        "insert_ms": message.insert_ms,
        "total_ms": message.total_ms,
    }


def closure_record(message: LoopClosure) -> dict[str, Any]:
    """A loop closure as plain values for JSON."""
    return {
        "query_id": message.query_id,
        "match_id": message.match_id,
        "query_session": message.query_session,
        "match_session": message.match_session,
        "query_stamp_ns": ns_from_time(message.query_stamp),
        "match_stamp_ns": ns_from_time(message.match_stamp),
        "confidence": message.confidence,
        "is_calibrated": message.is_calibrated,
        "decided_by": "SEQUENCE" if message.decided_by == LoopClosure.SEQUENCE else "SINGLE_IMAGE",
        "similarity": message.similarity,
        "num_matches": message.num_matches,
        "num_consistent": message.num_consistent,
        "score": message.score,
        "bearing_offset_rad": message.bearing_offset_rad if message.has_bearing_rad else None,
        "measured_by": MeasuredBy(message.measured_by).name,
        "num_inliers": message.num_inliers,
        "is_metric": message.is_metric,
        "relative_pose": _values(message.relative_pose.pose),
        "covariance": message.relative_pose.covariance.tolist(),
    }


def _values(pose: Pose) -> list[float]:
    position, turn = pose.position, pose.orientation
    return [position.x, position.y, position.z, turn.x, turn.y, turn.z, turn.w]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loop_replay", description=f"Replay a bag through {_NODE} over DDS.")
    parser.add_argument("--bag", required=True, help="rosbag2 folder")
    parser.add_argument("--image-topic", required=True, help="topic of the bag")
    parser.add_argument("--odom-topic", required=True, help="topic of the bag")
    parser.add_argument("--camera-info-topic", default="", help="topic of the bag; without it no bearing is known")
    parser.add_argument("--image-transport", choices=("raw", "compressed"), default="compressed")
    parser.add_argument("--out", required=True, help=f"folder of {KEYFRAMES_NAME} and {CLOSURES_NAME}")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the replay")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="parameter of the node; may be repeated"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = _parse(arguments)
    os.environ.update(isolated_environment())
    return run_replay("loop_replay", replay, options)


if __name__ == "__main__":
    sys.exit(main())
