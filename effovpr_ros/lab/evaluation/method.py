"""What is evaluated: anything that answers queries with places of a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import PurePath
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.features.image_features import Features
from effovpr_ros.lab.evaluation.rig_queries import CameraFrame
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Place
from effovpr_ros.recognition.recognizer import Latency, PlaceRecognizer, Recognition, Status
from effovpr_ros.recognition.rig_query import fuse
from effovpr_ros.recognition.temporal import SequenceFilter
from effovpr_ros.sources.frame import Frame


@dataclass(frozen=True)
class Query:
    """One image that is asked about.

    Attributes:
        frame: the image, read when a method needs its pixels; of several cameras the first one's.
        features: of the map's model.
        extract_ms: time that they took, of all cameras, decoding left out.
        allowed: numbers of the places that it may be answered with; None for all.
        rig: images of the moment and their features, where several cameras ask.
    """

    frame: Frame
    features: Features
    extract_ms: float
    allowed: range | None = None
    rig: tuple[tuple[CameraFrame, Features], ...] = ()

    def picture(self, number: int) -> Query:
        """The query of one camera alone, by its number in `rig`; the query itself where one camera asks."""
        if not self.rig:
            return self
        item, features = self.rig[number]
        return replace(self, frame=item.frame, features=features, rig=())

    def admits(self, place: Place) -> bool:
        """Whether a place may be the answer."""
        return self.allowed is None or place.place_id in self.allowed


@dataclass(frozen=True)
class Answer:
    """What a method says of one query.

    Attributes:
        ranked: numbers of places, best first; may be empty.
        confidence: what precision and recall run over, in [0, 1] where `calibrated`.
        status: None where the method never refuses.
        latency_ms: by stage, with the extraction of features that the method needs.
        recognition: of EffoVPR, for pictures; None for other methods.
        picture: number of the camera, in the query's `rig`, whose candidates are ranked.
    """

    ranked: Sequence[int]
    confidence: float
    status: Status | None
    latency_ms: Latency
    recognition: Recognition | None = None
    picture: int = 0


class Method(Protocol):
    """Answers queries one after the other, in the order of the data set.

    Attributes:
        bytes_per_place: stored descriptors.
        calibrated: whether the confidence is a probability.
    """

    @property
    def bytes_per_place(self) -> float:
        """Bytes of stored descriptors."""

    @property
    def calibrated(self) -> bool:
        """Whether the confidence is a probability."""

    def answer(self, query: Query) -> Answer:
        """Answer one query; ranked is empty where it is allowed no place."""


@runtime_checkable
class MatchesPatches(Protocol):
    """A method that can show which patches of a query and a place it takes for the same."""

    def matched_cells(self, query: Query, place_id: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(P, 2) query cells and (P, 2) place cells as (column, row), best match first."""


class EffoVPRMethod:
    """The pipeline of this package, as the node runs it.

    Where the sequence is on, the queries of one session and folder, in their order, are one stream.
    """

    def __init__(self, place_map: MapReader, recognizer: PlaceRecognizer) -> None:
        """Join a map and its recogniser."""
        self._recognizer = recognizer
        self._sequence = SequenceFilter(recognizer)
        self._stream: tuple[str, PurePath] | None = None
        parts = place_map.bytes_by_part()
        stored = parts["global_descriptors"] + (parts["local_descriptors"] if recognizer.config.rerank else 0)
        stored += parts.get("points", 0) if recognizer.config.verify != "off" else 0
        self.bytes_per_place = stored / len(place_map)
        # The belief of a sequence is not fitted to anything.
        self.calibrated = recognizer.calibrated and recognizer.config.sequence_length == 0

    def answer(self, query: Query) -> Answer:
        """See `Method`."""
        number, found = self._asked(query)
        stream = (query.frame.session, PurePath(query.frame.name).parent)
        if stream != self._stream:
            self._sequence.reset()
            self._stream = stream
        found = self._sequence.update(found, stamp_ns=query.frame.stamp_ns)
        latency = replace(found.latency_ms, extract=query.extract_ms, total=found.latency_ms.total + query.extract_ms)
        ranked = [candidate.place.place_id for candidate in found.candidates]
        return Answer(ranked, found.confidence, found.status, latency, found, number)

    def _asked(self, query: Query) -> tuple[int, Recognition]:
        """The answer to a query, and the number of the camera whose candidates it has."""
        within = None if query.allowed is None else query.admits
        extractor = self._recognizer.third_stage.extractor
        pictures = query.rig or ((CameraFrame("", query.frame, None), query.features),)
        answers = [
            self._recognizer.recognize_features(
                features,
                points=lambda item=item: extractor.extract(item.frame.load()),  # type: ignore[misc]
                within=within,
                camera=item.camera,
                measures=len(pictures) == 1,
            )
            for item, features in pictures
        ]
        if len(answers) == 1:
            return 0, answers[0]
        fused = fuse(self._recognizer, answers, [item.name for item, _ in pictures])
        stages = [answer.latency_ms for answer in answers]
        latency = Latency(
            **{stage.name: sum(getattr(item, stage.name) for item in stages) for stage in fields(Latency)}
        )
        return fused.number, replace(fused.recognition, latency_ms=latency)

    def matched_cells(self, query: Query, place_id: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """See `MatchesPatches`; of several cameras ask with `Query.picture`."""
        return self._recognizer.matched_cells(query.features, place_id)
