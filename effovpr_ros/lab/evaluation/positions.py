"""Where images were taken, in one metric frame, and which of them are near each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from effovpr_ros.core.errors import EvaluationError, GeodesyError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.images import ImageFolder

Metres = NDArray[np.float64]
_UTM_EASTING_M = (100_000.0, 900_000.0)


@dataclass(frozen=True)
class CommonFrame:
    """Two folders whose poses can be compared.

    Attributes:
        database: frames with a pose each.
        queries: likewise, in the same frame.
        coordinates: what the two coordinates of a position are called where they come from.
        queries_swapped_xy: (N, 2) metres: where the queries would be if their two coordinates were swapped; NaN
            where that is nowhere.
    """

    database: Sequence[Frame]
    queries: Sequence[Frame]
    coordinates: str
    queries_swapped_xy: Metres


def in_common_frame(database: ImageFolder, queries: ImageFolder) -> CommonFrame:
    """Poses of two folders in one metric frame.

    `@utm_east@utm_north@` names of one zone are compared as they stand, as other tools do; geo-tags in the ENU frame
    of the database; poses of tables as the tables give them.

    Args:
        database: opened first.
        queries: opened with the datum of the database.

    Raises:
        EvaluationError: an image without a position, degrees where metres are due, easting and northing swapped, or
            two folders that have no frame in common.
    """
    if database.kind == queries.kind == "utm":
        stored, asked = _utm(database.frames), _utm(queries.frames)
        if len(_zones(database.frames) | _zones(queries.frames)) <= 1:
            origin = stored[0]
            return CommonFrame(
                _moved(database.frames, stored - origin),
                _moved(queries.frames, asked - origin),
                "easting and northing",
                asked[:, ::-1] - origin,
            )
    datum = database.datum
    if datum is not None:
        return CommonFrame(
            [_geo_posed(frame, datum) for frame in database.frames],
            [_geo_posed(frame, datum) for frame in queries.frames],
            "latitude and longitude",
            np.array([_swapped_geo(frame.geo, datum) for frame in queries.frames], np.float64).reshape(-1, 2),
        )
    for frame in (*database.frames, *queries.frames):
        if frame.pose is None:
            raise _no_position(frame)
    first = database.frames[0]
    if queries.datum is not None or "utm" in (database.kind, queries.kind):
        raise EvaluationError(
            f"{first.name} is placed by {database.kind}, {queries.frames[0].name} by {queries.kind}, and the two have "
            "no frame in common; tag both folders alike, or name the right answers with --positives"
        )
    return CommonFrame(database.frames, queries.frames, "x and y", positions_xy(queries.frames)[:, ::-1])


def positions_xy(frames: Sequence[Frame]) -> Metres:
    """(N, 2) metres in the map frame.

    Raises:
        EvaluationError: a frame has no pose.
    """
    positions = []
    for frame in frames:
        if frame.pose is None:
            raise _no_position(frame)
        positions.append(frame.pose.position_xyz[:2])
    return np.array(positions, np.float64).reshape(-1, 2)


def horizontal_distance_m(query: Frame, stored: Frame) -> float | None:
    """Metres between two positions of one frame; None where one is unknown."""
    if query.pose is None or stored.pose is None:
        return None
    return math.dist(query.pose.position_xyz[:2], stored.pose.position_xyz[:2])


def headings_rad(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """(N,) yaw in the map frame, NaN where it is unknown."""
    yaws = (frame.pose.yaw_rad if frame.pose is not None else None for frame in frames)
    return np.array([np.nan if yaw_rad is None else yaw_rad for yaw_rad in yaws], np.float64)


def turn_deg(a_rad: NDArray[np.float64], b_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle between headings in [0, 180], NaN where one is unknown."""
    return np.asarray(np.degrees(np.abs((a_rad - b_rad + np.pi) % (2.0 * np.pi) - np.pi)), np.float64)


def within_radius(database_xy: Metres, queries_xy: Metres, radius_m: float) -> list[frozenset[int]]:
    """For each query, numbers of the database positions at most so far away; memory grows with the pairs found.

    Args:
        database_xy: (M, 2) metres.
        queries_xy: (N, 2) metres; none is near a NaN.
        radius_m: positive.

    Raises:
        EvaluationError: the radius is not positive and finite.
    """
    if not 0.0 < radius_m < np.inf:
        raise EvaluationError(
            f"radius {radius_m} m is not positive; give the metres within which two images show one place"
        )
    known = np.isfinite(queries_xy).all(axis=1)
    found = [frozenset[int]()] * len(queries_xy)
    if known.any() and len(database_xy):
        near = cKDTree(database_xy).query_ball_point(queries_xy[known], radius_m)
        for number, numbers in zip(np.flatnonzero(known), near, strict=True):
            found[number] = frozenset(int(item) for item in numbers)
    return found


