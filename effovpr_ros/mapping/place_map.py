"""PlaceMap: a directory with manifest, store and index; what a query searches and a build appends to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError, MapFormatError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.core.files import usable_path
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.features.extractor import LocalFeatures
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.pca import PcaProjection, fit_pca
from effovpr_ros.mapping.codec import as_stored, require_dimension
from effovpr_ros.mapping.earlier_places import EarlierPlaces
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.index_file import index_problems, load_index, write_index
from effovpr_ros.mapping.local_cache import LocalCache
from effovpr_ros.mapping.making import lock_map, remove_unfinished_map
from effovpr_ros.mapping.manifest import INDEX_NAME, Manifest, now, read_manifest
from effovpr_ros.mapping.place import Candidate, NewPlace, Place
from effovpr_ros.mapping.place_table import PlaceTable
from effovpr_ros.mapping.pose_frames import PoseFrames
from effovpr_ros.mapping.positions import PlacePositions
from effovpr_ros.mapping.store import STORE_NAME, PlaceStore

if TYPE_CHECKING:
    from typing_extensions import Self

_PCA_PROPERTY = "pca"
_CACHE_BYTES = 256 * 2**20
# Of one map while another program replaces or removes what was just read.
_OPENINGS = 10


class _ReplacedError(Exception):
    """A file of the map was replaced while it was opened."""


class PlaceMap:
    """An open map. Use `create` or `open`, and close it or use it as a context."""

    _ONLINE = False

    def __init__(self, path: Path, manifest: Manifest, store: PlaceStore, lock: FileLock | None) -> None:
        """Not for callers: see `create` and `open`. A lock makes it writable."""
        self.path = path
        self._manifest = manifest
        self._store = store
        self._lock = lock
        self._frames = store.pose_frames()
        self._table = PlaceTable(EarlierPlaces(store, manifest.datum) if store.guessed_below else store)
        self._positions = PlacePositions(store)
        stored_pca = store.get_property(_PCA_PROPERTY)
        self._pca = _checked_pca(PcaProjection.from_bytes(stored_pca), manifest) if stored_pca else None
        self._cache = LocalCache(_CACHE_BYTES)
        dimension = len(self._pca.components) if self._pca else self.fingerprint.global_dim
        self._index = load_index(
            manifest.stored_index(path, dimension),
            len(self),
            self._descriptor_blocks,
            writable=self._writable,
            stays_exact=self._ONLINE,
        )

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
            _ReplacedError: another program replaced the manifest meanwhile; what else was read may not belong to it.
        """
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

    @property
    def name(self) -> str:
        """Name of the map."""
        return self._manifest.name

    @property
    def frame_id(self) -> str:
        """Frame of the poses."""
        return self._manifest.frame_id

    @property
    def datum(self) -> Datum | None:
        """Origin of the frame, if it is geo-referenced."""
        return self._manifest.datum

    @property
    def manifest(self) -> Manifest:
        """As last written."""
        return self._manifest

    @property
    def fingerprint(self) -> ModelFingerprint:
        """Of the model that made the descriptors."""
        return self._manifest.fingerprint

    @property
    def global_dim(self) -> int:
        """Dimension of the indexed descriptors, after PCA."""
        return self._index.dimension

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions in order of appearance."""
        return self._table.sessions

    @property
    def next_id(self) -> int:
        """Number of the place that is added next; numbers are never used again."""
        return self._table.next_id

    @property
    def places_sha256(self) -> str:
        """Checksum over all places, but not their local descriptors."""
        return self._store.checksum(len(self))

    def has_places_of(self, other: PlaceMap) -> bool:
        """Whether two maps hold the same places, whatever their local descriptors are."""
        return len(self) == len(other) and self.places_sha256 == other.places_sha256

    def set_session_frame(self, session: str, frame_id: str) -> None:
        """Say before a session's first place that its poses are in another frame than the map's.

        Poses of different frames are never compared, and only those in the map frame are answered with.

        Raises:
            MapError: the session has places in another frame already, or the map is open read-only.
        """
        own_frame = "" if frame_id == self.frame_id else frame_id
        if session in self.sessions and self._frames.frame_of(session, self.next_id) != own_frame:
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

    def __len__(self) -> int:
        """Number of places."""
        return len(self._table)

    def require_model(self, fingerprint: ModelFingerprint) -> None:
        """Refuse a model whose descriptors do not compare with the map's: ModelMismatchError names the differences."""
        self._manifest.require_model(self.path, fingerprint)

    def set_datum(self, datum: Datum) -> None:
        """Geo-reference an empty map, for sources whose first fix is known only when they are read.

        Raises:
            MapError: places already refer to another datum.
        """
        if self.datum is not None and self.datum != datum:
            raise MapError(f"map {self.path} has the datum {self.datum.origin}; it cannot become {datum.origin}")
        # At once: places that are stored before the manifest are in this frame.
        self._manifest = replace(self._manifest, datum=datum).write(self.path)

    def add(self, places: Sequence[NewPlace]) -> list[int]:
        """Append places in one transaction; they are searchable at once, and `flush` saves the index.

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
        place_ids = self._store.add(places)
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
        self._index.measure()
        index_sha256 = write_index(self._index, self.path / INDEX_NAME)
        self._manifest = replace(
            self._manifest,
            global_dim=self.global_dim,
            num_places=len(self),
            sessions=tuple(self.sessions),
            places_sha256=self._store.checksum(len(self)),
            index_sha256=index_sha256,
            index=self._index.summary,
        ).write(self.path)

    def search(
        self,
        global_descriptor: NDArray[np.float32],
        top_k: int,
        *,
        within: Callable[[Place], bool] | NDArray[np.int64] | None = None,
        before: int | None = None,
    ) -> list[Candidate]:
        """First stage: the places with the most similar global descriptors.

        Args:
            global_descriptor: (D,) float32, L2-normalised, of the map's model.
            top_k: at most so many.
            within: only places that it admits, or rows as from `rows_near`; a search of some is exact at every size.
                A predicate is asked about each place that is not excluded by `before`, seconds for a million.
            before: only places with a smaller number.

        Returns:
            Highest similarity first; equal ones by number.

        Raises:
            DescriptorShapeError: another D.
        """
        require_dimension(global_descriptor, self.fingerprint.global_dim, "the query")
        among = self._table.admitted(within, before)
        found, similarities = self._index.search(self._project(global_descriptor[None])[0], top_k, among=among)
        found_places = zip(self._table.at_rows(found.tolist()), similarities.tolist(), strict=True)
        return [Candidate(place, similarity) for place, similarity in found_places]

    def rows_near(self, centre_xy: tuple[float, float], radius_m: float) -> NDArray[np.int64]:
        """Rows of the places within a horizontal radius in the map frame, by pose or geo-tag, for `search`."""
        return self._positions.rows_near(centre_xy, radius_m, self._table, self.datum)

    def local_features(self, place_ids: Sequence[int]) -> list[LocalFeatures]:
        """Local features of places, in the order asked for; recently used ones come from memory.

        Raises:
            MapError: no such place, or damaged.
        """
        found = self._cache.found(place_ids)
        missing = [place_id for place_id in dict.fromkeys(place_ids) if place_id not in found]
        if missing:
            fresh = dict(zip(missing, self._store.local_features(missing, self.fingerprint.local_dim), strict=True))
            self._cache.put_all(fresh)
            found |= fresh
        return [found[place_id] for place_id in place_ids]

    def place(self, place_id: int) -> Place:
        """One place.

        Raises:
            MapError: no such place.
        """
        return self._table.at_rows([self._table.row_of(place_id)])[0]

    def places(self, at_most: int | None = None) -> list[Place]:
        """All places by number; evenly chosen ones where there are more than `at_most`."""
        return self._table.places(at_most)

    def stored_sources(self, session: str) -> dict[tuple[str, int], set[str]]:
        """Digests of all places of a session by source and stamp_ns; see `PlaceStore.sources`."""
        return self._store.sources(session)

    def thumbnail(self, place_id: int) -> bytes:
        """JPEG of a place.

        Raises:
            MapError: no such place.
        """
        return self._store.thumbnail(place_id)

    def points(self, place_ids: Sequence[int]) -> list[bytes | None]:
        """Encoded points of places in the order asked for, None of one without; a MapError where they are damaged."""
        return self._store.points(place_ids)

    def global_descriptors(self) -> NDArray[np.float32]:
        """(N, D) float32, L2-normalised, before PCA."""
        blocks = list(self._stored_blocks(0))
        return np.concatenate(blocks) if blocks else np.empty((0, self.fingerprint.global_dim), np.float32)

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on disk of descriptors, thumbnails, points and index."""
        index = self.path / INDEX_NAME
        return {**self._store.bytes_by_part(), "index": index.stat().st_size if index.is_file() else 0}

    def get_property(self, key: str) -> bytes | None:
        """A small value that was stored with the map, such as its calibration."""
        return self._store.get_property(key)

    def set_property(self, key: str, value: bytes) -> None:
        """Store a small value with the map.

        Raises:
            MapError: opened read-only, or the disk is full.
        """
        self._require_writable()
        self._store.set_property(key, value)

    def fit_pca(self, dimension: int, examples: NDArray[np.float32] | None = None) -> None:
        """Index and save principal components of the global descriptors, theirs or those of (N, D) `examples`.

        Raises:
            ConfigError: fewer places, or examples, than dimensions.
            MapError: opened read-only.
        """
        self._require_writable()
        self._pca = fit_pca(self.global_descriptors() if examples is None else examples, dimension)
        self._store.set_property(_PCA_PROPERTY, self._pca.to_bytes())
        blocks = partial(self._descriptor_blocks, 0)
        self._index = DescriptorIndex.build(dimension, len(self), blocks, stays_exact=self._ONLINE)
        self.flush()

    def check(self) -> list[str]:
        """Read everything and compare it with its checksums, and the index with the places; returns problems."""
        problems = [*self._store.damaged(self.fingerprint.local_dim), *self._manifest.problems(len(self))]
        stored = self._manifest.stored_index(self.path, self.global_dim)
        try:
            return problems + index_problems(stored, self._descriptor_blocks(0))
        except MapError as error:
            return [*problems, str(error)]

    def close(self) -> None:
        """Close the store; unsaved places stay in it and are indexed at the next opening."""
        self._store.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        """Enter a context that closes the map."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def _writable(self) -> bool:
        return self._lock is not None

    def _require_writable(self) -> None:
        if not self._writable:
            raise MapError(f"map {self.path} is open read-only; open it with writable=True")

    def _project(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._pca.project(descriptors) if self._pca else descriptors

    def _descriptor_blocks(self, first_row: int) -> Iterator[NDArray[np.float32]]:
        return map(self._project, self._stored_blocks(first_row))

    def _stored_blocks(self, first_row: int) -> Iterator[NDArray[np.float32]]:
        if first_row < len(self):
            first_id, last_id = self._table.place_id(first_row), self._table.place_id(len(self) - 1)
            yield from self._store.descriptor_blocks(self.fingerprint.global_dim, first_id, last_id)


def _checked_pca(pca: PcaProjection, manifest: Manifest) -> PcaProjection:
    if len(pca.mean) != manifest.fingerprint.global_dim or len(pca.components) > len(pca.mean):
        raise MapFormatError(
            f"the stored PCA makes {len(pca.components)} numbers of {len(pca.mean)}, the map's descriptors have "
            f"{manifest.fingerprint.global_dim}; restore or rebuild the map"
        )
    return pca
