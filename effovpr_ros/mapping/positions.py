"""Horizontal positions of all places of a map as one array, for hints: a million are compared in milliseconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.place_table import PlaceTable
from effovpr_ros.mapping.store import PlaceStore


class PlacePositions:
    """Where the places of a map are, horizontally in its frame; read when it is first asked for."""

    def __init__(self, store: PlaceStore) -> None:
        """Read nothing yet.

        Args:
            store: of the map.
        """
        self._store = store
        self._known: tuple[tuple[int, int, Datum | None], NDArray[np.float64]] | None = None

    def rows_near(
        self, centre_xy: tuple[float, float], radius_m: float, table: PlaceTable, datum: Datum | None
    ) -> NDArray[np.int64]:
        """Rows of the places within a radius, ascending; a place of unknown position is nowhere near.

        Args:
            centre_xy: metres.
            radius_m: horizontal.
            table: of the map.
            datum: of the map; without it geo-tags say nothing.
        """
        east, north = (axis - centre for axis, centre in zip(self._xy(table, datum).T, centre_xy, strict=True))
        # Squares of what a hint may hold would overflow.
        return np.flatnonzero(np.hypot(east, north) <= radius_m)

    def extent_xy(self, table: PlaceTable, datum: Datum | None) -> tuple[float, float, float, float] | None:
        """Least x and y and greatest x and y of the places in metres; None where no position is known."""
        known = self._xy(table, datum)
        known = known[~np.isnan(known[:, 0])]
        if not len(known):
            return None
        (min_x, min_y), (max_x, max_y) = known.min(axis=0).tolist(), known.max(axis=0).tolist()
        return min_x, min_y, max_x, max_y

    def _xy(self, table: PlaceTable, datum: Datum | None) -> NDArray[np.float64]:
        """(N, 2) metres, NaN where unknown."""
        state = (len(table), table.next_id, datum)
        if self._known is None or self._known[0] != state:
            self._known = (state, positions_xy(*self._store.positions(table.numbers), datum))
        return self._known[1]


def positions_xy(
    map_xy: NDArray[np.float64], geo_deg_m: NDArray[np.float64], datum: Datum | None
) -> NDArray[np.float64]:
    """Where places are in the map frame.

    Args:
        map_xy: (N, 2) metres; NaN where a place has no pose in the map frame.
        geo_deg_m: (N, 3) latitude and longitude in degrees, altitude in metres; NaN where there is no geo-tag.
        datum: of the map; without it geo-tags say nothing.

    Returns:
        (N, 2) metres by pose, else by geo-tag; NaN where neither is known.
    """
    xy = map_xy.copy()
    tagged = np.isnan(xy[:, 0]) & ~np.isnan(geo_deg_m[:, 0])
    if datum is not None and tagged.any():
        xy[tagged] = datum.to_enu_many(geo_deg_m[tagged])[:, :2]
    return xy


def geo_of(place: Place, datum: Datum | None) -> GeoPoint | None:
    """A place's geo-tag; in a geo-referenced map it follows from the pose where there is none."""
    if place.geo is None and place.map_pose is not None and datum is not None:
        return datum.to_geo(place.map_pose.position_xyz)
    return place.geo
