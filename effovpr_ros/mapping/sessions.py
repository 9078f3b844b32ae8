"""Sessions of a map: what each holds, and the frame that its poses are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.session_origins import SessionOrigin


@dataclass(frozen=True)
class SessionSummary:
    """What a session of a map holds.

    Attributes:
        name: of the session.
        frame_id: of its poses; several, comma-separated, where its odometry began anew.
        child_frame_id: body whose poses they are, as the source named it; empty where it did not.
        num_places: all of them.
        with_pose: of them, those with a pose.
        with_geo_tag: of them, those with a geo-tag.
        first_stamp_ns: earliest known time; None if none is known.
        last_stamp_ns: latest known time; None if none is known.
        position_std_m: standard deviation of its positions along an axis; None where its source did not tell it.
    """

    name: str
    frame_id: str
    child_frame_id: str
    num_places: int
    with_pose: int
    with_geo_tag: int
    first_stamp_ns: int | None
    last_stamp_ns: int | None
    position_std_m: float | None = None


def summarise(places: Sequence[Place], map_frame_id: str, origins: Mapping[str, SessionOrigin]) -> list[SessionSummary]:
    """One summary a session, in order of appearance."""
    of_session: dict[str, list[Place]] = {}
    for place in places:
        of_session.setdefault(place.session, []).append(place)
    unknown = SessionOrigin()
    return [_summary(name, members, map_frame_id, origins.get(name, unknown)) for name, members in of_session.items()]


def _summary(name: str, places: Sequence[Place], map_frame_id: str, origin: SessionOrigin) -> SessionSummary:
    stamps = [place.stamp_ns for place in places if place.stamp_ns is not None]
    return SessionSummary(
        name=name,
        frame_id=", ".join(dict.fromkeys(place.own_frame or map_frame_id for place in places)),
        child_frame_id=origin.child_frame_id,
        num_places=len(places),
        with_pose=sum(place.pose is not None for place in places),
        with_geo_tag=sum(place.geo is not None for place in places),
        first_stamp_ns=min(stamps, default=None),
        last_stamp_ns=max(stamps, default=None),
        position_std_m=origin.position_std_m,
    )
