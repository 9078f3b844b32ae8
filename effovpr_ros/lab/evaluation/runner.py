"""Runs over a data set: features once, then each method on one map."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer, Method, Query
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import describe_points

_BATCH = 8
_THUMBNAIL_SIDE = 640


@dataclass(frozen=True)
class MethodResult:
    """What a method reached.

    Attributes:
        answers: one a query.
        bytes_per_place: of stored descriptors; None where the map is not known.
        calibrated: whether confidences are probabilities.
    """

    answers: Sequence[Answer]
    bytes_per_place: float | None
    calibrated: bool

    @property
    def refuses(self) -> bool:
        """Whether the method can refuse an answer, so that its MATCHes mean something."""
        return any(answer.status is not None for answer in self.answers)


@dataclass(frozen=True)
class Run:
    """What was evaluated and what came of it.

    Attributes:
        dataset: with the ground truth.
        results: by the name of the method.
        command: as typed.
        queries: as they were asked; none where answers were recorded.
        methods: by name, still able to match patches; none where answers were recorded.
        settings: of the methods that have some, by name.
        fingerprint: of the model; None where it is not known.
    """

    dataset: Dataset
    results: Mapping[str, MethodResult]
    command: str
    queries: Sequence[Query] = ()
    methods: Mapping[str, Method] = field(default_factory=dict)
    settings: Mapping[str, RecognizerConfig] = field(default_factory=dict)
    fingerprint: ModelFingerprint | None = None


def extract_queries(
    dataset: Dataset, extractor: FeatureExtractor, progress: Callable[[int], object]
) -> tuple[Query, ...]:
    """Features of every query, one image a forward pass, as a robot asks; of several cameras all of a moment at once.

    Raises:
        ImageError: an image cannot be read.
    """
    queries = []
    moments = dataset.moments or [()] * len(dataset.queries)
    for frame, among, moment in zip(dataset.queries, dataset.limits, moments, strict=True):
        images = [item.frame.load() for item in moment] or [frame.load()]
        started = time.perf_counter()
        features = extractor.extract(images)
        extract_ms = (time.perf_counter() - started) * 1e3
        rig = tuple(zip(moment, features, strict=True)) if moment else ()
        queries.append(Query(frame, features[0], extract_ms, among, rig))
        progress(1)
    return tuple(queries)


@contextmanager
def database_map(
    dataset: Dataset,
    queries: Sequence[Query],
    extractor: FeatureExtractor,
    progress: Callable[[int], object],
    *,
    known: Sequence[Features] | None = None,
    with_points: bool = False,
) -> Iterator[MapReader]:
    """The map that is evaluated, open.

    It is the data set's own, opened read-only, or one made of the database images in a scratch folder, as the node
    would open it. Where the database is the queries themselves, their features are used.

    Args:
        dataset: its database.
        queries: its queries with features of the extractor.
        extractor: of the map's features.
        progress: called with the number of images done.
        known: features of the extractor of every database image, if they are there already.
        with_points: the map that is made keeps points as `map build` has it.

    Raises:
        ImageError: an image cannot be read.
        MapError: the data set's map cannot be opened.
        WeightsError: points are wanted, and the weights of their network cannot be used.
        ModelMismatchError: it was made by another model.
    """
    if dataset.map_path is not None:
        with open_map(dataset.map_path) as place_map:
            place_map.require_model(extractor.fingerprint)
            progress(len(place_map))
            yield place_map
        return
    with (
        tempfile.TemporaryDirectory(prefix="effovpr_evaluate_") as folder,
        PlaceMap.create(Path(folder) / "map", fingerprint=extractor.fingerprint) as place_map,
    ):
        points_of = describe_points(str(extractor.device)) if with_points else None
        for start in range(0, len(dataset.database), _BATCH):
            frames = dataset.database[start : start + _BATCH]
            images = [frame.load() for frame in frames]
            if known is not None:
                features = list(known[start : start + _BATCH])
            elif dataset.database is dataset.queries:
                features = [query.features for query in queries[start : start + _BATCH]]
            else:
                features = extractor.extract(images)
            places = []
            for offset, (frame, image, feature) in enumerate(zip(frames, images, features, strict=True)):
                size_wh = (image.shape[1], image.shape[0])
                thumbnail = make_thumbnail(image, _THUMBNAIL_SIDE)
                # Numbers before the names tell images of one name in two sub-folders apart.
                name = f"{start + offset}/{frame.name}"
                points = points_of(image) if points_of is not None else None
                where = (frame.pose, frame.geo, size_wh)
                places.append(NewPlace(frame.session, frame.stamp_ns, name, *where, thumbnail, feature, points))
            place_map.add(places)
            progress(len(frames))
        place_map.flush()
        yield place_map


def run_methods(
    queries: Sequence[Query], methods: Mapping[str, Method], progress: Callable[[int], object]
) -> dict[str, MethodResult]:
    """Answer every query by every method."""
    results = {}
    for name, method in methods.items():
        answers = []
        for query in queries:
            answers.append(method.answer(query))
            progress(1)
        results[name] = MethodResult(answers, method.bytes_per_place, method.calibrated)
    return results
