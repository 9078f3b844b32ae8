"""WGS84 to a local east-north-up frame and back, and UTM as image names carry it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray

from effovpr_ros.core.errors import GeodesyError
from effovpr_ros.core.poses import GeoPoint

_UTM_LETTERS = "CDEFGHJKLMNPQRSTUVWX"


@dataclass(frozen=True)
class Datum:
    """Origin of a local tangent plane: x east, y north, z up (REP-103, REP-105 `map`)."""

    origin: GeoPoint

    @cached_property
    def _topocentric(self) -> pyproj.Transformer:
        return pyproj.Transformer.from_pipeline(
            "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84 "
            f"+step +proj=topocentric +ellps=WGS84 +lon_0={self.origin.longitude_deg!r} "
            f"+lat_0={self.origin.latitude_deg!r} +h_0={self.origin.altitude_m!r}"
        )

    def to_enu(self, geo: GeoPoint) -> tuple[float, float, float]:
        """Metres east, north and up of the origin."""
        east, north, up = self._topocentric.transform(geo.longitude_deg, geo.latitude_deg, geo.altitude_m)
        return float(east), float(north), float(up)

    def to_enu_many(self, geo_deg_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `to_enu`, of many points.

        Args:
            geo_deg_m: (N, 3) latitude and longitude in degrees, altitude in metres.

        Returns:
            (N, 3) metres east, north and up of the origin.
        """
        latitude, longitude, altitude = geo_deg_m.T
        return np.stack(self._topocentric.transform(longitude, latitude, altitude), axis=1)

    def to_geo(self, position_xyz: tuple[float, float, float]) -> GeoPoint:
        """Inverse of `to_enu`.

        Raises:
            GeodesyError: a coordinate is not finite.
        """
        if not all(math.isfinite(value) for value in position_xyz):
            raise GeodesyError(f"position {position_xyz} is not finite")
        longitude, latitude, height = self._topocentric.transform(*position_xyz, direction="INVERSE")
        return GeoPoint(float(latitude), float(longitude), float(height))


def utm_to_geo(east_m: float, north_m: float, zone: int, letter: str) -> GeoPoint:
    """A UTM coordinate as `@utm_east@utm_north@zone@letter@` image names give it.

    Args:
        east_m: easting.
        north_m: northing.
        zone: 1 to 60.
        letter: latitude band, C to X without I and O.

    Raises:
        GeodesyError: no such zone or band, or coordinates that lie nowhere.
    """
    band = letter.upper()
    if not 1 <= zone <= 60 or len(band) != 1 or band not in _UTM_LETTERS:
        raise GeodesyError(f"UTM zone {zone}{letter} does not exist; zones are 1 to 60, bands C to X without I and O")
    if not (math.isfinite(east_m) and math.isfinite(north_m)):
        raise GeodesyError(f"UTM coordinate ({east_m}, {north_m}) is not finite")
    longitude, latitude = _utm_transformer(zone, band >= "N").transform(east_m, north_m)
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise GeodesyError(
            f"UTM coordinate ({east_m}, {north_m}) lies outside zone {zone}{letter}; are easting and northing swapped?"
        )
    return GeoPoint(float(latitude), float(longitude))


@lru_cache(maxsize=8)
def _utm_transformer(zone: int, north: bool) -> pyproj.Transformer:
    code = (32600 if north else 32700) + zone
    return pyproj.Transformer.from_crs(f"EPSG:{code}", "EPSG:4326", always_xy=True)
