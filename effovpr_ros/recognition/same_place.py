"""Which map entries show one place, so that they support each other rather than compete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from effovpr_ros.core.geodesy import ground_distance_m
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

# Points of places near the best one agree with the query's too; rivals by points are twice as far away.
_APART = 2.0
# Pictures a few places apart along a street share their scene: so many spacings, and at most so many metres.
_SPACINGS, _SPACINGS_OF_POINTS = 2.0, 3.0
_MOST_APART_M, _MOST_APART_OF_POINTS_M = 25.0, 40.0


def distance_between_m(a: Place, b: Place) -> float | None:
    """Metres between two places: by poses of one frame, else geo-tags (horizontal), else None.

    By poses in three dimensions, horizontally where a height is unknown. Height is left out of geo-tags because many
    have none and GNSS heights are poor.
    """
    if a.pose is not None and b.pose is not None and a.own_frame == b.own_frame:
        return a.pose.distance_m(b.pose)
    if a.geo is not None and b.geo is not None:
        return ground_distance_m(a.geo, b.geo)
    return None


def is_same_place(a: Place, b: Place, config: RecognizerConfig) -> bool:
    """Whether two map entries show one place, so that they support each other rather than compete.

    Within `same_place_radius_m` where positions are known; else in one session at most `same_place_ids`
    apart.
    """
    distance_m = distance_between_m(a, b)
    if distance_m is not None:
        return distance_m <= config.same_place_radius_m
    return a.session == b.session and abs(a.place_id - b.place_id) <= config.same_place_ids


def apart_by_score(config: RecognizerConfig, spacing_m: float | None) -> RecognizerConfig:
    """What counts as one place where scores are compared: as configured, at least two spacings of the map's places."""
    most_m = 0.0 if spacing_m is None else min(_SPACINGS * spacing_m, _MOST_APART_M)
    return replace(config, same_place_radius_m=max(config.same_place_radius_m, most_m))


def apart_by_points(config: RecognizerConfig, spacing_m: float | None) -> RecognizerConfig:
    """What counts as one place where points are compared, which see places behind the next one too."""
    most_m = 0.0 if spacing_m is None else min(_SPACINGS_OF_POINTS * spacing_m, _MOST_APART_OF_POINTS_M)
    radius_m = min(max(_APART * config.same_place_radius_m, most_m), 10000.0)
    return replace(
        config, same_place_radius_m=radius_m, same_place_ids=min(round(_APART * config.same_place_ids), 100000)
    )


def best_rival(candidates: Sequence[Candidate], config: RecognizerConfig) -> Candidate | None:
    """First candidate in rank order that is at another place than the first; None if there is none."""
    for candidate in candidates[1:]:
        if not is_same_place(candidates[0].place, candidate.place, config):
            return candidate
    return None
