"""Where the poses of a map's sessions come from, and whether those of another source relate to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from effovpr_ros.core.errors import GeodesyError, MapError, MapFormatError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.sources.frame import PoseKind, PoseOrigin

if TYPE_CHECKING:
    from effovpr_ros.mapping.map_reading import MapReader
    from effovpr_ros.mapping.place import Place

ORIGINS_PROPERTY = "session_origins"
# Frames that begin where a drive begins (REP-105; camera_init is that of LOAM and its kin).
_OF_ONE_DRIVE = ("odom", "camera_init")


@dataclass(frozen=True)
class SessionOrigin:
    """What is kept of the poses of a session.

    Attributes:
        frame_id: as its source named it; empty where it did not.
        child_frame_id: body whose poses they are; empty where it was not named.
        drive: see `PoseOrigin`.
        datum: origin of the session's own frame, where that is not the map's.
        position_std_m: standard deviation of its positions along an axis; None where its source did not tell it.
    """

    frame_id: str = ""
    child_frame_id: str = ""
    drive: str = ""
    datum: Datum | None = None
    position_std_m: float | None = None


class Properties(Protocol):
    """Small values stored with a map, as `PlaceStore` and `PlaceMap` keep them."""

    def get_property(self, key: str) -> bytes | None:
        """A value."""

    def set_property(self, key: str, value: bytes) -> None:
        """Store a value."""


class Joined(Properties, Protocol):
    """What sessions ask of a map that they join; a `PlaceMap` open for writing is one."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def frame_id(self) -> str:
        """Frame of its poses."""

    @property
    def datum(self) -> Datum | None:
        """Origin of the frame, if it is geo-referenced."""

    @property
    def sessions(self) -> list[str]:
        """Names of those that joined before."""

    def places(self) -> Sequence[Place]:
        """Its places, or enough of them to know which sessions have poses."""

    def session_frame(self, session: str) -> str:
        """See `PlaceMap`."""

    def set_session_frame(self, session: str, frame_id: str) -> None:
        """See `PlaceMap`."""

    def set_datum(self, datum: Datum) -> None:
        """See `PlaceMap`."""


def read_origins(properties: Properties) -> dict[str, SessionOrigin]:
    """Origins by session; those built by earlier versions have none.

    Raises:
        MapFormatError: stored in a form that this version does not read.
    """
    stored = properties.get_property(ORIGINS_PROPERTY)
    try:
        items = json.loads(stored).items() if stored else ()
        return {
            str(session): SessionOrigin(
                str(item["frame_id"]),
                str(item["child_frame_id"]),
                str(item["drive"]),
                _datum(item["datum"]),
                # Maps of earlier versions do not have it.
                None if (std_m := item.get("position_std_m")) is None else float(std_m),
            )
            for session, item in items
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, GeodesyError) as error:
        raise MapFormatError(f"what the map keeps of its sessions' poses is damaged ({error!r}); rebuild it") from error


def write_origins(properties: Properties, origins: Mapping[str, SessionOrigin]) -> None:
    """Store the origins of all sessions."""
    content = {
        session: {
            "frame_id": origin.frame_id,
            "child_frame_id": origin.child_frame_id,
            "drive": origin.drive,
            "datum": list(astuple(origin.datum.origin)) if origin.datum else None,
            "position_std_m": origin.position_std_m,
        }
        for session, origin in origins.items()
    }
    properties.set_property(ORIGINS_PROPERTY, json.dumps(content).encode())


def join_session(place_map: Joined, session: str, origin: PoseOrigin, session_frame: str = "") -> list[str]:
    """Make ready for a source's poses: refuse those that do not relate to the map's, and keep what is said of them.

    Args:
        place_map: open for writing; an empty one gets the datum of geo-tagged sources.
        session: that the source joins as.
        origin: of the source's poses.
        session_frame: frame that the session gets of its own; the map's frame's name says that the poses are in it.

    Returns:
        What was assumed, for people.

    Raises:
        MapError: the poses do not relate to the map's, or the session has places in another frame.
    """
    if session_frame:
        place_map.set_session_frame(session, session_frame)
    elif session in place_map.sessions:
        session_frame = place_map.session_frame(session)
    origins = read_origins(place_map)
    known = origins.get(session)
    if known is not None and known.drive == origin.drive and origin.kind is not PoseKind.EARTH:
        return []
    if known is None and session in place_map.sessions:
        return [f"session {session!r} has no record of its frames; this source is taken to be in the same"]
    apart = bool(session_frame) and session_frame != place_map.frame_id
    if apart and known is not None and any(place.pose for place in place_map.places() if place.session == session):
        _require_related(known, origin, session, session_frame)
    if apart and origin.kind is not PoseKind.NONE:
        notes = _notes_apart(origin, session, session_frame)
    else:
        notes = _notes_joined(place_map, origin, session_frame)
    bodies = {other.child_frame_id for name, other in origins.items() if name != session} - {"", origin.child_frame_id}
    if origin.child_frame_id and bodies:
        notes.append(
            f"its poses are those of {origin.child_frame_id!r}, other sessions' of {', '.join(sorted(bodies))}; the "
            "transform between them is not applied"
        )
    own_datum = origin.datum if apart else None
    frame_id = session_frame if session_frame and not apart else origin.frame_id
    # What joins a session may be less sure than what is there.
    stds_m = [item.position_std_m for item in (known, origin) if item is not None and item.position_std_m is not None]
    std_m = max(stds_m, default=None)
    origins[session] = SessionOrigin(frame_id, origin.child_frame_id, origin.drive, own_datum, std_m)
    write_origins(place_map, origins)
    return notes


