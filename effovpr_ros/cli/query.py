"""`effovpr query`: ask a map about images, without ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effovpr_ros.api import open_map
from effovpr_ros.cli.answer_page import Card, answer_card, error_card, write_page
from effovpr_ros.cli.camera_options import add_camera_options, given_camera
from effovpr_ros.cli.map_source import add_pixel_option, max_pixels
from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_recognizer_options,
    command,
    device_settings,
    given_recognizer_settings,
    print_json,
)
from effovpr_ros.core.errors import ConfigError, ImageError
from effovpr_ros.core.images import shown
from effovpr_ros.remote.answers import AnswerRecord, answer_record


@dataclass(frozen=True)
class UnansweredImage:
    """An image that could not be read.

    Attributes:
        image: its file.
        error: why.
    """

    image: str
    error: str


@dataclass(frozen=True)
class QueryAnswers:
    """Answers of a map.

    Attributes:
        map: its folder.
        results: one for each image.
    """

    map: str
    results: Sequence[AnswerRecord | UnansweredImage]


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(commands, "query", summary, "effovpr query office where_is_this.jpg")
    parser.add_argument("map", type=Path, help="map folder")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--candidates", type=int, default=3, help="candidates to print for each image")
    parser.add_argument("--page", type=Path, help="HTML page to write: each image beside the place answered")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_recognizer_options(parser)
    add_pixel_option(parser)
    add_camera_options(parser)
    add_device_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    results: list[AnswerRecord | UnansweredImage] = []
    cards: list[Card] = []
    limit, camera = max_pixels(options), given_camera(options)
    settings = given_recognizer_settings(options)
    if options.page is not None and not options.page.resolve().parent.is_dir():
        raise ConfigError(f"the folder of {shown(options.page)} does not exist; make it or choose another --page")
    with open_map(options.map, **device_settings(options), settings=settings, max_pixels=limit) as recognizer:
        for path in options.images:
            try:
                recognition = recognizer.recognize(path, camera=camera)
            except ImageError as error:
                results.append(UnansweredImage(shown(path), str(error)))
                cards.append(error_card(path, error))
                continue
            results.append(answer_record(recognition, options.candidates, shown(path)))
            if options.page is not None:
                cards.append(answer_card(recognizer, path, recognition))
    if options.json:
        print_json(QueryAnswers(shown(options.map), results))
    else:
        for result in results:
            _print(result)
    if options.page is not None:
        write_page(
            options.page, f"{len(cards)} image{'' if len(cards) == 1 else 's'} asked of map {shown(options.map)}", cards
        )
        print(f"page: {shown(options.page.resolve())}", file=sys.stderr)
    return int(any(isinstance(result, UnansweredImage) for result in results))


def _print(result: AnswerRecord | UnansweredImage) -> None:
    if isinstance(result, UnansweredImage):
        print(f"{result.image}: ERROR {result.error}")
        return
    print(f"{result.image}: {result.status} {result.confidence:.2f}  ({result.reason})")
    if result.is_metric and result.pose is not None:
        x, y, z = result.pose.position_xyz
        print(f"  measured at ({x:.3f}, {y:.3f}, {z:.3f}) m: {result.measured}")
    for candidate in result.candidates:
        where = ""
        if candidate.position_xyz:
            numbers = ("?" if value is None else f"{value:.2f}" for value in candidate.position_xyz)
            where = f" at ({', '.join(numbers)}) m"
        if candidate.latitude is not None:
            where += f" {candidate.latitude:.6f}, {candidate.longitude:.6f}"
        verified = f", {candidate.points.homography} inliers" if candidate.points else ""
        print(
            f"  place {candidate.place_id} {candidate.session}/{candidate.source}{where}: "
            f"similarity {candidate.similarity:.3f}, {candidate.num_matches} matches, "
            f"{candidate.num_consistent} consistent{verified}"
        )
