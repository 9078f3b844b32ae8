"""Maps of earlier versions, which stored 0 for what was not known: what they guessed is read as unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import Pose
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.store import PlaceStore

_SAME_M = 1e-3
_NOT_TURNED = (0.0, 0.0, 0.0, 1.0)


class EarlierPlaces:
    """Places of a store, those below a number as an earlier version wrote them; a `PlaceSource`.

    An identity quaternion of a geo-tagged place stood for an unknown heading, an altitude of exactly 0 for an unknown
    one, and a height that follows from such an altitude is unknown too.
    """

    def __init__(self, store: PlaceStore, datum: Datum | None) -> None:
        """Read nothing yet.

        Args:
            store: of the map.
            datum: of the map.
        """
        self._store = store
        self._datum = datum
        self._below = store.guessed_below

    def place_ids(self) -> Sequence[int]:
        """Numbers of all places, ascending."""
        return self._store.place_ids()

    def sessions(self) -> list[str]:
        """Names of the sessions in order of appearance."""
        return self._store.sessions()

    def places(self, place_ids: Sequence[int] | None = None) -> list[Place]:
        """Places by ascending number; all where none are named."""
        return [
            self._as_known(place) if place.place_id < self._below else place for place in self._store.places(place_ids)
        ]

    def _as_known(self, place: Place) -> Place:
        geo, pose = place.geo, place.pose
        if geo is None:
            return place
        if geo.altitude_m == 0.0:
            geo = replace(geo, altitude_m=None)
        if pose is not None:
            height = None if geo.altitude_m is None and self._follows_from_tag(place) else pose.position_xyz[2]
            x, y, _ = pose.position_xyz
            pose = Pose((x, y, height), None if pose.quat_xyzw == _NOT_TURNED else pose.quat_xyzw)
        return replace(place, pose=pose, geo=geo)

    def _follows_from_tag(self, place: Place) -> bool:
        """Whether the height of a pose is what a datum makes of an altitude of 0."""
        if self._datum is None or place.geo is None or place.pose is None:
            return False
        up_m, z = self._datum.to_enu(place.geo)[2], place.pose.position_xyz[2]
        return up_m is not None and z is not None and abs(up_m - z) < _SAME_M
