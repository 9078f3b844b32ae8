"""Shards of a map that are open now: opened when they are asked for, and let go beyond a bound in bytes."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from effovpr_ros.core.errors import EffoVPRError, MapError, MapFormatError, ModelMismatchError
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.manifest import INDEX_NAME, MANIFEST_NAME
from effovpr_ros.mapping.map_reading import PCA_PROPERTY
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.shards import ShardEntry

_logger = logging.getLogger(__name__)

# Numbers, positions, the places' table of an open shard.
_BYTES_PER_PLACE = 64


class Shard(PlaceMap):
    """An open shard, whose parts the whole map reads."""

    @property
    def descriptor_index(self) -> DescriptorIndex:
        """That is searched."""
        return self._index

    @property
    def size_bytes(self) -> int:
        """What it may take of the memory: its index, whether mapped or read, and what is kept of each place."""
        index = self.path / INDEX_NAME
        # An index that is missing was made anew in memory.
        stored = index.stat().st_size if index.is_file() else 4 * self.global_dim * len(self)
        return stored + _BYTES_PER_PLACE * len(self)


@dataclass
class _Held:
    shard: Shard
    size_bytes: int
    users: int = 0


class OpenShards:
    """Opens shards and lets go those that were not used for longest; for any number of threads."""

    def __init__(
        self,
        folder: Path,
        entries: Sequence[ShardEntry],
        fingerprint: ModelFingerprint,
        pca: bytes | None,
        max_bytes: int,
    ) -> None:
        """Open none yet, but see that all are there.

        Args:
            folder: of the whole map.
            entries: its shards.
            fingerprint: of its model.
            pca: projection that all shards must have; None: none.
            max_bytes: of the shards that stay open while nobody uses them; those in use count, and are never let go.

        Raises:
            MapError: a shard is missing.
            MapFormatError: a shard is not the one that the map names.
        """
        self._folder = folder
        self._entries = entries
        self._fingerprint = fingerprint
        self._pca = pca
        self._max_bytes = max_bytes
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._lock = threading.Condition()
        self._opening: set[int] = set()
        self._warned = False
        for entry in entries:
            self._require_same(entry)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the shards that are open now."""
        with self._lock:
            return tuple(self._entries[number].name for number in sorted(self._held))

    @property
    def are_all_open(self) -> bool:
        """Whether every shard is open now."""
        with self._lock:
            return len(self._held) == len(self._entries)

    @contextmanager
    def use(self, number: int) -> Iterator[Shard]:
        """A shard by its position in the list; it stays open inside.

        Raises:
            MapError: missing, damaged, or not the one that the map names.
            ModelMismatchError: of another model.
        """
        held = self._take(number)
        try:
            yield held.shard
        finally:
            with self._lock:
                held.users -= 1
            self._let_go()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            held, self._held = self._held, OrderedDict()
        for item in held.values():
            item.shard.close()

    def _take(self, number: int) -> _Held:
        with self._lock:
            # Two threads do not open one shard twice.
            self._lock.wait_for(lambda: number not in self._opening)
            if number in self._held:
                self._held.move_to_end(number)
                self._held[number].users += 1
                return self._held[number]
            self._opening.add(number)
        try:
            shard = self._open(self._entries[number])
            held = _Held(shard, shard.size_bytes, 1)
            with self._lock:
                self._held[number] = held
            return held
        finally:
            with self._lock:
                self._opening.discard(number)
                self._lock.notify_all()

    def _let_go(self) -> None:
        leaving = []
        with self._lock:
            size_bytes = sum(held.size_bytes for held in self._held.values())
            for number, held in list(self._held.items()):
                if size_bytes <= self._max_bytes:
                    break
                if not held.users:
                    leaving.append(self._held.pop(number))
                    size_bytes -= held.size_bytes
            warns, self._warned = bool(leaving) and not self._warned, self._warned or bool(leaving)
        for held in leaving:
            held.shard.close()
        if warns:
            _logger.info(
                "map %s: its shards do not all fit into %d MB and are opened again when they are asked for; "
                "give hints, or more memory",
                self._folder,
                self._max_bytes // 10**6,
            )

    def _open(self, entry: ShardEntry) -> Shard:
        self._require_same(entry)
        path = self._folder / entry.path
        try:
            shard = Shard.open(path)
        except EffoVPRError as error:
            raise type(error)(f"shard {entry.name} of map {self._folder}: {error}") from error
        try:
            differences = self._fingerprint.differences(shard.fingerprint)
            if differences:
                raise ModelMismatchError(
                    f"shard {entry.name} of map {self._folder} is of another model (map != shard): "
                    f"{'; '.join(differences)}; build that shard again with the map's model"
                )
            if len(shard) != entry.num_places:
                raise MapFormatError(
                    f"shard {entry.name} of map {self._folder} has {len(shard)} places, the map names "
                    f"{entry.num_places}; {_REMEDY}"
                )
            if shard.get_property(PCA_PROPERTY) != self._pca:
                raise MapFormatError(
                    f"shard {entry.name} of map {self._folder} has principal components of its own, so that its "
                    f"similarities do not compare with others'; {_REMEDY}"
                )
        except BaseException:
            shard.close()
            raise
        return shard

    def _require_same(self, entry: ShardEntry) -> None:
        """Refuse a shard whose manifest is not the one that the whole map names."""
        path = self._folder / entry.path / MANIFEST_NAME
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise MapError(
                f"shard {entry.name} of map {self._folder} is missing ({path}: {error.strerror}); {_REMEDY}"
            ) from error
        if found != entry.sha256:
            raise MapFormatError(
                f"shard {entry.name} of map {self._folder} was changed: {path} does not fit the checksum in the map; "
                f"{_REMEDY}"
            )


_REMEDY = "restore its folder from a copy, or make the map again with `effovpr map shard` or `map build --cluster`"
