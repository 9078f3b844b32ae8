"""VLAD of the backbone's local descriptors with a vocabulary from the map, as AnyLoc uses it (Keetha et al., 2023)."""

from __future__ import annotations

import time

import faiss
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.method import Answer, Query
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.recognition.recognizer import Latency

NUM_WORDS = 32
"""AnyLoc's number of clusters."""

# Local descriptors that the vocabulary is learnt from; 150 MB of a width of 384.
_SAMPLE = 100_000
_ITERATIONS = 25
_SEED = 0


class VladMethod:
    """One VLAD descriptor a place, exact cosine search.

    The confidence is (1 + cosine) / 2 of the best place: monotone in the similarity, and no probability.
    """

    calibrated = False

    def __init__(self, place_map: MapReader, top_k: int, num_words: int = NUM_WORDS) -> None:
        """Learn the vocabulary from the map and describe its places.

        Args:
            place_map: whose local descriptors are aggregated.
            top_k: most places in an answer.
            num_words: W, clusters of the vocabulary.

        Raises:
            EvaluationError: the map has fewer local descriptors than words.
        """
        self._top_k = top_k
        self._words = learn_words(_sample(place_map), num_words)
        self._index = DescriptorIndex(self._words.size, stays_exact=True)
        for place_id in range(len(place_map)):
            self._index.add(vlad(place_map.local_features([place_id])[0].descriptors, self._words)[None])
        self.bytes_per_place = float(self._words.size * np.dtype(np.float32).itemsize)

    def answer(self, query: Query) -> Answer:
        """See `evaluation.method.Method`; the latency of extraction includes the aggregation."""
        started = time.perf_counter()
        descriptor = vlad(query.features.local.descriptors, self._words)
        described = time.perf_counter()
        numbers, similarities = self._index.search(descriptor, self._top_k, among=query.allowed)
        searched = time.perf_counter()
        extract_ms, search_ms = query.extract_ms + (described - started) * 1e3, (searched - described) * 1e3
        confidence = (1.0 + float(similarities[0])) / 2.0 if len(numbers) else 0.0
        # Rounding may carry the cosine of an image with itself beyond 1.
        confidence = min(max(confidence, 0.0), 1.0)
        latency = Latency(extract_ms, search_ms, 0.0, 0.0, extract_ms + search_ms)
        return Answer(numbers.tolist(), confidence, None, latency)


def learn_words(descriptors: NDArray[np.float32], num_words: int) -> NDArray[np.float32]:
    """Cluster centres by k-means; the same descriptors give the same centres.

    Args:
        descriptors: (N, C) L2-normalised.
        num_words: W.

    Returns:
        (W, C) float32.

    Raises:
        EvaluationError: N < W.
    """
    if len(descriptors) < num_words:
        raise EvaluationError(
            f"vlad: the map's images have {len(descriptors)} local descriptors, too few for {num_words} words; "
            "use more images or lower --t1"
        )
    kmeans = faiss.Kmeans(
        descriptors.shape[1],
        num_words,
        niter=_ITERATIONS,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=len(descriptors),
    )
    kmeans.train(np.ascontiguousarray(descriptors, np.float32))
    return np.asarray(kmeans.centroids, np.float32)


def vlad(descriptors: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vector of locally aggregated descriptors with hard assignment (Jegou et al., CVPR 2010).

    Each word's sum of residuals is L2-normalised (intra-normalisation: Arandjelovic and Zisserman, CVPR 2013), then
    the whole.

    Args:
        descriptors: (N, C) L2-normalised; N may be 0.
        words: (W, C).

    Returns:
        (W * C,) float32, L2-normalised; zeros where there is no descriptor or no residual.
    """
    # The nearest word by distance; |descriptor|^2 is the same for all words.
    nearest = np.argmax(descriptors @ words.T - 0.5 * np.square(words).sum(axis=1), axis=1)
    assigned = np.zeros((len(words), len(descriptors)), np.float32)
    assigned[nearest, np.arange(len(descriptors))] = 1.0
    residuals = assigned @ (descriptors - words[nearest])
    return _normalised(_normalised(residuals).reshape(-1))


def _normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2-normalised along the last axis; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def _sample(place_map: MapReader) -> NDArray[np.float32]:
    """(N, C) local descriptors, as many of every place."""
    rng = np.random.default_rng(_SEED)
    most = max(1, _SAMPLE // max(1, len(place_map)))
    sample = [np.empty((0, place_map.fingerprint.local_dim), np.float32)]
    for place_id in range(len(place_map)):
        descriptors = place_map.local_features([place_id])[0].descriptors
        sample.append(descriptors[rng.permutation(len(descriptors))[:most]])
    return np.concatenate(sample)
