"""Fits the confidence of a map: it is asked about its own places, so that the answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.lab.evaluation.appearance import change_appearance
from effovpr_ros.lab.evaluation.confidence_regression import Trial, fit_confidence_model
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Place
from effovpr_ros.recognition.confidence import (
    ConfidenceModel,
    choose_confidence_model,
    setting_name,
)
from effovpr_ros.recognition.evidence import evidence_for
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.same_place import distance_between_m

_FOLDS = 5
_LEAST_STRENGTH = 0.3


@dataclass(frozen=True)
class ConfidenceFitConfig:
    """How a map is asked about itself.

    Attributes:
        precision: wanted of what is accepted as a MATCH.
        radius_m: an answer is right if it is at most this far away.
        same_place_ids: likewise, places of one session at most so many ids apart, where positions are unknown.
        max_queries: places that are asked about, spread over the map.
        strength: of the strongest imitated change of appearance, see `change_appearance`; the weakest has 0.3 of it.
        seed: of the change.
    """

    precision: float = 0.99
    radius_m: float = 5.0
    same_place_ids: int = 3
    max_queries: int = 300
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 0.5 <= self.precision <= 1.0:
            raise EvaluationError(f"precision {self.precision} is outside [0.5, 1]")
        if not self.radius_m > 0.0 or self.max_queries < 2:
            raise EvaluationError(f"radius {self.radius_m} m and {self.max_queries} queries must be positive")


def num_queries(place_map: MapReader, config: ConfidenceFitConfig) -> int:
    """How many places `self_trials` asks about."""
    return len(_chosen(place_map.places(), config))


def self_trials(
    place_map: MapReader,
    extractor: FeatureExtractor,
    recognizer: PlaceRecognizer,
    config: ConfidenceFitConfig,
    progress: Callable[[int], object],
) -> list[Trial]:
    """Ask a map about its own places, each twice: once with the place in the map, once without.

    Places of a map with several sessions are looked up among the other sessions. With one session, the place's
    picture is changed (`change_appearance`), some more and some less, and looked up among all places. For the second
    question all places within twice the radius are hidden, so that every answer is wrong.

    Raises:
        EvaluationError: fewer than ten places, or several sessions or frames without positions in one frame.
    """
    places = place_map.places()
    if len(places) < 2 * _FOLDS:
        raise EvaluationError(
            f"map {place_map.path} has {len(places)} places; a confidence model needs {2 * _FOLDS} at least"
        )
    chosen = _chosen(places, config)
    several = len(place_map.sessions) > 1
    several_frames = len({place.own_frame for place in places}) > 1
    if (several or several_frames) and not all(place.map_pose or place.geo for place in places):
        raise EvaluationError(
            f"map {place_map.path} has several sessions or frames but places without position in its frame, so that "
            "nobody knows which of them are the same; build it with poses or geo-tags"
        )
    trials = []
    for number, place in enumerate(chosen):
        image = _picture(place_map, place, config)
        features = extractor.extract([image])[0]
        points = partial(recognizer.third_stage.extractor.extract, image)
        group = number * _FOLDS // len(chosen)
        for hides_place in (False, True):
            hidden = _Hidden(place, several, 2.0 if hides_place else 0.0, config)
            is_right = partial(_near, place, radii=1.0, config=config)
            trials += ask(recognizer, features, hidden.admits, is_right, group, points)
        progress(1)
    return trials


def ask(
    recognizer: PlaceRecognizer,
    features: Features,
    admits: Callable[[Place], bool],
    is_right: Callable[[Place], bool],
    group: int,
    points: Callable[[], Points] | None = None,
) -> list[Trial]:
    """One query.

    Args:
        recognizer: that is asked.
        features: of the query.
        admits: places that may be the answer.
        is_right: places that are the right one.
        group: see `Trial`.
        points: of the query's picture; None: nothing is verified.

    Returns:
        The trial; none where there was no candidate.
    """
    answer = recognizer.recognize_features(features, points=points, within=admits)
    if not answer.candidates:
        return []
    evidence = evidence_for(answer.candidates, len(features.local), recognizer.config, recognizer.null)
    return [Trial(evidence, is_right(answer.candidates[0].place), group)]


def _chosen(places: Sequence[Place], config: ConfidenceFitConfig) -> Sequence[Place]:
    """Places spread evenly over the map."""
    return places[:: -(-len(places) // config.max_queries) or 1]


@dataclass(frozen=True)
class _Hidden:
    """What a question about a place must not be answered with: its session if there are others, all within radii."""

    place: Place
    several_sessions: bool
    radii: float
    config: ConfidenceFitConfig

    def admits(self, other: Place) -> bool:
        """Whether a place may be the answer."""
        if self.several_sessions and other.session == self.place.session:
            return False
        return not (self.radii and _near(self.place, other, self.radii, self.config))


def _near(place: Place, other: Place, radii: float, config: ConfidenceFitConfig) -> bool:
    distance_m = distance_between_m(place, other)
    if distance_m is not None:
        return distance_m <= radii * config.radius_m
    ids_apart = abs(place.place_id - other.place_id)
    return place.session == other.session and ids_apart <= radii * config.same_place_ids


def _picture(place_map: MapReader, place: Place, config: ConfidenceFitConfig) -> RgbImage:
    image = decode_image(place_map.thumbnail(place.place_id), f"thumbnail of place {place.place_id}")
    if len(place_map.sessions) == 1:
        rng = np.random.default_rng((config.seed, place.place_id))
        image = change_appearance(image, config.strength * rng.uniform(_LEAST_STRENGTH, 1.0), rng)
    return image


def fit_confidence(
    place_map: MapReader,
    extractor: FeatureExtractor,
    recognizer: PlaceRecognizer,
    config: ConfidenceFitConfig,
    progress: Callable[[int], object],
) -> ConfidenceModel:
    """Fit the confidence of a map for one setting of recognition; see `self_trials` and `fit_confidence_model`."""
    trials = self_trials(place_map, extractor, recognizer, config, progress)
    several = len(place_map.sessions) > 1
    how = f"{len(place_map.sessions)} sessions against each other" if several else "one session, changed in appearance"
    name = setting_name(place_map.fingerprint, recognizer.config)
    # Imitated changes are easier than real ones, so that alone they would make the confidence too low.
    prior = None if several else choose_confidence_model((), place_map.fingerprint, recognizer.config)[0]
    return fit_confidence_model(trials, name, f"map {place_map.name}: {how}", config.precision, prior=prior)
