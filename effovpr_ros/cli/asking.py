"""What `effovpr query` does: ask a map about images, without ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from effovpr_ros.api import open_map
from effovpr_ros.cli.answer_page import Card, answer_card, error_card, write_page
from effovpr_ros.cli.camera_options import given_camera
from effovpr_ros.cli.map_source import max_pixels
from effovpr_ros.cli.options import device_settings, given_recognizer_settings, print_json
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


def ask(options: argparse.Namespace) -> int:
    """Ask and print; gives the exit code, 1 where an image could not be read.

    Raises:
        EffoVPRError: no usable map, an impossible value, or a page that cannot be written.
    """
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
