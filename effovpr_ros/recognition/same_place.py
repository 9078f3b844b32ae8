"""Which map entries show one place, so that they support each other rather than compete."""

from __future__ import annotations

from collections.abc import Sequence

from effovpr_ros.core.geodesy import ground_distance_m
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


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


def best_rival(candidates: Sequence[Candidate], config: RecognizerConfig) -> Candidate | None:
    """First candidate in rank order that is at another place than the first; None if there is none."""
    for candidate in candidates[1:]:
        if not is_same_place(candidates[0].place, candidate.place, config):
            return candidate
    return None
