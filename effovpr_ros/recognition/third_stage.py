"""The third stage: points of the query matched with those of the few best candidates, verified, and weighed in."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ImageError, MapError, WeightsError
from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.geometry.point_codec import decode_points, encode_points
from effovpr_ros.geometry.points import WORKING_SIDE, PointExtractor, Points, no_points
from effovpr_ros.geometry.verified_matches import VerifiedMatches, verify
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Candidate, Place, PointCounts
from effovpr_ros.recognition.decision import Decision, Status
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.reordering import reorder
from effovpr_ros.recognition.same_place import is_same_place

_logger = logging.getLogger(__name__)

# Of the candidates that are verified a third is elsewhere than the first, where there are some: they tell what a wrong
# answer gives.
_IN_ORDER = 2 / 3
_CACHED_PLACES = 2000
# Of the size that points are looked for in.
_FINE_SHARE = 0.75
# A MATCH that is as probable is published whatever the points say.
_SURE = 0.98
# So many are verified, however long it takes.
_LEAST = 5


@dataclass(frozen=True, eq=False)
class VerifiedCandidate:
    """A candidate whose points were matched with the query's.

    Attributes:
        place_id: of the candidate.
        points: of it, in pixels of the place's original picture.
        matches: between the two.
    """

    place_id: int
    points: Points
    matches: VerifiedMatches


@dataclass(frozen=True, eq=False)
class Verified:
    """What the third stage found.

    Attributes:
        query: points of the query, in pixels of its picture.
        candidates: that were verified, in the order of the answer.
    """

    query: Points
    candidates: tuple[VerifiedCandidate, ...]

    def of(self, place_id: int) -> VerifiedCandidate | None:
        """Of one place; None where it was not verified."""
        return next((item for item in self.candidates if item.place_id == place_id), None)


def verified_parts(verified: Verified, seen: VerifiedCandidate) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(P, 2) each: where verified points are in the query and in a candidate, as parts of the pictures' sides."""
    agreed = seen.matches.on_homography
    query_xy, place_xy = seen.matches.query_xy[agreed] + 0.5, seen.matches.candidate_xy[agreed] + 0.5
    return (
        np.asarray(query_xy / np.array(verified.query.image_size_wh), np.float64),
        np.asarray(place_xy / np.array(seen.points.image_size_wh), np.float64),
    )


@functools.cache
def point_extractor(device: str) -> PointExtractor:
    """The one that finds points in this process, so that its network is loaded once."""
    return PointExtractor("cuda" if device.startswith("cuda") else "cpu")


def describe_points(device: str) -> Callable[[RgbImage], bytes]:
    """What gives the encoded points of a picture that a map keeps; its network is loaded now.

    Raises:
        WeightsError: the weights of the network cannot be used.
    """
    extractor = point_extractor(device)
    extractor.load()
    return lambda image: encode_points(extractor.extract(image))


