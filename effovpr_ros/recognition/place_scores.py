"""Re-ranking scores of places: by a GPU that keeps their codes, or by the CPU."""

from __future__ import annotations

from collections.abc import Sequence

from effovpr_ros.features.image_features import Features
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker


class PlaceScorer:
    """Scores places of one map against queries.

    Attributes:
        reranker: that compares on the CPU.
    """

    def __init__(self, place_map: MapReader, config: RerankConfig, device: str) -> None:
        """Join map and device.

        Args:
            place_map: whose places are scored.
            config: how.
            device: of the model: where that is a GPU, it scores too.
        """
        self.reranker = Reranker(config)
        self._map = place_map
        self._resident = None if device == "cpu" else place_map.codes_on(device)

    def load(self) -> None:
        """Read now what a GPU keeps; at once where there is none, or it was read."""
        if self._resident is not None:
            self._resident.fill()

    def scores(self, features: Features, place_ids: Sequence[int]) -> list[CandidateScore]:
        """Scores of places, in the order asked for.

        Args:
            features: of the query.
            place_ids: numbers of the places.

        Raises:
            DescriptorShapeError: the query is of another model.
            MapError: no such place, or damaged.
        """
        if self._resident is not None:
            return self._resident.score(features.local, place_ids, self.reranker.config)
        return self.reranker.score(features.local, self._map.packed_local(place_ids))
