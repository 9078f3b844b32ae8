"""A map whose shards are open in replicas elsewhere: it answers as a `ShardedMap`, all shards at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.cluster.calls import Calls
from effovpr_ros.cluster.shard_replica import Matched
from effovpr_ros.core.files import usable_path
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.mapping.manifest import read_manifest
from effovpr_ros.mapping.open_shards import OpenShards, Shard
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.sharded_map import ShardedMap
from effovpr_ros.mapping.sharded_store import ShardedStore
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore
from effovpr_ros.recognition.extracts import Extracts
from effovpr_ros.recognition.place_scores import PlaceScorer
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import ThirdStage, VerifiedCandidate

Item = TypeVar("Item")
Of = TypeVar("Of")


class RemoteShard:
    """One shard as its replicas answer; what a `Shard` of this process is asked for."""

    def __init__(self, calls: Calls, handle: Any) -> None:
        """Ask nothing yet.

        Args:
            calls: by which it is asked.
            handle: of its deployment.
        """
        self._calls, self._handle = calls, handle
        # A shard's store, index and places are asked by the same names.
        self.store = self.place_source = self.descriptor_index = self

    def search(
        self, descriptor: NDArray[np.float32], top_k: int, *, among: NDArray[np.int64] | range | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of the shard and similarities."""
        found: tuple[NDArray[np.int64], NDArray[np.float32]]
        found = self._calls.ask(self._handle.search, descriptor, top_k, among)
        return found

    def rows_near(self, centre_xy: tuple[float, float], radius_m: float) -> NDArray[np.int64]:
        """Rows of the shard."""
        return cast("NDArray[np.int64]", self._calls.ask(self._handle.rows_near, centre_xy, radius_m))

    def places(self, numbers: Sequence[int]) -> list[Place]:
        """Places by ascending number."""
        return cast("list[Place]", self._calls.ask(self._handle.places, list(numbers)))

    def points(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Encoded points of places."""
        return cast("list[bytes | None]", self._calls.ask(self._handle.points, list(numbers)))

    def thumbnail(self, number: int) -> bytes:
        """JPEG of a place."""
        return cast(bytes, self._calls.ask(self._handle.thumbnail, number))

    def score(self, query: Any, numbers: Sequence[int], config: RerankConfig) -> list[CandidateScore]:
        """Score places."""
        return cast("list[CandidateScore]", self._calls.ask(self._handle.score, query, list(numbers), config))

    def match(self, query: Points, numbers: Sequence[int]) -> Matched:
        """Match places."""
        return cast(Matched, self._calls.ask(self._handle.match, query, list(numbers)))


class _RemoteShards(OpenShards):
    def __init__(self, shards: Sequence[RemoteShard]) -> None:
        self._remote = shards

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @contextmanager
    def use(self, number: int) -> Iterator[Shard]:
        yield cast(Shard, self._remote[number])

    def close(self) -> None:
        """Others may ask the replicas still."""


class ClusterStore(ShardedStore):
    """Asks all shards at a time."""

    calls: Calls

    def each(self, function: Callable[[Item], Of], items: Sequence[Item]) -> list[Of]:
        """A function of each item, all at a time."""
        return self.calls.all(function, list(items))


class ClusterMap(ShardedMap):
    """An open map whose shards are asked in their replicas."""

    _store: ClusterStore

    @classmethod
    def connect(cls, path: str | Path, calls: Calls, handles: Mapping[str, Any]) -> ClusterMap:
        """Open what belongs to the whole map.

        Args:
            path: of its folder.
            calls: by which replicas are asked.
            handles: of the deployments by names of shards.

        Raises:
            MapError: missing or damaged, or its shards are others.
        """
        folder = usable_path(path)
        manifest = read_manifest(folder)
        store = ClusterStore(folder, manifest, 0, writable=False)
        store.calls = calls
        store.shards = _RemoteShards([RemoteShard(calls, handles[entry.name]) for entry in manifest.shards])
        try:
            return cls(folder, manifest, store, None)
        except BaseException:
            store.close()
            raise

    def scores(self, features: Features, place_ids: Sequence[int], config: RerankConfig) -> list[CandidateScore]:
        """Score places where they lie, in the order asked for; see `Reranker.score`."""
        return self._store.ask(
            place_ids, lambda shard, numbers: cast(RemoteShard, shard).score(features.local, numbers, config)
        )

    def matched(self, query: Points, place_ids: Sequence[int]) -> tuple[list[VerifiedCandidate], set[int]]:
        """Match places where they lie; in the order asked for, and the numbers of those whose points are coarse."""

        def match(shard: Shard, numbers: Sequence[int]) -> list[tuple[VerifiedCandidate, bool]]:
            found = cast(RemoteShard, shard).match(query, numbers)
            return [(item, number in found.coarse) for item, number in zip(found.candidates, numbers, strict=True)]

        answers = self._store.ask(place_ids, match)
        candidates = [
            VerifiedCandidate(place_id, item.points, item.matches)
            for place_id, (item, _) in zip(place_ids, answers, strict=True)
        ]
        return candidates, {place_id for place_id, (_, coarse) in zip(place_ids, answers, strict=True) if coarse}


class _ClusterStage(ThirdStage):
    """Matches places where they lie."""

    def __init__(self, cluster_map: ClusterMap, config: RecognizerConfig) -> None:
        super().__init__(cluster_map, config)
        self._cluster_map = cluster_map

    def load(self) -> bool:
        return True

    def _in_time(self, places: Sequence[Place], ends: float) -> Sequence[Place]:
        # All at a time: each trip takes longer than a few more places.
        return places

    def matched(self, query: Points, places: Sequence[Place]) -> list[VerifiedCandidate]:
        found, coarse = self._cluster_map.matched(query, [place.place_id for place in places])
        self._coarse |= coarse
        return found


class _ClusterScorer(PlaceScorer):
    """Scores places where they lie."""

    def __init__(self, cluster_map: ClusterMap, config: RerankConfig) -> None:
        super().__init__(cluster_map, config, "cpu")
        self._cluster_map = cluster_map

    def scores(self, features: Features, place_ids: Sequence[int]) -> list[CandidateScore]:
        return self._cluster_map.scores(features, place_ids, self.reranker.config)


class ClusterRecognizer(PlaceRecognizer):
    """Recognises places of a map whose shards are elsewhere; for one thread."""

    def __init__(self, extractor: Extracts, cluster_map: ClusterMap, config: RecognizerConfig) -> None:
        """Join model and map; see `PlaceRecognizer`."""
        scorer = _ClusterScorer(cluster_map, RerankConfig(config.score, config.min_similarity))
        super().__init__(extractor, cluster_map, config, third_stage=_ClusterStage(cluster_map, config), scorer=scorer)