class ThirdStage:
    """Verifies candidates of one map; for one thread.

    Attributes:
        extractor: of points.
        is_usable: whether the weights of its network were as they should be, as far as is known.
    """

    def __init__(self, place_map: MapReader, config: RecognizerConfig, device: str = "cpu") -> None:
        """Nothing is loaded before it is needed."""
        self.extractor = point_extractor(device)
        self.is_usable = True
        self._place_map = place_map
        self._config = config
        self._coarse: set[int] = set()
        self._cache: OrderedDict[int, Points] = OrderedDict()

    def load(self) -> bool:
        """Load the network of the points; False, with a word in the log, where its weights cannot be used."""
        if self.is_usable:
            try:
                self.extractor.load()
            except WeightsError as error:
                self.is_usable = False
                _logger.error("candidates are not verified: %s", error)
        return self.is_usable

    def verify(
        self, points_of_query: Callable[[], Points], candidates: Sequence[Candidate], num_keypoints: int
    ) -> tuple[list[Candidate], Verified]:
        """Verify the few best candidates and order all anew.

        Candidates whose points the map keeps cost little; those of others are found in their stored pictures, as long
        as the budget lasts.

        Args:
            points_of_query: asked once.
            candidates: best first.
            num_keypoints: of the query's local features.

        Returns:
            All candidates, best first, those that were verified with their counts; and the matches.
        """
        budget_s = self._config.verify_budget_ms / 1e3 or math.inf
        ends = time.perf_counter() + budget_s
        query = points_of_query()
        chosen = candidates_to_verify(candidates, self._config)
        found = self.matched(query, self._in_time([item.place for item in chosen], ends))
        ranked = reorder(_counted(candidates, found, query), num_keypoints, self._config)
        by_place = {item.place_id: item for item in found}
        in_order = (by_place[item.place.place_id] for item in ranked if item.place.place_id in by_place)
        return ranked, Verified(query, tuple(in_order))

    def _in_time(self, places: Sequence[Place], ends: float) -> Sequence[Place]:
        """The first places, whose points are known or found until a time; at least five."""
        for number, place in enumerate(places):
            if number >= _LEAST and time.perf_counter() > ends:
                return places[:number]
            self.points_of(place)
        return places

    def compare(self, query: Points, place_id: int) -> VerifiedCandidate:
        """One place, whether it is a candidate or not.

        Raises:
            MapError: no such place.
        """
        return self.matched(query, [self._place_map.place(place_id)])[0]

    def matched(self, query: Points, places: Sequence[Place]) -> list[VerifiedCandidate]:
        """Match places with a query."""
        points = [self.points_of(place) for place in places]
        matches = verify(query, points, num_fundamental=0)
        return [
            VerifiedCandidate(place.place_id, item, matched)
            for place, item, matched in zip(places, points, matches, strict=True)
        ]

    def points_of(self, place: Place) -> Points:
        """Points of a place, from memory, the map, or its stored picture."""
        known = self._cache.get(place.place_id)
        if known is None:
            stored = self._stored(place)
            known = self._seen(place) if stored is None else stored
            self._cache[place.place_id] = known
        self._cache.move_to_end(place.place_id)
        if len(self._cache) > _CACHED_PLACES:
            self._cache.popitem(last=False)
        return known

    def is_coarse(self, place_id: int) -> bool:
        """Whether the points of a place that were asked for are from a stored picture that is much too small.

        They show which place it is, but a pixel of such a picture is too wide to measure a pose by.
        """
        return place_id in self._coarse

    def _stored(self, place: Place) -> Points | None:
        """Those that the map keeps, if they are of the kind that the query's are."""
        try:
            (blob,) = self._place_map.points([place.place_id])
            points = None if blob is None else decode_points(blob, place.image_size_wh)
        except MapError as error:
            _logger.warning("map %s: %s; its stored picture is used", self._place_map.path, error)
            return None
        return points if points is not None and points.kind == self.extractor.kind else None

    def _seen(self, place: Place) -> Points:
        """Those of its stored picture; none where it has none."""
        jpeg = self._place_map.thumbnail(place.place_id)
        try:
            image = decode_image(jpeg, f"stored picture of place {place.place_id}")
        except ImageError as error:
            if jpeg:
                _logger.warning("map %s: %s; it is not verified", self._place_map.path, error)
            return no_points(self.extractor.kind, place.image_size_wh)
        if max(image.shape[:2]) < _FINE_SHARE * min(WORKING_SIDE, max(place.image_size_wh)):
            self._coarse.add(place.place_id)
        return self.extractor.extract(image).scaled(place.image_size_wh)


def may_change_the_answer(candidates: Sequence[Candidate], decision: Decision, config: RecognizerConfig) -> bool:
    """Whether verifying can change what is published, as `verify` auto asks.

    Not without a candidate, nor where the top global similarity rules every answer out, nor for a MATCH that is sure.
    """
    if not candidates or max(item.similarity for item in candidates) < config.min_similarity_global:
        return False
    return decision.status is not Status.MATCH or decision.confidence < _SURE


def candidates_to_verify(candidates: Sequence[Candidate], config: RecognizerConfig) -> list[Candidate]:
    """The first two thirds of `verify_top_k` in their order, then such as are elsewhere than the first, then others."""
    wanted = config.verify_top_k
    in_order = math.ceil(wanted * _IN_ORDER)
    first, behind = list(candidates[:in_order]), candidates[in_order:]
    elsewhere: list[Candidate] = []
    others: list[Candidate] = []
    for item in behind:
        if len(first) + len(elsewhere) >= wanted:
            break
        same = is_same_place(candidates[0].place, item.place, config)
        (others if same else elsewhere).append(item)
    return [*first, *elsewhere, *others][:wanted]


def _counted(candidates: Sequence[Candidate], found: Sequence[VerifiedCandidate], query: Points) -> list[Candidate]:
    counts = {
        item.place_id: PointCounts(
            len(item.matches),
            item.matches.num_homography,
            min(len(query), len(item.points)),
        )
        for item in found
    }
    return [replace(item, points=counts.get(item.place.place_id, item.points)) for item in candidates]