def positives_by_pose(
    database: Sequence[Frame], queries: Sequence[Frame], *, radius_m: float, max_heading_deg: float | None
) -> list[frozenset[int]]:
    """For each query, the database frames that show its place.

    Args:
        database: frames with a pose each.
        queries: likewise, in the same frame.
        radius_m: they are at most so far apart, horizontally.
        max_heading_deg: and turned by at most so much, where both headings are known; None: any heading.

    Raises:
        EvaluationError: a frame without a pose, or an impossible limit.
    """
    near = within_radius(positions_xy(database), positions_xy(queries), radius_m)
    if max_heading_deg is None:
        return near
    if not 0.0 < max_heading_deg <= 180.0:
        raise EvaluationError(
            f"heading limit {max_heading_deg} degrees is outside (0, 180]; leave it out for any heading"
        )
    stored_rad, asked_rad = headings_rad(database), headings_rad(queries)
    kept = []
    for heading_rad, numbers in zip(asked_rad, near, strict=True):
        among = np.array(sorted(numbers), np.int64)
        # A NaN is not greater than anything, so that an unknown heading rules nothing out.
        turned = turn_deg(stored_rad[among], heading_rad) > max_heading_deg
        kept.append(frozenset(among[~turned].tolist()))
    return kept


def _utm(frames: Sequence[Frame]) -> Metres:
    """(N, 2) easting and northing as the names give them.

    Raises:
        EvaluationError: they are degrees, or swapped.
    """
    values = np.array([[float(field) for field in Path(f.name).name.split("@")[1:3]] for f in frames], np.float64)
    degrees = (np.abs(values) <= 180.0).all(axis=1)
    in_easting = (values >= _UTM_EASTING_M[0]) & (values <= _UTM_EASTING_M[1])
    if degrees.all() or (degrees.any() and in_easting.any()):
        wrong = int(np.flatnonzero(degrees)[0])
        raise EvaluationError(
            f"{frames[wrong].name}: {int(degrees.sum())} of {len(frames)} names hold degrees where UTM metres are due; "
            "convert them; if they are metres of a local frame, give them as columns x and y with --table and "
            "--query-table; or name the right answers with --positives"
        )
    swapped = (values[:, 0] > _UTM_EASTING_M[1]) & in_easting[:, 1]
    if swapped.any():
        wrong = int(np.flatnonzero(swapped)[0])
        raise EvaluationError(
            f"{frames[wrong].name}: an easting of {values[wrong, 0]:.0f} m and a northing of {values[wrong, 1]:.0f} m "
            f"are no UTM; easting and northing look swapped in {int(swapped.sum())} of {len(frames)} names; names are "
            "@utm_east@utm_north@...@"
        )
    return values


def _zones(frames: Sequence[Frame]) -> set[str]:
    """UTM zones that the names give; a name without one takes part in any."""
    fields = (Path(frame.name).name.split("@") for frame in frames)
    return {parts[3] for parts in fields if len(parts) > 5 and parts[3] and parts[4]}


def _moved(frames: Sequence[Frame], xy: Metres) -> list[Frame]:
    """Frames at other positions, their orientation kept."""
    return [
        replace(frame, pose=Pose((float(x), float(y), None), frame.pose.quat_xyzw if frame.pose else None))
        for frame, (x, y) in zip(frames, xy, strict=True)
    ]


def _geo_posed(frame: Frame, datum: Datum) -> Frame:
    if frame.geo is None:
        if frame.pose is None:
            raise _no_position(frame)
        raise EvaluationError(
            f"{frame.name} has a position in local metres only, while the database is geo-tagged; give both folders "
            "the same kind of positions, or name the right answers with --positives"
        )
    return replace(frame, pose=Pose(datum.to_enu(frame.geo), frame.pose.quat_xyzw if frame.pose else None))


def _swapped_geo(geo: GeoPoint | None, datum: Datum) -> tuple[float, float]:
    if geo is None:
        return (np.nan, np.nan)
    try:
        east, north, _ = datum.to_enu(GeoPoint(geo.longitude_deg, geo.latitude_deg, geo.altitude_m))
    except GeodesyError:
        return (np.nan, np.nan)
    return (east, north)


def _no_position(frame: Frame) -> EvaluationError:
    return EvaluationError(
        f"{frame.name} has no position; name the images @utm_east@utm_north@...@, give them EXIF GPS or a row with x, "
        "y or latitude, longitude in a CSV (--table, --query-table), or name the right answers with --positives"
    )
