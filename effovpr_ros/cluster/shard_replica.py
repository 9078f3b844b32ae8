"""What one replica of one shard answers: search, re-ranking and matching where the data lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from effovpr_ros.core.version import version
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.geometry.points import Points
from effovpr_ros.mapping.manifest import read_manifest
from effovpr_ros.mapping.map_reading import PCA_PROPERTY
from effovpr_ros.mapping.open_shards import OpenShards
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.store import PlaceStore
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import ThirdStage, VerifiedCandidate


@dataclass(frozen=True, eq=False)
class Matched:
    """Places that were matched with a query.

    Attributes:
        candidates: without the descriptors of their points, which nobody needs any more; numbers are the shard's.
        coarse: numbers of those whose points are from a stored picture that is much too small.
    """

    candidates: tuple[VerifiedCandidate, ...]
    coarse: tuple[int, ...]


class ShardReplica:
    """One open shard, asked by numbers of its own; for one thread."""

    def __init__(self, folder: str, name: str, num_threads: int) -> None:
        """Open the shard.

        Args:
            folder: of the whole map.
            name: of the shard.
            num_threads: of torch.

        Raises:
            MapError: the shard is missing, damaged, or not the one that the map names.
        """
        torch.set_num_threads(num_threads)
        path = Path(folder)
        manifest = read_manifest(path)
        entries = [entry for entry in manifest.shards if entry.name == name]
        whole = PlaceStore(path, writable=False)
        try:
            pca = whole.get_property(PCA_PROPERTY)
        finally:
            whole.close()
        # Closed with the process.
        self._open = OpenShards(path, entries, manifest.fingerprint, pca, 2**62)
        with self._open.use(0) as shard:
            self._shard = shard
        self._rerankers: dict[RerankConfig, Reranker] = {}
        self._third_stage = ThirdStage(self._shard, RecognizerConfig())

    def about(self) -> tuple[str, int]:
        """Version of the package here, and number of places."""
        return version(), len(self._shard)

    def search(
        self, descriptor: NDArray[np.float32], top_k: int, among: NDArray[np.int64] | range | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of the shard and similarities; see `DescriptorIndex.search`."""
        return self._shard.descriptor_index.search(descriptor, top_k, among=among)

    def rows_near(self, centre_xy: tuple[float, float], radius_m: float) -> NDArray[np.int64]:
        """Rows of the shard; see `MapReader.rows_near`."""
        return self._shard.rows_near(centre_xy, radius_m)

    def places(self, numbers: Sequence[int]) -> list[Place]:
        """Places by ascending number."""
        return self._shard.place_source.places(numbers)

    def points(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Encoded points of places, in the order asked for."""
        return self._shard.points(numbers)

    def thumbnail(self, number: int) -> bytes:
        """JPEG of a place."""
        return self._shard.thumbnail(number)

    def score(self, query: LocalFeatures, numbers: Sequence[int], config: RerankConfig) -> list[CandidateScore]:
        """Score places, in the order asked for; see `Reranker.score`."""
        reranker = self._rerankers.setdefault(config, Reranker(config))
        return reranker.score(query, self._shard.packed_local(numbers))

    def match(self, query: Points, numbers: Sequence[int]) -> Matched:
        """Match places with points of a query, in the order asked for."""
        found = self._third_stage.matched(query, [self._shard.place(number) for number in numbers])
        bare = tuple(
            replace(item, points=replace(item.points, descriptors=item.points.descriptors[:, :0])) for item in found
        )
        return Matched(bare, tuple(number for number in numbers if self._third_stage.is_coarse(number)))
