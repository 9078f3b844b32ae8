"""Sessions of a map: what each holds, and the frame that its poses are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effovpr_ros.errors import MapError
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.store import PlaceStore


@dataclass(frozen=True)
class SessionSummary:
    """What a session of a map holds.

    Attributes:
        name: of the session.
        frame_id: of its poses.
        num_places: all of them.
        with_pose: of them, those with a pose.
        with_geo_tag: of them, those with a geo-tag.
        first_stamp_ns: earliest known time; 0 if none is known.
        last_stamp_ns: latest known time; 0 if none is known.
    """

    name: str
    frame_id: str
    num_places: int
    with_pose: int
    with_geo_tag: int
    first_stamp_ns: int
    last_stamp_ns: int


def summarise(places: Sequence[Place], map_frame_id: str) -> list[SessionSummary]:
    """One summary a session, in order of appearance."""
    of_session: dict[str, list[Place]] = {}
    for place in places:
        of_session.setdefault(place.session, []).append(place)
    return [_summary(name, members, map_frame_id) for name, members in of_session.items()]


def declare_frame(store: PlaceStore, places: Sequence[Place], session: str, own_frame: str) -> None:
    """Store that a session's poses are in a frame of their own; nothing where that is known.

    Args:
        store: of the map.
        places: of the map.
        session: that has no place yet.
        own_frame: empty for the map frame.

    Raises:
        MapError: places of the session are in another frame already, or the store is not writable.
    """
    if store.session_frames().get(session, "") == own_frame:
        return
    if any(place.session == session for place in places):
        raise MapError(
            f"session {session!r} has places already, so that its frame cannot become "
            f"{own_frame or 'the map frame'!r}; name the frame before the first place, or begin another session"
        )
    store.set_session_frame(session, own_frame)


def _summary(name: str, places: Sequence[Place], map_frame_id: str) -> SessionSummary:
    stamps = [place.stamp_ns for place in places if place.stamp_ns]
    return SessionSummary(
        name=name,
        frame_id=places[0].own_frame or map_frame_id,
        num_places=len(places),
        with_pose=sum(place.pose is not None for place in places),
        with_geo_tag=sum(place.geo is not None for place in places),
        first_stamp_ns=min(stamps, default=0),
        last_stamp_ns=max(stamps, default=0),
    )
