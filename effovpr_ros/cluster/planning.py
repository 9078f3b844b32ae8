"""What a build on a cluster is to make: its sources, the map that they join, and whether their poses relate to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from effovpr_ros.cluster.work import WorkItem, WorkSource
from effovpr_ros.core.errors import MapError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.session_origins import join_session, read_origins, write_origins


@dataclass
class PlannedMap:
    """What is known of a map before its places are there, as much as sessions ask that join it.

    Attributes:
        path: of the map.
        frame_id: of it.
        datum: of it.
        sessions: that it has, or will have.
    """

    path: Path
    frame_id: str
    datum: Datum | None
    sessions: list[str] = field(default_factory=list)
    _is_there: bool = False
    _own_frames: dict[str, str] = field(default_factory=dict)
    _places: dict[str, Place] = field(default_factory=dict)
    _properties: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of_map(cls, place_map: MapReader) -> PlannedMap:
        """A map that is added to."""
        planned = cls(place_map.path, place_map.frame_id, place_map.datum, list(place_map.sessions), True)
        for place in place_map.places():
            known = planned._places.get(place.session)
            if known is None or (known.pose is None and place.pose is not None):
                planned._places[place.session] = place
            planned._own_frames[place.session] = place.own_frame
        write_origins(planned, read_origins(place_map))
        return planned

    def join(self, source: WorkSource, items: Sequence[WorkItem]) -> list[str]:
        """Join a source as the map's shards will.

        Returns:
            What was assumed, for people.

        Raises:
            MapError: its poses do not relate to the map's, or its session is there already.
        """
        if source.session in self.sessions:
            raise MapError(
                f"map {self.path} has a session {source.session!r} already, or will have; build this source by a "
                "command of its own, with another name at --session"
            )
        notes = join_session(self, source.session, source.origin, source.session_frame)
        self.sessions.append(source.session)
        item = next((item for item in items if item.pose is not None), items[0])
        where = (item.pose, item.geo, (0, 0), self.session_frame(source.session))
        self._places[source.session] = Place(len(self._places), source.session, item.stamp_ns, item.name, *where)
        return notes

    def places(self) -> list[Place]:
        """One place of each session, with a pose where any has one."""
        return list(self._places.values())

    def session_frame(self, session: str) -> str:
        """Frame of its own that a session has; empty for the map's."""
        return self._own_frames.get(session, "")

    def set_session_frame(self, session: str, frame_id: str) -> None:
        """Say that a session is in another frame than the map's."""
        self._own_frames[session] = "" if frame_id == self.frame_id else frame_id

    def set_datum(self, datum: Datum) -> None:
        """Place a map without poses on the earth.

        Raises:
            MapError: it has shards, which are not.
        """
        if self._is_there:
            raise MapError(
                f"map {self.path} has shards without a datum to place geo-tags by; build it anew from all sources"
            )
        self.datum = datum

    def get_property(self, key: str) -> bytes | None:
        """A value that sessions keep."""
        return self._properties.get(key)

    def set_property(self, key: str, value: bytes) -> None:
        """Keep a value."""
        self._properties[key] = value
