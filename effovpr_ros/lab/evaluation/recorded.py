"""Answers that a running node gave, held against the poses that were recorded beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from effovpr_ros.core.errors import EvaluationError, ImageError, TrajectoryError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.lab.evaluation.bag_truth import PoseTruth, map_frames, open_drive, stamp_name
from effovpr_ros.lab.evaluation.ground_truth import Dataset, require_positives
from effovpr_ros.lab.evaluation.match_records import RecordedAnswer
from effovpr_ros.lab.evaluation.method import Answer
from effovpr_ros.lab.evaluation.runner import MethodResult
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.sources.bag_files import IMAGE_TYPES, bag_topics
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.frame import Frame

_SAME_POSE_M = 1e-3


@dataclass(frozen=True)
class LiveRun:
    """A recording as an evaluation.

    Attributes:
        dataset: its queries are the answered images.
        result: the node's answers, one a query.
    """

    dataset: Dataset
    result: MethodResult


@dataclass(frozen=True)
class _Map:
    """What is known of the map that the node used."""

    places: dict[int, Frame]
    datum: Datum | None
    bytes_per_place: float | None


def judge_recording(
    bag: Path,
    answers: Sequence[RecordedAnswer],
    truth: PoseTruth,
    *,
    map_path: Path | None = None,
    image_topic: str = "",
) -> LiveRun:
    """Hold recorded answers against the truth.

    Without the map its places are not known: every query counts as on mapped ground, and a best candidate is right or
    wrong by its own pose.

    Args:
        bag: with the pose topic; its images, where there are some, are the queries'.
        answers: of one map.
        truth: the poses.
        map_path: the map that the node used, if it is here.
        image_topic: empty for the only one, if any.

    Raises:
        EvaluationError: answers of several or of another map, candidates without a pose, no answer with a true pose,
            or no query on mapped ground.
        SourceError: the bag cannot be read or lacks a topic.
    """
    names = sorted({answer.map_name for answer in answers})
    if len(names) > 1:
        raise EvaluationError(f"{bag}: the answers are of several maps ({', '.join(names)}); record one at a time")
    known = _open_map(map_path) if map_path is not None else _Map({}, None, None)
    pictures = [topic for topic, kind in bag_topics(bag).items() if kind in IMAGE_TYPES]
    shown = image_topic or (pictures[0] if len(pictures) == 1 else None)
    source = open_drive(bag, truth, known.datum, map_path, image_topic=shown)
    judged, queries = _with_truth(answers, source, has_images=shown is not None)
    notes = []
    if len(judged) < len(answers):
        notes.append(f"{len(answers) - len(judged)} of {len(answers)} answers left out: no pose at their stamp")
    if shown is not None:
        notes.append(
            f"{len(answers)} answers to the {len(source)} images of {shown}; a node drops what it has no time for"
        )
    if map_path is None:
        by_id = _answered_places(judged)
        notes.append("without --map every query counts as on mapped ground, and only answered places are known")
    else:
        by_id = known.places
        _require_same_map(judged, by_id, map_path)
    places = list(by_id.values())
    positives = truth.positives(places, queries)
    if map_path is None:
        elsewhere = Frame("a place that was never answered", "", None, None, None, partial(_no_image, "a place"))
        positives = [found or frozenset({len(places)}) for found in positives]
        places = [*places, elsewhere]
    dataset = Dataset(
        name=source.session,
        database=places,
        queries=queries,
        positives=positives,
        allowed=[range(len(places))] * len(queries),
        map_path=map_path,
        notes=notes,
        database_known=map_path is not None,
    )
    numbers = {place_id: number for number, place_id in enumerate(by_id)}
    given = [
        Answer([numbers[item.place_id] for item in a.candidates], a.confidence, a.status, a.latency_ms) for a in judged
    ]
    reason = f"check --radius, and whether {source.pose_topic} and the map share one frame (none is {truth.limits})"
    return LiveRun(require_positives(dataset, reason), MethodResult(given, known.bytes_per_place, calibrated=False))


def _open_map(map_path: Path) -> _Map:
    with open_map(map_path) as place_map:
        parts = place_map.bytes_by_part()
        stored = parts["global_descriptors"] + parts["local_descriptors"]
        return _Map(dict(enumerate(map_frames(place_map))), place_map.datum, stored / len(place_map))


def _with_truth(
    answers: Sequence[RecordedAnswer], source: BagSource, *, has_images: bool
) -> tuple[list[RecordedAnswer], list[Frame]]:
    """Answers whose true pose is known, and their queries."""
    images = {frame.stamp_ns: frame.load for frame in source.frames(reread=True)} if has_images else {}
    judged, queries = [], []
    last: TrajectoryError | None = None
    for answer in answers:
        try:
            where = source.location(answer.stamp_ns)
        except TrajectoryError as error:
            last = error
            continue
        name = stamp_name(answer.stamp_ns)
        load = images.get(answer.stamp_ns, partial(_no_image, name))
        judged.append(answer)
        queries.append(Frame(name, source.session, answer.stamp_ns, where.pose, where.geo, load))
    if not judged:
        raise EvaluationError(
            f"bag {source.path}: no answer has a pose of {source.pose_topic} at its stamp ({last}); do the image "
            "stamps and the pose topic use one clock (use_sim_time)? Else raise --max-gap-s"
        )
    return judged, queries


def _answered_places(answers: Sequence[RecordedAnswer]) -> dict[int, Frame]:
    """Every place that is among the candidates, by its number in the map."""
    seen: dict[int, Frame] = {}
    for answer in answers:
        for candidate in answer.candidates:
            name = f"{candidate.session}/place {candidate.place_id}"
            if candidate.pose is None:
                raise EvaluationError(
                    f"the answer at {stamp_name(answer.stamp_ns)} s names {name}, which has no pose to judge it by; "
                    "build the map with poses, or name a geo-referenced one with --map"
                )
            seen.setdefault(
                candidate.place_id,
                Frame(name, candidate.session, None, candidate.pose, None, partial(_no_image, name)),
            )
    return dict(sorted(seen.items()))


def _require_same_map(answers: Sequence[RecordedAnswer], places: Mapping[int, Frame], map_path: Path) -> None:
    for answer in answers:
        for candidate in answer.candidates:
            pose = places[candidate.place_id].pose if candidate.place_id in places else None
            moved = pose and candidate.pose and pose.distance_m(candidate.pose) > _SAME_POSE_M
            if pose is None or moved:
                raise EvaluationError(
                    f"the answer at {stamp_name(answer.stamp_ns)} s names place {candidate.place_id} of the map "
                    f"{answer.map_name!r}, which {map_path} ({len(places)} places) does not have there; name the map "
                    "that the node used"
                )


def _no_image(name: str) -> NoReturn:
    raise ImageError(f"the recording holds no image of {name}")
