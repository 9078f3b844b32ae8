"""WGS84 to a local east-north-up frame and back, and UTM as image names carry it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray

from effovpr_ros.core.errors import GeodesyError
from effovpr_ros.core.poses import GeoPoint

_UTM_LETTERS = "CDEFGHJKLMNPQRSTUVWX"
_WGS84 = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Datum:
    """Origin of a local tangent plane: x east, y north, z up (REP-103, REP-105 `map`).

    Where the altitude of the origin is unknown, so is the height of everything above it; the plane then lies on the
    ellipsoid. A point of unknown altitude is placed horizontally as if it were as high as the origin, which moves it
    by 0.016 % of its distance a kilometre of error.
    """

    origin: GeoPoint

    @cached_property
    def _topocentric(self) -> pyproj.Transformer:
        return pyproj.Transformer.from_pipeline(
            "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84 "
            f"+step +proj=topocentric +ellps=WGS84 +lon_0={self.origin.longitude_deg!r} "
            f"+lat_0={self.origin.latitude_deg!r} +h_0={self._plane_altitude_m!r}"
        )

    @property
    def _plane_altitude_m(self) -> float:
        return self.origin.altitude_m if self.origin.altitude_m is not None else 0.0

    def to_enu(self, geo: GeoPoint) -> tuple[float, float, float | None]:
        """Metres east, north and up of the origin; up is None where an altitude is unknown."""
        known = geo.altitude_m is not None and self.origin.altitude_m is not None
        altitude_m = geo.altitude_m if known else self._plane_altitude_m
        east, north, up = self._topocentric.transform(geo.longitude_deg, geo.latitude_deg, altitude_m)
        return float(east), float(north), float(up) if known else None

    def to_enu_many(self, geo_deg_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `to_enu`, of many points.

        Args:
            geo_deg_m: (N, 3) latitude and longitude in degrees, altitude in metres, NaN where it is unknown.

        Returns:
            (N, 3) metres east, north and up of the origin; up is NaN where an altitude is unknown.
        """
        latitude, longitude, altitude = geo_deg_m.T
        known = ~np.isnan(altitude) & (self.origin.altitude_m is not None)
        heights = np.where(known, altitude, self._plane_altitude_m)
        enu = np.stack(self._topocentric.transform(longitude, latitude, heights), axis=1)
        enu[~known, 2] = np.nan
        return enu

    def to_geo(self, position_xyz: tuple[float, float, float | None]) -> GeoPoint:
        """Inverse of `to_enu`.

        Raises:
            GeodesyError: a coordinate is not finite.
        """
        x, y, z = position_xyz
        if not all(math.isfinite(value) for value in (x, y, z or 0.0)):
            raise GeodesyError(f"position {position_xyz} is not finite")
        longitude, latitude, height = self._topocentric.transform(x, y, z or 0.0, direction="INVERSE")
        known = z is not None and self.origin.altitude_m is not None
        return GeoPoint(float(latitude), float(longitude), float(height) if known else None)


def origin_of(points: Sequence[GeoPoint]) -> GeoPoint:
    """Origin of a frame for points: the first of them, as high as the first whose altitude is known.

    Args:
        points: at least one.
    """
    altitude_m = next((point.altitude_m for point in points if point.altitude_m is not None), None)
    return replace(points[0], altitude_m=altitude_m)


def ground_distance_m(a: GeoPoint, b: GeoPoint) -> float:
    """Metres along the ellipsoid; heights are left out, because many are unknown and GNSS gives poor ones."""
    return float(_WGS84.inv(a.longitude_deg, a.latitude_deg, b.longitude_deg, b.latitude_deg)[2])


def ground_xyz(latitudes_deg: NDArray[np.float64], longitudes_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the ellipsoid is below points, so that many are compared at once: chords are as long as short ways.

    Args:
        latitudes_deg: (N,), NaN where unknown.
        longitudes_deg: (N,), NaN where unknown.

    Returns:
        (N, 3) earth-centred metres; NaN where unknown.
    """
    xyz = np.stack(_geocentric().transform(longitudes_deg, latitudes_deg, np.zeros(len(latitudes_deg))), axis=1)
    return np.where(np.isfinite(xyz), xyz, np.nan)


@lru_cache(maxsize=1)
def _geocentric() -> pyproj.Transformer:
    return pyproj.Transformer.from_pipeline(
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84"
    )


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
