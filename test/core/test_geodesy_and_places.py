"""Coordinates worked by hand or by their definition, and poses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from effovpr_ros.core.errors import GeodesyError, TrajectoryError
from effovpr_ros.core.geodesy import Datum, origin_of, utm_to_geo
from effovpr_ros.core.poses import GeoPoint, Pose

EQUATOR_RADIUS_M, FLATTENING = 6378137.0, 1 / 298.257223563
DATUM = Datum(GeoPoint(50.1, 8.68, 112.0))


def test_enu_on_the_equator_by_the_ellipsoid():
    datum = Datum(GeoPoint(0.0, 0.0, 0.0))
    angle = math.radians(0.01)
    # Along the equator the ellipsoid is a circle.
    east, north, up = datum.to_enu(GeoPoint(0.0, 0.01, 0.0))
    assert east == pytest.approx(EQUATOR_RADIUS_M * math.sin(angle), abs=1e-6)
    assert north == pytest.approx(0.0, abs=1e-6)
    assert up == pytest.approx(EQUATOR_RADIUS_M * (math.cos(angle) - 1.0), abs=1e-6)
    # Towards north its radius of curvature is a (1 - e^2).
    curvature = EQUATOR_RADIUS_M * (1.0 - FLATTENING) ** 2
    assert datum.to_enu(GeoPoint(0.001, 0.0, 0.0))[1] == pytest.approx(curvature * math.radians(0.001), rel=1e-6)


def test_height_is_up_and_there_and_back_is_exact():
    assert DATUM.to_enu(GeoPoint(50.1, 8.68, 122.0)) == pytest.approx((0.0, 0.0, 10.0), abs=1e-6)
    geo = DATUM.to_geo((1234.5, -678.9, 3.0))
    assert DATUM.to_enu(geo) == pytest.approx((1234.5, -678.9, 3.0), abs=1e-6)
    with pytest.raises(GeodesyError, match="not finite"):
        DATUM.to_geo((math.nan, 0.0, 0.0))


def test_an_unknown_altitude_is_an_unknown_height_and_moves_nothing_else():
    east, north, up = DATUM.to_enu(GeoPoint(50.101, 8.69))
    assert up is None
    # As high as the origin: what it would be there.
    assert (east, north) == DATUM.to_enu(GeoPoint(50.101, 8.69, 112.0))[:2]
    assert Datum(GeoPoint(50.1, 8.68)).to_enu(GeoPoint(50.1, 8.68, 520.0))[2] is None
    many = DATUM.to_enu_many(np.array([[50.101, 8.69, math.nan], [50.1, 8.68, 122.0]]))
    np.testing.assert_allclose(many, [[east, north, math.nan], [0.0, 0.0, 10.0]], atol=1e-6)
    assert np.isnan(Datum(GeoPoint(50.1, 8.68)).to_enu_many(np.array([[50.1, 8.68, 122.0]]))[0, 2])
    assert DATUM.to_geo((0.0, 0.0, None)).altitude_m is None
    assert Datum(GeoPoint(50.1, 8.68)).to_geo((0.0, 0.0, 3.0)).altitude_m is None
    assert origin_of([GeoPoint(1.0, 2.0), GeoPoint(3.0, 4.0, 5.0)]) == GeoPoint(1.0, 2.0, 5.0)


def test_utm_on_the_central_meridian():
    # Zone 32 has its meridian at 9 degrees east; on the equator northing 0 is latitude 0.
    geo = utm_to_geo(500000.0, 0.0, 32, "N")
    assert (geo.latitude_deg, geo.longitude_deg) == pytest.approx((0.0, 9.0), abs=1e-9)
    south = utm_to_geo(500000.0, 10000000.0, 32, "M")
    assert (south.latitude_deg, south.longitude_deg) == pytest.approx((0.0, 9.0), abs=1e-9)


@pytest.mark.parametrize(("zone", "letter"), [(0, "N"), (61, "N"), (32, "I"), (32, "?"), (32, "")])
def test_impossible_utm_zones_are_refused(zone: int, letter: str):
    with pytest.raises(GeodesyError):
        utm_to_geo(500000.0, 0.0, zone, letter)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((91.0, 0.0), "latitude 91.0 .*swapped"),
        ((0.0, 181.0), "longitude 181.0"),
        ((math.nan, 0.0), "latitude nan"),
        ((0.0, 0.0, math.inf), "altitude inf"),
    ],
)
def test_coordinates_out_of_range_are_refused(values: tuple[float, ...], said: str):
    with pytest.raises(GeodesyError, match=said):
        GeoPoint(*values)


def test_poses_are_normalised_and_checked():
    pose = Pose((1.0, 2.0, 3.0), (0.0, 0.0, 2.0, 2.0))
    assert pose.quat_xyzw == pytest.approx((0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)))
    assert pose.yaw_rad == pytest.approx(math.pi / 2)
    assert Pose.from_yaw(0.0, 0.0, -3.0).yaw_rad == pytest.approx(-3.0)
    for bad in ((math.nan, 0.0, 0.0), (0.0, math.inf, 0.0)):
        with pytest.raises(TrajectoryError, match="finite"):
            Pose(bad, (0.0, 0.0, 0.0, 1.0))
    with pytest.raises(TrajectoryError, match="zero quaternion"):
        Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    with pytest.raises(TrajectoryError, match="may be None"):
        Pose((None, 0.0, 0.0), None)  # type: ignore[arg-type]


def test_poses_that_do_not_know_all():
    flat = Pose((3.0, 4.0, None), None)
    assert (flat.position_xyz, flat.quat_xyzw, flat.yaw_rad) == ((3.0, 4.0, None), None, None)
    assert Pose.from_yaw(3.0, 4.0, None, None) == flat
    known = Pose.from_yaw(0.0, 0.0, 1.0, 12.0)
    # Three dimensions where both heights are known, two otherwise.
    assert known.distance_m(Pose((3.0, 4.0, 0.0), None)) == pytest.approx(13.0)
    assert known.distance_m(flat) == flat.distance_m(known) == pytest.approx(5.0)
    assert known.turn_rad(Pose.from_yaw(0.0, 0.0, -1.0)) == pytest.approx(2.0)
    assert known.turn_rad(flat) is None
    for wanted in ("known_yaw_rad", "known_xyz", "known_quat_xyzw"):
        with pytest.raises(TrajectoryError, match="unknown"):
            getattr(flat, wanted)
