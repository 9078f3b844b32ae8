"""`effovpr demo slam`: a simulated robot drives two laps, finds that it has been there before and mends its path."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.cli.options import print_json
from effovpr_ros.cli.replaying import ROS_REMEDY, run_replay
from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.mounted_cameras import pose_text
from effovpr_ros.lab.simulation.drive import plan_drive
from effovpr_ros.lab.simulation.laps import LAPS_DRIVE, LAPS_KEYFRAME_M, LAPS_LEVEL, LAPS_WAYPOINTS_M
from effovpr_ros.lab.simulation.laps_recording import record_laps
from effovpr_ros.lab.simulation.level import CAMERA_MOUNTING, Level
from effovpr_ros.lab.simulation.odometry import OdometryConfig
from effovpr_ros.lab.simulation.pose_graph import optimize
from effovpr_ros.lab.simulation.recording import CAMERA_INFO_TOPIC, IMAGE_TOPIC, ODOMETRY_TOPIC
from effovpr_ros.lab.simulation.slam_picture import draw_slam
from effovpr_ros.lab.simulation.slam_score import judge_closures, read_closures, read_keyframes, score_slam
from effovpr_ros.sources.trajectory import read_tum, write_tum

FOLDER = "slam"


def run_slam(options: argparse.Namespace) -> int:
    """Record unless that is done, replay through the node, optimise and report.

    Args:
        options: out, rate, device, engine and json of `effovpr demo`.
    """
    folder = options.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, step in (("record", _record), ("replay", _replay), ("report", _report)):
        started = time.monotonic()
        step(folder, options)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


def _record(folder: Path, options: argparse.Namespace) -> None:
    """Drive the laps; the second in changed light. A drive that is recorded already is kept."""
    bag = folder / "laps"
    if (bag / "metadata.yaml").is_file():
        return
    with Level(LAPS_LEVEL) as level:
        poses = plan_drive(level.free_floor(), LAPS_WAYPOINTS_M, LAPS_DRIVE)
        with tqdm(total=len(poses), unit="frame", desc=bag.name, disable=None) as bar:
            record_laps(
                level,
                poses,
                bag,
                folder / "truth.tum",
                OdometryConfig(),
                disturbed_from=len(poses) // 2,
                seed=LAPS_DRIVE.seed,
                progress=lambda done: bar.update(done),
            )


def _replay(folder: Path, options: argparse.Namespace) -> None:
    """Replay through the detector."""
    arguments = {
        "--bag": folder / "laps",
        "--image-topic": IMAGE_TOPIC,
        "--odom-topic": ODOMETRY_TOPIC,
        "--camera-info-topic": CAMERA_INFO_TOPIC,
        "--out": folder,
        # Keyframes have no answer to wait for.
        "--rate": options.rate or 1.0,
        "--device": options.device,
    }
    # A pose graph has no use for a keyframe without odometry.
    settings = (
        f"keyframe_distance_m={LAPS_KEYFRAME_M}",
        "odometry_required=true",
        f"engine={options.engine}",
        f"camera_pose={pose_text(CAMERA_MOUNTING)}",
    )
    code = run_replay("loop_replay", arguments, [part for setting in settings for part in ("--param", setting)])
    if code:
        raise SimulationError(f"the replay ended with exit code {code}; {ROS_REMEDY}")


def _report(folder: Path, options: argparse.Namespace) -> None:
    """Close the loops in a pose graph and hold the result against the truth; print the table, draw the picture."""
    keyframes, closures = read_keyframes(folder / "keyframes.jsonl"), read_closures(folder / "closures.jsonl")
    true_path, _ = read_tum(folder / "truth.tum")
    # The truth has a pose of exactly each image's stamp; a keyframe of another stamp is refused.
    truth = [true_path.at(keyframe.stamp_ns, max_gap_ns=0) for keyframe in keyframes]
    optimized = optimize(keyframes, closures)
    judged = judge_closures(keyframes, closures, optimized.accepted, truth)
    result = score_slam(keyframes, optimized, judged, truth)
    odometry = [keyframe.odom_pose for keyframe in keyframes]
    stamps_ns = [keyframe.stamp_ns for keyframe in keyframes]
    write_tum(folder / "odometry.tum", zip(stamps_ns, odometry, strict=True))
    write_tum(folder / "optimized.tum", zip(stamps_ns, optimized.poses, strict=True))
    picture, figures = folder / "slam.png", folder / "slam.json"
    with Level(LAPS_LEVEL) as level:
        draw_slam(level.walls_m(), truth, odometry, optimized.poses, judged, result, picture)
    figures.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    if options.json:
        print_json(result.to_dict())
    else:
        print(result.table())
    print(f"picture: {picture.resolve()}\nfigures: {figures.resolve()}", file=sys.stderr)
