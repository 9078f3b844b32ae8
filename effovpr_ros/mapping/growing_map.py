"""GrowingMap: a map that a robot adds one place after the other to while it drives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.files import sync_folder, usable_path
from effovpr_ros.core.work_folder import work_folder
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.place_map import PlaceMap


class GrowingMap(PlaceMap):
    """A map whose `add` costs milliseconds for one place, that can forget places and be copied while it grows.

    A place is committed when `add` returns and survives a kill of the process. Index and manifest are written by
    `flush` alone; what is newer is indexed again at the next opening. See `PlaceStore` for what a power cut costs.
    """

    _ONLINE = True

    def begin_pose_frame(self, session: str) -> None:
        """Poses of a session's places to come do not relate to those there are: its odometry starts anew.

        They are in the map frame if it is theirs to define, since no place has a pose in it and it has no datum; else
        in a frame of their own, `SESSION/track_N`, where N is the number of its first place.

        Raises:
            MapError: opened read-only, or the disk is full.
        """
        defined = self.datum is not None or any(place.map_pose for place in self._table.places())
        own_frame = f"{session}/track_{self.next_id}" if defined else ""
        self.set_pose_frames(self._frames.begin(session, self.next_id, own_frame))

    def forget(self, place_ids: Collection[int]) -> None:
        """Remove places in one transaction; the others keep their numbers, and the file uses the space again.

        Raises:
            MapError: opened read-only, no such place, or the newest place, whose number would be given again.
        """
        self._require_writable()
        rows = [self._table.row_of(place_id) for place_id in place_ids]
        if self.next_id - 1 in place_ids:
            raise MapError(f"place {self.next_id - 1} is the newest of map {self.path} and cannot be forgotten")
        # Until the next `flush` the manifest claims nothing: a kill leaves no map that seems to have lost places.
        if self._manifest.num_places:
            self._manifest = replace(
                self._manifest, num_places=0, places_sha256=self._store.checksum(0), index_sha256=""
            ).write(self.path)
        self._store.remove(place_ids)
        self._index.remove(rows)
        self._table.forget(place_ids)
        self._cache.forget(place_ids)

    def likeness(self, place_ids: Sequence[int]) -> list[tuple[int, float]]:
        """For each place, the other one that looks most like it, and the cosine of the two.

        Raises:
            MapError: no such place.
        """
        rows, similarities = self._index.nearest_other([self._table.row_of(place_id) for place_id in place_ids])
        return [
            (self._table.place_id(row), float(similarity)) for row, similarity in zip(rows, similarities, strict=True)
        ]

    def save_copy(self, path: str | Path, name: str = "") -> None:
        """Write a copy of the map as it is now; places may be added meanwhile by another thread.

        Args:
            path: a folder that does not exist or is empty; it appears when the copy is whole. One that holds the same
                copy already stays as it is.
            name: of the copy; the folder's name if empty.

        Raises:
            MapError: the folder is in use, or the disk is full.
        """
        folder = usable_path(path)
        with work_folder(folder, "saving") as work:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                if (folder / MANIFEST_NAME).is_file() and self._is_copied_in(folder, name):
                    return
                raise MapError(f"{folder} is in use; choose a new folder for the copy of the map")
            new = work / folder.name
            try:
                new.mkdir()
                self._store.copy_to(new)
                replace(
                    self._manifest,
                    name=name or folder.resolve().name,
                    num_places=0,
                    places_sha256=self._store.checksum(0),
                    index_sha256="",
                ).write(new)
                with PlaceMap.open(new, writable=True) as copy:
                    copy.flush()
                new.replace(folder)
                sync_folder(folder.parent)
            except OSError as error:
                raise MapError(f"{folder} cannot be written: {error.strerror}; choose another folder") from error

    def _is_copied_in(self, folder: Path, name: str) -> bool:
        """Whether a folder holds the copy that is wanted, as after a save whose program was killed at its end."""
        with PlaceMap.open(folder) as copy:
            return copy.has_places_of(self) and copy.name == (name or folder.resolve().name)
