"""PlaceMap: a directory with manifest, store and index; what a query searches and a build appends to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.core.files import usable_path
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.pca import PcaProjection, fit_pca
from effovpr_ros.mapping.codec import as_stored, require_dimension
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.index_file import write_index
from effovpr_ros.mapping.making import lock_map, remove_unfinished_map
from effovpr_ros.mapping.manifest import INDEX_NAME, Manifest, now, read_manifest
from effovpr_ros.mapping.map_reading import PCA_PROPERTY, MapReader
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.pose_frames import PoseFrames
from effovpr_ros.mapping.session_origins import SessionOrigin, read_origins
from effovpr_ros.mapping.store import STORE_NAME, PlaceStore

if TYPE_CHECKING:
    from typing_extensions import Self

# Of one map while another program replaces or removes what was just read.
_OPENINGS = 10


class _ReplacedError(Exception):
    """A file of the map was replaced while it was opened."""


class PlaceMap(MapReader):
    """An open map. Use `create` or `open`, and close it or use it as a context."""

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        fingerprint: ModelFingerprint,
        name: str = "",
        frame_id: str = "map",
        datum: Datum | None = None,
        recognition: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make an empty map.

        Args:
            path: a folder that does not exist or is empty.
            fingerprint: of the model whose descriptors will be added.
            name: of the map; the folder's name if empty.
            frame_id: frame of the poses.
            datum: origin of that frame, if it is geo-referenced.
            recognition: settings of recognition that the map is made for, see `recognition.presets`.

        Raises:
            MapError: the folder is in use or cannot be made.
        """
        folder = usable_path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = lock_map(folder)
        except OSError as error:
            raise MapError(f"map folder {folder} cannot be made: {error.strerror}") from error
        try:
            remove_unfinished_map(folder)
            store = PlaceStore(folder, create=True, online=cls._ONLINE)
            try:
                manifest = Manifest(
                    name or folder.resolve().name, now(), "", fingerprint, frame_id, datum, fingerprint.global_dim
                )
                manifest = replace(manifest, recognition=dict(recognition or {}))
                place_map = cls(folder, manifest, store, lock)
                place_map.flush()
            except BaseException:
                store.close()
                raise
        except BaseException:
            lock.release()
            raise
        return place_map

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> Self:
        """Open a map and check it against its manifest.

        Places that were committed after the manifest (a killed build) are kept; a missing or stale index is
        rebuilt. Local descriptors are verified as they are read, everything by `check`.

        Args:
            path: folder of the map.
            writable: places may be added.

        Raises:
            MapError: missing, damaged, or not writable though wanted.
            MapFormatError: of another format version, or with frames of poses in another form.
        """
        folder = usable_path(path)
        read_manifest(folder)
        lock = lock_map(folder) if writable else None
        try:
            for _ in range(_OPENINGS):
                try:
                    return cls._open(folder, read_manifest(folder), lock)
                except _ReplacedError:
                    continue
            raise MapError(f"map {folder} does not stay the same while it is opened, or holds rows without a place")
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @classmethod
    def _open(cls, folder: Path, manifest: Manifest, lock: FileLock | None) -> Self:
        """Open what a manifest describes.

        Raises:
            MapError: damaged, or in shards.
            _ReplacedError: another program replaced the manifest meanwhile; what else was read may not belong to it.
        """
        if manifest.shards:
            raise MapError(
                f"map {folder} lies in {len(manifest.shards)} shards, and this works on a map of one folder; make one "
                f"with `effovpr map merge NEW_MAP {folder}`"
            )
        store = PlaceStore(folder, writable=lock is not None, online=lock is not None and cls._ONLINE)
        try:
            try:
                manifest.require_store(folder / STORE_NAME, len(store), store.checksum(manifest.num_places))
                place_map = cls(folder, manifest, store, lock)
            except MapError as error:
                if read_manifest(folder) != manifest:
                    raise _ReplacedError from error
                raise
            if read_manifest(folder).fingerprint != manifest.fingerprint or len(place_map._index) != len(place_map):
                raise _ReplacedError
        except BaseException:
            store.close()
            raise
        return place_map

    def session_frame(self, session: str) -> str:
        """Name of the frame of its own that a session's next place gets; empty for the map's."""
        return self._frames.frame_of(session, self.next_id)

    def set_session_frame(self, session: str, frame_id: str) -> None:
        """Say before a session's first place that its poses are in another frame than the map's.

        Poses of different frames are never compared, and only those in the map frame are answered with.

        Raises:
            MapError: the session has places in another frame already, or the map is open read-only.
        """
        own_frame = "" if frame_id == self.frame_id else frame_id
        if session in self.sessions and self.session_frame(session) != own_frame:
            raise MapError(
                f"session {session!r} has places already, so that its frame cannot become {frame_id!r}; "
                "name the frame before the first place, or begin another session"
            )
        self.set_pose_frames(self._frames.begin(session, self.next_id, own_frame))

    def set_pose_frames(self, frames: PoseFrames) -> None:
        """Replace what is known of the frames of poses, for places that are added from now on."""
        self._require_writable()
        self._store.set_pose_frames(frames)
        self._frames = frames

    def set_datum(self, datum: Datum) -> None:
        """Geo-reference an empty map, for sources whose first fix is known only when they are read.

        Raises:
            MapError: places already refer to another datum.
        """
        if self.datum is not None and self.datum != datum:
            raise MapError(f"map {self.path} has the datum {self.datum.origin}; it cannot become {datum.origin}")
        # At once: places that are stored before the manifest are in this frame.
        self._manifest = replace(self._manifest, datum=datum).write(self.path)

    def add(self, places: Sequence[NewPlace], numbers: Sequence[int] | None = None) -> list[int]:
        """Append places in one transaction; they are searchable at once, and `flush` saves the index.

        Args:
            places: of the map's model.
            numbers: that they get, ascending and from `next_id` on; None: the next ones.

        Returns:
            Their numbers.

        Raises:
            DescriptorShapeError: features of another model.
            MapError: opened read-only, a place is there already, or the disk is full.
        """
        self._require_writable()
        if not places:
            return []
        for place in places:
            require_dimension(place.features.global_descriptor, self.fingerprint.global_dim, place.source)
        place_ids = self._store.add(places, numbers)
        # As they will be read again, so that a map answers the same before and after a kill.
        self._index.add(self._project(as_stored(np.stack([place.features.global_descriptor for place in places]))))
        numbered = zip(place_ids, places, strict=True)
        self._table.append([new.placed(number, self._frames.frame_of(new.session, number)) for number, new in numbered])
        return place_ids

    def flush(self) -> None:
        """Write index and manifest, each atomically.

        Raises:
            MapError: opened read-only, or the disk is full.
        """
        self._require_writable()
        origins = read_origins(self._store)
        self._index.measure()
        index_sha256 = write_index(self._index, self.path / INDEX_NAME)
        self._manifest = replace(
            self._manifest,
            global_dim=self.global_dim,
            num_places=len(self),
            sessions=tuple(self.sessions),
            session_frames={session: self._frames_of(session, origins) for session in self.sessions},
            places_sha256=self._store.checksum(len(self)),
            index_sha256=index_sha256,
            index=self._index.summary,
        ).write(self.path)

    def reindex(self, flat_limit: int) -> None:
        """Make the index anew, for a part of a larger map.

        Args:
            flat_limit: more places than this are searched by codes.

        Raises:
            MapError: opened read-only.
        """
        self._require_writable()
        blocks = partial(self._descriptor_blocks, 0)
        self._index = DescriptorIndex.build(self.global_dim, len(self), blocks, limit=flat_limit)

    def _frames_of(self, session: str, origins: Mapping[str, SessionOrigin]) -> dict[str, str]:
        """Frame of a session's poses and their body, as the manifest says it."""
        origin = origins.get(session, SessionOrigin())
        frame_id = self._frames.frame_of(session, self.next_id) or self.frame_id
        return {"frame_id": frame_id, "child_frame_id": origin.child_frame_id}

    def fit_pca(self, dimension: int, examples: NDArray[np.float32] | None = None) -> None:
        """Index and save principal components of the global descriptors, theirs or those of (N, D) `examples`.

        Raises:
            ConfigError: fewer places, or examples, than dimensions.
            MapError: opened read-only.
        """
        self._require_writable()
        self.set_pca(fit_pca(self.global_descriptors() if examples is None else examples, dimension))
        self.flush()

    def set_pca(self, pca: PcaProjection) -> None:
        """Index by principal components that are known, such as another map's.

        Raises:
            MapError: opened read-only.
        """
        self._require_writable()
        self._store.set_property(PCA_PROPERTY, pca.to_bytes())
        self._pca = pca
        blocks = partial(self._descriptor_blocks, 0)
        self._index = DescriptorIndex.build(len(pca.components), len(self), blocks, stays_exact=self._ONLINE)
