"""Forms of `effovpr evaluate`: where images, right answers and, for `live`, the answers come from."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from effovpr_ros.cli.options import (
    Subparsers,
    add_model_options,
    command,
    device_settings,
    extractor_config,
    given_model_options,
)
from effovpr_ros.cli.replaying import ROS_REMEDY, run_replay
from effovpr_ros.core.errors import ConfigError, EvaluationError, ModelMismatchError
from effovpr_ros.engines.quantisation_images import QuantisationImages
from effovpr_ros.features.extractor_config import ExtractorConfig, config_for_fingerprint
from effovpr_ros.lab.evaluation.bag_truth import PoseTruth, from_bag, from_bag_loops
from effovpr_ros.lab.evaluation.ground_truth import RADIUS_M, Dataset, from_folders, from_loops
from effovpr_ros.lab.evaluation.match_records import MATCH_TYPE, RecordedAnswer, read_match_lines, read_matches
from effovpr_ros.lab.evaluation.recorded import LiveRun, judge_recording
from effovpr_ros.mapping.manifest import read_manifest
from effovpr_ros.mapping.quantisation_sources import frames_quantisation_images, map_quantisation_images
from effovpr_ros.sources.bag_files import IMAGE_TYPES, bag_topics, is_bag

MATCH_TOPIC = "/place_recognizer/match"
LIVE_METHOD = "live"
"""The one method of `live`."""
_TRUTH = PoseTruth()


def add_folders_form(forms: Subparsers) -> argparse.ArgumentParser:
    """Add `evaluate folders`."""
    folders = command(
        forms,
        "folders",
        "evaluate a database folder and a query folder",
        "effovpr evaluate folders database/ queries/ --radius 25 --methods effovpr global",
    )
    folders.add_argument("database", type=Path, help="images named @utm_east@utm_north@...@.jpg or with EXIF GPS")
    folders.add_argument("queries", type=Path, help="likewise")
    folders.add_argument("--positives", type=Path, help="CSV (query, database) of right answers instead of positions")
    folders.add_argument("--table", type=Path, help="CSV of the database: image, x, y or image, latitude, longitude")
    folders.add_argument("--query-table", type=Path, help="CSV of the queries, likewise")
    folders.add_argument("--radius", type=float, default=RADIUS_M, help="metres within which two images show one place")
    folders.set_defaults(
        dataset=lambda given: from_folders(
            given.database,
            given.queries,
            positives=given.positives,
            table=given.table,
            query_table=given.query_table,
            radius_m=given.radius,
        )
    )
    return folders


def add_loops_form(forms: Subparsers) -> argparse.ArgumentParser:
    """Add `evaluate loops`."""
    loops = command(
        forms,
        "loops",
        "evaluate one drive against its own past",
        "effovpr evaluate loops images/ --loops loops.csv --min-gap 10",
    )
    loops.add_argument("images", type=Path, help="folder of frames in natural order of their names, or a bag")
    loops.add_argument("--loops", type=Path, help="CSV (image, earlier image) of right answers, for a folder")
    loops.add_argument("--min-gap", type=int, default=10, help="least number of frames between a frame and its match")
    loops.add_argument("--spacing-m", type=float, default=0.0, help="metres between frames of a bag; 0: every frame")
    add_pose_options(loops)
    loops.set_defaults(dataset=lambda given: _loops_dataset(given, loops.error))
    return loops


def add_bag_form(forms: Subparsers) -> argparse.ArgumentParser:
    """Add `evaluate bag`."""
    bag = command(
        forms,
        "bag",
        "evaluate the images of a bag against a map",
        "effovpr evaluate bag office second_drive.mcap --pose /odom --radius 2 --max-heading-deg 45",
    )
    bag.add_argument("map", type=Path, help="map folder; its model and stored descriptors are used")
    bag.add_argument("bag", type=Path, help="rosbag2 folder or .mcap file")
    add_pose_options(bag, required=True, rig=True)
    add_model_options(bag, of_a_map=True)
    bag.set_defaults(
        dataset=lambda given: from_bag(given.map, given.bag, pose_truth(given), image_topics=given.image_topic)
    )
    return bag


def add_live_form(forms: Subparsers) -> argparse.ArgumentParser:
    """Add `evaluate live`."""
    live = command(
        forms,
        "live",
        "evaluate what a running node answered",
        "effovpr evaluate live recording.mcap --pose /odom --map office --radius 2",
    )
    live.add_argument(
        "bag",
        type=Path,
        help="bag with the node's ~/match and the true pose; or with images, which are then played to the running node",
    )
    live.add_argument("--match-topic", default=MATCH_TOPIC, help="~/match of the node, in the bag or running")
    live.add_argument(
        "--map", type=Path, help="the map that the node used; with it, queries outside the mapped ground are known"
    )
    live.add_argument("--rate", type=float, default=1.0, help="speed at which images are played to the running node")
    add_pose_options(live, required=True, rig=True)
    return live


def extractor_for(options: argparse.Namespace, dataset: Dataset) -> ExtractorConfig:
    """The model of the options, or of the data set's map, which the options must not contradict.

    Raises:
        ModelMismatchError: they do; names the option.
    """
    if dataset.map_path is None:
        return extractor_config(options)
    config = config_for_fingerprint(read_manifest(dataset.map_path).fingerprint, **device_settings(options))
    for option, name, value in given_model_options(options):
        if value != getattr(config, name):
            raise ModelMismatchError(
                f"{option} {value} contradicts the map {dataset.map_path}, which was made with {getattr(config, name)}"
                "; leave the option out, or build a map with it"
            )
    return config


def quantisation_images_for(dataset: Dataset) -> QuantisationImages:
    """What an 8-bit engine is calibrated with: the map's images, or those that a map will be made of."""
    return (
        frames_quantisation_images(dataset.database)
        if dataset.map_path is None
        else map_quantisation_images(dataset.map_path)
    )


