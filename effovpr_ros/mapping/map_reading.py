"""MapReader: what is asked of an open map, whether it lies in one folder or in shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import LocalFeatures, PackedLocal
from effovpr_ros.features.pca import PcaProjection
from effovpr_ros.mapping.codec import require_dimension
from effovpr_ros.mapping.earlier_places import EarlierPlaces
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.index_file import index_problems, load_index
from effovpr_ros.mapping.local_cache import CACHE_BYTES, LocalCache
from effovpr_ros.mapping.manifest import INDEX_NAME, Manifest
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.mapping.place_table import PlaceSource, PlaceTable
from effovpr_ros.mapping.positions import PlacePositions
from effovpr_ros.mapping.store import PlaceStore

if TYPE_CHECKING:
    from typing_extensions import Self

    from effovpr_ros.mapping.resident_codes import ResidentCodes

PCA_PROPERTY = "pca"


class MapReader:
    """The places of an open map, for queries; see `sharded_map.open_map`, and `PlaceMap`, which adds to it."""

    _ONLINE = False

    def __init__(self, path: Path, manifest: Manifest, store: PlaceStore, lock: FileLock | None) -> None:
        """Not for callers: see `PlaceMap.create` and `PlaceMap.open`. A lock makes it writable."""
        self.path = path
        self._manifest = manifest
        self._store = store
        self._lock = lock
        self._frames = store.pose_frames()
        self._places: PlaceSource = EarlierPlaces(store, manifest.datum) if store.guessed_below else store
        self._table = PlaceTable(self._places)
        self._positions = PlacePositions(store)
        self._pca = manifest.projection(store.get_property(PCA_PROPERTY))
        self._cache = LocalCache(CACHE_BYTES)
        self.resident: ResidentCodes | None = None
        self._index = self._load_index(len(self._pca.components) if self._pca else self.fingerprint.global_dim)

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
    def store(self) -> PlaceStore:
        """What is kept of its places, for those who copy them whole."""
        return self._store

    @property
    def place_source(self) -> PlaceSource:
        """Its places as this version knows them, of which it keeps none in memory."""
        return self._places

    @property
    def pca(self) -> PcaProjection | None:
        """The principal components that are indexed; None: the descriptors themselves are."""
        return self._pca

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
    def revision(self) -> str:
        """Short name of what the map holds, by what its manifest says: another one after every change of its places."""
        return sha256(repr(self._manifest).encode()).hexdigest()[:16]

    @property
    def places_sha256(self) -> str:
        """Checksum over all places, but not their local descriptors."""
        return self._store.checksum(len(self))

    def has_places_of(self, other: MapReader) -> bool:
        """Whether two maps hold the same places, whatever their local descriptors are."""
        return len(self) == len(other) and self.places_sha256 == other.places_sha256

    def __len__(self) -> int:
        """Number of places."""
        return len(self._table)

    def require_model(self, fingerprint: ModelFingerprint) -> None:
        """Refuse a model whose descriptors do not compare with the map's: ModelMismatchError names the differences."""
        self._manifest.require_model(self.path, fingerprint)

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

    def extent_xy(self) -> tuple[float, float, float, float] | None:
        """Least x and y and greatest x and y of the places in the map frame; None where no position is known."""
        return self._positions.extent_xy(self._table, self.datum)

    def places_near(self, centre_xy: tuple[float, float], radius_m: float) -> list[Place]:
        """The places of `rows_near`."""
        return self._table.at_rows(self.rows_near(centre_xy, radius_m).tolist())

    def local_features(self, place_ids: Sequence[int]) -> list[LocalFeatures]:
        """Local features of places; see `packed_local`."""
        return [local.unpacked() for local in self.packed_local(place_ids)]

    def packed_local(self, place_ids: Sequence[int]) -> list[PackedLocal]:
        """With packed codes, in the order asked for, some from memory; a MapError for a missing or damaged place."""
        return self._cache.features(place_ids, lambda ids: self._store.packed_local(ids, self.fingerprint.local_dim))

    def codes_on(self, device: str) -> ResidentCodes | None:
        """Codes of its places that stay on a GPU, the same for all who ask; None where places are not scored there."""
        if self.resident is None or self.resident.device != device:
            from effovpr_ros.mapping.resident_codes import ResidentCodes  # needs torch

            self.resident = ResidentCodes(self, device)
        return self.resident

    def place(self, place_id: int) -> Place:
        """One place.

        Raises:
            MapError: no such place.
        """
        return self._table.at_rows([self._table.row_of(place_id)])[0]

    def places(self, at_most: int | None = None) -> list[Place]:
        """All places by number; evenly chosen ones where there are more than `at_most`."""
        return self._table.places(at_most)

    def stored_sources(self, session: str) -> dict[tuple[str, int | None], set[str]]:
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

    def global_descriptor(self, place_id: int) -> NDArray[np.float32]:
        """(D,) float32, L2-normalised, of one place, before PCA; a MapError where there is none."""
        self._table.row_of(place_id)
        block = next(self._store.descriptor_blocks(self.fingerprint.global_dim, place_id, place_id))
        return np.asarray(block[0], np.float32)

    def folder_of(self, place_id: int) -> tuple[Path, int]:
        """Folder of the ordinary map that a place lies in, and its number there; a MapError where there is none."""
        self._table.row_of(place_id)
        return self.path, place_id

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
        self.resident = None
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

    def _require_writable(self) -> None:
        if self._lock is None:
            raise MapError(f"map {self.path} is open read-only; open it with writable=True")

    def _load_index(self, dimension: int) -> DescriptorIndex:
        """The index of the map, of descriptors of this dimension."""
        return load_index(
            self._manifest.stored_index(self.path, dimension),
            len(self),
            self._descriptor_blocks,
            writable=self._lock is not None,
            stays_exact=self._ONLINE,
        )

    def _project(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._pca.project(descriptors) if self._pca else descriptors

    def _descriptor_blocks(self, first_row: int) -> Iterator[NDArray[np.float32]]:
        return map(self._project, self._stored_blocks(first_row))

    def _stored_blocks(self, first_row: int) -> Iterator[NDArray[np.float32]]:
        if first_row < len(self):
            first_id, last_id = self._table.place_id(first_row), self._table.place_id(len(self) - 1)
            yield from self._store.descriptor_blocks(self.fingerprint.global_dim, first_id, last_id)