def odometry_drives(place_map: MapReader) -> set[str]:
    """Drives whose odometry is the map's frame; none where the frame is known to be another one."""
    origins = read_origins(place_map)
    in_map_frame = {place.session for place in place_map.places() if place.map_pose is not None}
    by_odometry = {
        origins[session].drive
        for session in in_map_frame & origins.keys()
        if origins[session].drive and is_of_one_drive(origins[session].frame_id)
    }
    # Maps of earlier versions say no more than the name of their frame.
    unknown = is_of_one_drive(place_map.frame_id) and not in_map_frame <= origins.keys()
    return by_odometry | ({str(place_map.path)} if unknown else set())


def is_of_one_drive(frame_id: str) -> bool:
    """Whether a frame begins where a drive begins, so that its name says nothing of another drive."""
    return not frame_id or any(part in frame_id.rsplit("/", 1)[-1] for part in _OF_ONE_DRIVE)


def _require_related(known: SessionOrigin, origin: PoseOrigin, session: str, session_frame: str) -> None:
    """Refuse poses that are not in the frame of their own that a session has poses in already.

    Raises:
        MapError: they are by another datum, or odometry of another drive.
    """
    if origin.kind in (PoseKind.NONE, PoseKind.MAP):
        return
    if origin.kind is PoseKind.EARTH or known.datum is not None:
        related = known.datum == origin.datum
        reason = "they are placed by another datum"
    else:
        related = origin.frame_id == known.frame_id and not is_of_one_drive(origin.frame_id)
        reason = f"{origin.frame_id or 'a frame without a name'!r} of one drive says nothing of another's"
    if not related:
        raise MapError(
            f"session {session!r} has poses of another drive in its frame {session_frame!r}, to which those of this "
            f"source do not relate: {reason}; give it a session and a frame of its own with other names at --session "
            "and --session-frame"
        )


def _notes_apart(origin: PoseOrigin, session: str, session_frame: str) -> list[str]:
    if origin.datum is not None:
        where = origin.datum.origin
        return [
            f"poses of session {session!r} are east, north and up of ({where.latitude_deg}, {where.longitude_deg}) in "
            f"a frame of their own, {session_frame!r}"
        ]
    named = f" (the source names it {origin.frame_id!r})" if origin.frame_id not in ("", session_frame) else ""
    return [f"poses of session {session!r} are in a frame of their own, {session_frame!r}{named}"]


def _notes_joined(place_map: Joined, origin: PoseOrigin, session_frame: str) -> list[str]:
    """What is assumed of poses that join the map's frame.

    Raises:
        MapError: they do not relate to it.
    """
    frame = place_map.frame_id
    has_poses = any(place.map_pose for place in place_map.places())
    if origin.kind is PoseKind.NONE:
        return []
    if origin.kind is PoseKind.EARTH and origin.datum is not None:
        if not has_poses and place_map.datum is None:
            place_map.set_datum(origin.datum)
        if place_map.datum != origin.datum:
            raise MapError(
                f"map {place_map.path} has poses, but no datum to place geo-tags by, so theirs do not relate; "
                "give the session a frame of its own with --session NAME --session-frame FRAME, or build another map"
            )
        return []
    if origin.kind is PoseKind.MAP:
        return [f"positions of the table are taken to be in the map's frame {frame!r}"] if has_poses else []
    said = repr(origin.frame_id) if origin.frame_id else "a frame without a name"
    if session_frame:
        return [f"poses in {said} are taken to be in the map's frame {frame!r}, as --session-frame says"]
    if not has_poses:
        return [f"poses in {said} are the map's, whose frame is called {frame!r}"]
    if origin.frame_id == frame and not is_of_one_drive(frame):
        return [f"poses in {said} are taken to be in the map's frame of that name"]
    raise MapError(
        f"poses of this source are in {said}, which does not relate to the frame {frame!r} of map {place_map.path}"
        + (": each drive's odometry begins where the drive begins" if is_of_one_drive(origin.frame_id) else "")
        + "; give the session a frame of its own with --session NAME --session-frame FRAME, or say with "
        f"--session-frame {frame} that they are in the map's"
    )


def _datum(values: list[float | None] | None) -> Datum | None:
    if values is None:
        return None
    latitude, longitude, altitude = values
    if latitude is None or longitude is None:
        raise ValueError(f"datum {values} has no latitude and longitude")
    return Datum(GeoPoint(float(latitude), float(longitude), None if altitude is None else float(altitude)))