def judge_live(options: argparse.Namespace) -> LiveRun:
    """What a running node answered, held against the poses of the bag; see `judge_recording`.

    Raises:
        ConfigError: --match-topic does not name the node's match topic.
        EvaluationError: nothing was answered, or the answers cannot be judged.
        SourceError: the bag cannot be read or lacks a topic.
    """
    return judge_recording(
        options.bag,
        _answers(options),
        pose_truth(options),
        map_path=options.map,
        image_topic=options.image_topic[0],
    )


def _loops_dataset(options: argparse.Namespace, wrong_usage: Callable[[str], NoReturn]) -> Dataset:
    """The data set of `evaluate loops`: a folder with a table, or a bag with poses."""
    if is_bag(options.images):
        if options.loops is not None:
            wrong_usage(f"{options.images} is a bag, whose poses say what is right; leave --loops out")
        return from_bag_loops(
            options.images,
            pose_truth(options),
            image_topic=options.image_topic,
            min_gap=options.min_gap,
            spacing_m=options.spacing_m,
        )
    if options.loops is None:
        wrong_usage(f"{options.images} is no bag; a folder of images needs --loops CSV")
    return from_loops(options.images, options.loops, min_gap=options.min_gap)


def _answers(options: argparse.Namespace) -> list[RecordedAnswer]:
    topics = bag_topics(options.bag)
    images = [topic for topic, kind in topics.items() if kind in IMAGE_TYPES]
    if options.match_topic in topics or not images or MATCH_TYPE in topics.values():
        return read_matches(options.bag, options.match_topic)
    named: list[str] = [topic for topic in options.image_topic if topic]
    if not named and len(images) > 1:
        raise EvaluationError(
            f"bag {options.bag} has no {options.match_topic}, so that its images are played to the running node; "
            f"name some of {', '.join(images)} with --image-topic, those of one body's cameras that it listens to"
        )
    node = options.match_topic.removesuffix("/match")
    if node in ("", options.match_topic):
        raise ConfigError(f"--match-topic {options.match_topic!r} is no NODE/match, so that its node is not known")
    with tempfile.TemporaryDirectory(prefix="effovpr_live_") as folder:
        lines = Path(folder) / "matches.jsonl"
        code = run_replay(
            "replay",
            {
                "--running": node,
                "--bag": options.bag,
                "--out": lines,
                "--rate": options.rate,
            },
            ["--image-topic", *(named or images)],
        )
        if code:
            raise EvaluationError(
                f"{options.bag} could not be played to {node} (exit code {code}); its log says why; {ROS_REMEDY}"
            )
        return read_match_lines(lines)


def add_pose_options(parser: argparse.ArgumentParser, *, required: bool = False, rig: bool = False) -> None:
    """Where the truth is in a bag, and its images; `image_topic` is a list where a rig may ask."""
    kinds = "Odometry, PoseStamped, PoseWithCovarianceStamped, Path or NavSatFix"
    parser.add_argument(
        "--pose", default=_TRUTH.pose_topic, required=required, metavar="TOPIC", help=f"topic of true poses: {kinds}"
    )
    text = "image topic of a bag; not needed if it has one"
    if rig:
        text += "; several are cameras of one body, whose images of one moment are one query"
        parser.add_argument("--image-topic", nargs="+", default=[""], metavar="TOPIC", help=text)
    else:
        parser.add_argument("--image-topic", default="", metavar="TOPIC", help=text)
    parser.add_argument(
        "--radius", type=float, default=_TRUTH.radius_m, help="metres within which poses of a bag show one place"
    )
    parser.add_argument(
        "--max-heading-deg",
        type=float,
        default=_TRUTH.max_heading_deg,
        help="largest difference of heading between images of one place, in degrees, where headings are known",
    )
    parser.add_argument(
        "--max-gap-s",
        type=float,
        default=_TRUTH.max_gap_s,
        help="images between two poses that are more seconds apart are refused",
    )


def pose_truth(options: argparse.Namespace) -> PoseTruth:
    """The truth that the options describe."""
    return PoseTruth(options.pose, options.radius, options.max_heading_deg, options.max_gap_s)
