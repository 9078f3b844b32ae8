"""What wrong answers of a map reach: it is asked about its own places while they and those around them are hidden.

Maps differ in how alike their places are, which is known once they are built; without it, a lead that is clear proof in
one building is nothing special on the look-alike floors of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
from scipy.spatial import KDTree

from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Place
from effovpr_ros.recognition.confidence import read_map_null, setting_name, store_map_null
from effovpr_ros.recognition.evidence import USUAL_LEADS, MapNull, NullLeads, evidence_for
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import apart_by_points, distance_between_m, is_same_place

PLACES_ASKED = 120
_FEWEST_PLACES = 10
_PAIRS = 100
_FEWEST_PAIRS = 18
# Of places without an order half look more like the next one than the usual other one does.
_SHARE_IN_ORDER = 0.7
_QUANTILE = 0.98
# So many places that were asked about count as much as the usual leads.
_USUAL_PLACES = 10.0
# A map whose places were visited twice without positions answers itself rightly; no honest null goes beyond these.
_GREATEST_LEADS = NullLeads(1.2, 0.6, 2.4, 1.6)


def measure_map_null(extractor: FeatureExtractor, place_map: MapReader, config: RecognizerConfig) -> MapNull | None:
    """Ask a map about at most 120 of its places, each while it and what is near it are hidden.

    Near is what counts as one place where points are compared (`same_place.apart_by_points`). Where positions are
    unknown, other sessions are hidden too, since nobody knows what they show.

    Args:
        extractor: of the map's model.
        place_map: that is asked.
        config: of the recognition; it re-ranks.

    Returns:
        None for a map of fewer than ten places, or without re-ranking.
    """
    if not config.rerank or len(place_map) < _FEWEST_PLACES:
        return None
    asked = replace(config, verify="off" if config.verify == "off" else "on", verify_budget_ms=0.0)
    setting = setting_name(place_map.fingerprint, config)
    # Leads are measured against the usual ones.
    spacing_m = typical_spacing_m(place_map.places())
    usual = MapNull(setting, USUAL_LEADS, len(place_map), 0, spacing_m=spacing_m)
    recognizer = PlaceRecognizer(extractor, place_map, asked, null=usual)
    apart = apart_by_points(config, spacing_m)
    score_leads: list[tuple[float, ...]] = []
    point_leads: list[tuple[float, ...]] = []
    for place in place_map.places(PLACES_ASKED):
        (local,) = place_map.local_features([place.place_id])
        features = Features(place_map.global_descriptor(place.place_id), local, (1, 1))
        answer = recognizer.recognize_features(
            features,
            points=lambda place=place: recognizer.third_stage.points_of(place),  # type: ignore[misc]
            within=lambda other, place=place: _is_elsewhere(place, other, apart),  # type: ignore[misc]
        )
        if len(answer.candidates) > 1:
            evidence = evidence_for(answer.candidates, len(local), config, usual)
            score_leads.append((evidence.score_over_typical, evidence.score_over_rival))
            if evidence.points is not None:
                point_leads.append(evidence.points.figures)
    if not score_leads:
        return None
    usual_leads, greatest = astuple(USUAL_LEADS), astuple(_GREATEST_LEADS)
    by_score = _exceeded_by_few(score_leads, usual_leads[:2], greatest[:2])
    by_points = _exceeded_by_few(point_leads, usual_leads[2:], greatest[2:]) if point_leads else usual_leads[2:]
    leads = NullLeads(*by_score, *by_points)
    return MapNull(setting, leads, len(place_map), len(score_leads), _is_in_order(place_map), spacing_m)


def typical_spacing_m(places: Sequence[Place]) -> float | None:
    """Median distance from a place to the nearest other one of its session, horizontally.

    Args:
        places: of a map.

    Returns:
        Metres; None where fewer than two places of one session have poses in one frame.
    """
    by_session: dict[str, list[tuple[float, float]]] = {}
    for place in places:
        if place.pose is not None:
            by_session.setdefault(place.session, []).append(place.pose.position_xyz[:2])
    nearest = [KDTree(xy).query(xy, k=2)[0][:, 1] for xy in by_session.values() if len(xy) > 1]
    return float(np.median(np.concatenate(nearest))) if nearest else None


def keep_map_null(extractor: FeatureExtractor, place_map: MapReader, config: RecognizerConfig) -> MapNull | None:
    """Measure what a map's wrong answers reach, and store it; what is stored stays while the map has not changed.

    Raises:
        MapError: opened read-only.
    """
    known = read_map_null(place_map, setting_name(place_map.fingerprint, config))
    if known is not None and known.num_places == len(place_map):
        return known
    measured = measure_map_null(extractor, place_map, config)
    if measured is not None:
        store_map_null(place_map, measured)
    return measured


def _is_in_order(place_map: MapReader) -> bool:
    """Whether places look more like the next one of their session than like others, by global descriptors."""
    places = place_map.places()
    pairs = [(a.place_id, b.place_id) for a, b in pairwise(places) if a.session == b.session]
    chosen = pairs[:: -(-len(pairs) // _PAIRS)] if pairs else []
    if len(chosen) < _FEWEST_PAIRS:
        return True
    here, following = (np.stack([place_map.global_descriptor(pair[side]) for pair in chosen]) for side in (0, 1))
    similarity = here @ following.T
    beside = np.diag(similarity)
    # Pairs of which neither is near the other in order.
    apart = np.abs(np.subtract.outer(np.arange(len(chosen)), np.arange(len(chosen)))) > 1
    return bool((beside > np.median(similarity[apart])).mean() > _SHARE_IN_ORDER)


def _is_elsewhere(place: Place, other: Place, apart: RecognizerConfig) -> bool:
    if distance_between_m(place, other) is None and place.session != other.session:
        return False
    return not is_same_place(place, other, apart)


def _exceeded_by_few(
    leads: Sequence[Sequence[float]], usual: Sequence[float], greatest: Sequence[float]
) -> tuple[float, ...]:
    """Each lead that one of fifty exceeds, drawn to the usual one where few were asked."""
    share = len(leads) / (len(leads) + _USUAL_PLACES)
    reached = share * np.quantile(leads, _QUANTILE, axis=0) + (1.0 - share) * np.array(usual)
    return tuple(np.minimum(reached, greatest).tolist())
