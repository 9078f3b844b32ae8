"""Re-ranking scores of places: by a GPU that keeps their codes, or by the CPU, that scores few of many in full."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from effovpr_ros.features.image_features import Features
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Candidate
from effovpr_ros.matching.cascade import score_candidates
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.same_place import is_same_place


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

    def scores(
        self, features: Features, candidates: Sequence[Candidate], config: RecognizerConfig
    ) -> list[CandidateScore]:
        """Scores of candidates, in the order of the first stage; those that cannot win may be estimates.

        Args:
            features: of the query.
            candidates: of the first stage.
            config: what counts as one place.

        Raises:
            DescriptorShapeError: the query is of another model.
            MapError: no such place, or damaged.
        """
        places = [candidate.place for candidate in candidates]
        place_ids = [place.place_id for place in places]
        if self._resident is not None:
            # All in full: with a coarse pass the GPU would be asked and waited for two or three times.
            return self._resident.score(features.local, place_ids, self.reranker.config)

        def score(numbers: Sequence[int], every_other: bool) -> list[CandidateScore]:
            return self.on_cpu(features, [place_ids[number] for number in numbers], every_other=every_other)

        # The best candidate is asked about again after each round, and is mostly the same.
        @functools.cache
        def elsewhere(best: int) -> set[int]:
            return {n for n, place in enumerate(places) if not is_same_place(places[best], place, config)}

        return score_candidates(len(features.local), len(places), score, elsewhere)

    def on_cpu(self, features: Features, place_ids: Sequence[int], *, every_other: bool) -> list[CandidateScore]:
        """Scores of places by all keypoints, or by every other; see `Reranker.score`."""
        local = self._map.local_features(place_ids)
        return self.reranker.score(features.local, local, every_other=every_other)
