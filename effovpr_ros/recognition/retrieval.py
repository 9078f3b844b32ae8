"""First stage over several sessions: a place that many sessions saw takes no more candidates than one that one saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.geodesy import ground_xyz
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.image_features import Features
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

# How much more is asked of the index each time that too few candidates are left, up to so many times `top_k`.
_MORE = 4
_MOST = 64


def retrieve(
    place_map: MapReader,
    features: Features,
    config: RecognizerConfig,
    *,
    within: Callable[[Place], bool] | NDArray[np.int64] | None = None,
    before: int | None = None,
) -> list[Candidate]:
    """The places most similar by global descriptor, of one session at each place.

    Without that, places that ten sessions saw would fill `top_k` by themselves: nothing would be left to compare
    them with, and the confidence, which rests on the candidates elsewhere, would fall.

    Args:
        place_map: that is searched.
        features: of the query.
        config: `top_k`, and what counts as one place.
        within: only places that it admits, or these rows of the map.
        before: only places with a smaller number.

    Returns:
        At most `top_k`, highest similarity first.
    """
    wanted = config.top_k
    while True:
        found = place_map.search(features.global_descriptor, wanted, within=within, before=before)
        kept = one_session_a_place(found, config)[: config.top_k]
        if len(kept) == config.top_k or len(found) < wanted or wanted >= _MOST * config.top_k:
            return kept
        wanted *= _MORE


def one_session_a_place(candidates: Sequence[Candidate], config: RecognizerConfig) -> list[Candidate]:
    """Leave out candidates within `same_place_radius_m` of a more similar one of another session.

    So the session that looks most like the query speaks for a place, whatever the order and the size of sessions.
    Sessions whose places cannot be compared all stay.

    Args:
        candidates: highest similarity first.
        config: what counts as one place.
    """
    places = [candidate.place for candidate in candidates]
    session = _numbered([place.session for place in places])
    if not session.any():
        return list(candidates)
    frame = _numbered([place.own_frame for place in places])
    by_pose = np.array([_pose_xyz(place.pose) for place in places])
    latitudes_deg, longitudes_deg = np.array(
        [(place.geo.latitude_deg, place.geo.longitude_deg) if place.geo else (np.nan, np.nan) for place in places]
    ).T
    by_geo = ground_xyz(latitudes_deg, longitudes_deg)
    posed = ~np.isnan(by_pose[:, 0])
    kept = np.ones(len(places), bool)
    for number in range(len(places)):
        if kept[number]:
            comparable = posed & posed[number] & (frame == frame[number])
            offset = np.where(comparable[:, None], by_pose - by_pose[number], by_geo - by_geo[number])
            # Where a height is unknown, poses are compared horizontally.
            offset[comparable, 2] = np.nan_to_num(offset[comparable, 2], nan=0.0)
            # Comparisons with NaN, which stands for unknown, are false.
            near = np.einsum("nd,nd->n", offset, offset) <= config.same_place_radius_m**2
            near[: number + 1] = False
            kept &= ~(near & (session != session[number]))
    return [candidate for candidate, stays in zip(candidates, kept, strict=True) if stays]


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Names as numbers in order of appearance, from 0."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _pose_xyz(pose: Pose | None) -> tuple[float, float, float]:
    """Metres, NaN where unknown, as a height alone may be."""
    if pose is None:
        return (math.nan, math.nan, math.nan)
    x, y, z = pose.position_xyz
    return (x, y, math.nan if z is None else z)
