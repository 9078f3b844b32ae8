"""Pictures of queries beside the places they were taken for: which ones, and how they are drawn."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer, MatchesPatches, Method, Query
from effovpr_ros.lab.evaluation.outcomes import Outcome, QueryOutcome
from effovpr_ros.lab.evaluation.positions import horizontal_distance_m
from effovpr_ros.recognition.drawing import draw_pair, draw_points
from effovpr_ros.recognition.third_stage import Verified, verified_parts

MOST_ENTRIES = 6
_WEBP_QUALITY = 70


@dataclass(frozen=True)
class GallerySection:
    """Queries of one kind.

    Attributes:
        title: of the kind.
        note: what belongs to it and which are shown first.
        total: queries of the kind.
        shown: the chosen ones.
    """

    title: str
    note: str
    total: int
    shown: tuple[QueryOutcome, ...]


@dataclass(frozen=True)
class Picture:
    """A query beside a place.

    Attributes:
        source: data URI.
        alt: what it shows.
        caption: likewise, with the figures.
    """

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class GalleryEntry:
    """One query of the gallery.

    Attributes:
        title: name of the query.
        outcome: of the answer.
        verdict: outcome and confidence.
        reason: the method's own; may be empty.
        pictures: beside the place answered, then beside the right one or the first stage's.
        remark: where there is no second picture, why.
    """

    title: str
    outcome: Outcome
    verdict: str
    reason: str
    pictures: tuple[Picture, ...]
    remark: str


def choose(outcomes: Sequence[QueryOutcome], most: int = MOST_ENTRIES) -> tuple[GallerySection, ...]:
    """Failures, rescues, the reverse, and successes; each query belongs to one kind at most.

    Wrong answers come most confident first, since these do harm; right ones least confident first, since these
    show where the limit lies. Equal confidences come in the order of the queries.
    """
    failures: list[QueryOutcome] = []
    rescues: list[QueryOutcome] = []
    reverse: list[QueryOutcome] = []
    successes: list[QueryOutcome] = []
    for item in outcomes:
        if item.right:
            (rescues if item.first_stage_right is False else successes).append(item)
        elif item.first_stage_right:
            reverse.append(item)
        elif item.outcome in (Outcome.FALSE_MATCH, Outcome.WRONG_UNSURE) and item.best is not None:
            failures.append(item)
    most_sure, least_sure = (lambda item: -item.confidence), (lambda item: item.confidence)
    sections = (
        ("Failures", "Wrong answers, the most confident first.", failures, most_sure),
        (
            "Rescues",
            "Wrong by global similarity, right after re-ranking or in the sequence; the most confident first.",
            rescues,
            most_sure,
        ),
        (
            "The reverse",
            "Right by global similarity, wrong after re-ranking or in the sequence; the most confident first.",
            reverse,
            most_sure,
        ),
        ("Successes", "Right answers, the least confident first.", successes, least_sure),
    )
    return tuple(
        GallerySection(title, note, len(members), tuple(sorted(members, key=key)[:most]))
        for title, note, members, key in sections
    )


def draw_entry(dataset: Dataset, query: Query, answer: Answer, outcome: QueryOutcome, method: Method) -> GalleryEntry:
    """Pictures and words for one answered query.

    Raises:
        ImageError: an image cannot be read any more.
    """
    if outcome.best is None:
        raise ValueError(f"query {outcome.query} has no answer to draw")
    query = query.picture(answer.picture)
    image = query.frame.load()
    verified = answer.recognition.verified if answer.recognition else None

    def beside(number: int, relation: str) -> Picture:
        return _picture(dataset, query, image, number, method, verified, relation)

    pictures = [beside(outcome.best, "Answered with")]
    remark = ""
    positives = dataset.positives[outcome.query]
    if outcome.right and outcome.first_stage_right is False and outcome.first_stage is not None:
        pictures.append(beside(outcome.first_stage, "First by global similarity was"))
    elif not outcome.right and positives:
        rank, number = _best_positive(answer, positives)
        place = f"At rank {rank} lies the right" if rank else "Not among the candidates is the right"
        pictures.append(beside(number, place))
    elif not outcome.right:
        remark = "No database image shows this place."
    status = f"{answer.status.name}, " if answer.status is not None else ""
    return GalleryEntry(
        title=f"{query.frame.name} (query {outcome.query})",
        outcome=outcome.outcome,
        verdict=f"{outcome.outcome.value}: {status}confidence {answer.confidence:.2f}",
        reason=answer.recognition.reason if answer.recognition else "",
        pictures=tuple(pictures),
        remark=remark,
    )


def _best_positive(answer: Answer, positives: frozenset[int]) -> tuple[int | None, int]:
    """Rank from 1 of the best ranked positive and its number; no rank and the lowest number if none is ranked."""
    for rank, number in enumerate(answer.ranked, start=1):
        if number in positives:
            return rank, number
    return None, min(positives)


def _picture(
    dataset: Dataset,
    query: Query,
    image: RgbImage,
    number: int,
    method: Method,
    verified: Verified | None,
    relation: str,
) -> Picture:
    """The query beside a place, with verified points where the third stage saw it, else with matched patches."""
    stored = dataset.database[number]
    seen = None if verified is None else verified.of(number)
    matched = ""
    if verified is not None and seen is not None:
        parts = verified_parts(verified, seen)
        matched = f", {len(parts[0])} verified points"
        picture = draw_points(image, stored.load(), *parts)
    else:
        cells = np.empty((0, 2), np.uint8), np.empty((0, 2), np.uint8)
        if isinstance(method, MatchesPatches):
            cells = method.matched_cells(query, number)
            matched = f", {len(cells[0])} matched patches"
        picture = draw_pair(image, stored.load(), *cells, query.features.grid_wh)
    distance_m = horizontal_distance_m(query.frame, stored)
    distance = "" if distance_m is None else f", {distance_m:.1f} m away"
    caption = f"{relation} {stored.name} (place {number}){distance}{matched}"
    return Picture(_data_uri(picture), f"{query.frame.name} beside {stored.name}{matched}", caption)


def _data_uri(picture: RgbImage) -> str:
    done, webp = cv2.imencode(
        ".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY]
    )
    if not done:
        raise ImageError(f"a picture of shape {picture.shape} cannot be stored as WebP; install an OpenCV with WebP")
    return f"data:image/webp;base64,{base64.b64encode(webp.tobytes()).decode()}"
