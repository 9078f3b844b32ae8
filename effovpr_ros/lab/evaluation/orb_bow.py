"""ORB features in a bag of words, as classical SLAM recognises places (DBoW2: Galvez-Lopez and Tardos, T-RO 2012)."""

from __future__ import annotations

import logging
import time

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.lab.evaluation.method import Answer, Query
from effovpr_ros.mapping.builder import shrink
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.recognition.recognizer import Latency

_logger = logging.getLogger(__name__)

NUM_FEATURES = 1000
NUM_WORDS = 4096

_ORB_BYTES = 32
# ORB features that the vocabulary is learnt from.
_SAMPLE = 100_000
_ITERATIONS = 10
_SEED = 0
# A sparse entry is a word number and a weight.
_BYTES_PER_WORD = 4 + 4


class OrbBowMethod:
    """ORB on the map's thumbnails, words from the map, tf-idf weights and the L1 score.

    The confidence is the score of the best place, in [0, 1] and no probability. Places that share no word with the
    query are no candidates.
    """

    calibrated = False

    def __init__(self, place_map: MapReader, top_k: int, num_words: int = NUM_WORDS) -> None:
        """Learn the vocabulary from the map and describe its places.

        Args:
            place_map: with a thumbnail of every place.
            top_k: most places in an answer.
            num_words: most words of the vocabulary.

        Raises:
            EvaluationError: no ORB feature in any of the map's images.
        """
        self._top_k = top_k
        self._orb = cv2.ORB.create(nfeatures=NUM_FEATURES)
        images = [_read_grey(place_map, place_id) for place_id in range(len(place_map))]
        # Queries are shrunk to the size of the thumbnails, so that both are seen at one scale.
        self._longest_side = max((max(image.shape) for image in images), default=1)
        features = [self._describe(image) for image in images]
        self._words = learn_words(_sample(features), num_words)
        histograms = sparse.vstack([histogram(found, self._words) for found in features], format="csr")
        self._idf = inverse_document_frequency(histograms)
        self._places = weigh(histograms, self._idf).tocsc()
        self.bytes_per_place = _BYTES_PER_WORD * self._places.nnz / len(features)

    def answer(self, query: Query) -> Answer:
        """See `evaluation.method.Method`; the network's features and their latency play no part."""
        image = query.frame.load()
        started = time.perf_counter()
        features = self._describe(_to_grey(shrink(image, self._longest_side)))
        weights = weigh(histogram(features, self._words), self._idf)
        described = time.perf_counter()
        scores = l1_scores(weights, self._places)
        if query.allowed is not None:
            admitted = np.zeros(len(scores), bool)
            admitted[query.allowed] = True
            scores = np.where(admitted, scores, 0.0)
        order = np.argsort(-scores, kind="stable")[: self._top_k]
        ranked = order[scores[order] > 0.0]
        searched = time.perf_counter()
        extract_ms, search_ms = (described - started) * 1e3, (searched - described) * 1e3
        latency = Latency(extract_ms, search_ms, 0.0, 0.0, extract_ms + search_ms)
        return Answer(ranked.tolist(), float(scores[ranked[0]]) if len(ranked) else 0.0, None, latency)

    def _describe(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, 32) uint8 ORB descriptors of a (H, W) image; N may be 0."""
        _, descriptors = self._orb.detectAndCompute(grey, None)
        return np.empty((0, _ORB_BYTES), np.uint8) if descriptors is None else np.asarray(descriptors, np.uint8)


def learn_words(descriptors: NDArray[np.uint8], num_words: int) -> NDArray[np.uint8]:
    """Binary cluster centres by k-majority (Grana et al., "A fast approach for integrating ORB descriptors", 2013).

    Each descriptor goes to the centre of the least Hamming distance, each bit of a centre to the majority of its
    members. The same descriptors give the same centres.

    Args:
        descriptors: (N, B) uint8, 8 bits a byte.
        num_words: W.

    Returns:
        (W, B) uint8; all distinct descriptors where these are fewer than W.

    Raises:
        EvaluationError: N is 0.
    """
    if not len(descriptors):
        raise EvaluationError(
            "orb-bow: no image of the map has an ORB feature (blank, blurred or too small); leave the method out"
        )
    words = np.unique(descriptors, axis=0)
    if len(words) <= num_words:
        _logger.info("orb-bow: %d distinct features are all words; %d were wanted", len(words), num_words)
        return words
    words = words[np.random.default_rng(_SEED).choice(len(words), num_words, replace=False)]
    for _ in range(_ITERATIONS):
        nearest = nearest_words(descriptors, words)
        order = np.argsort(nearest, kind="stable")
        used, first, members = np.unique(nearest[order], return_index=True, return_counts=True)
        ones = np.add.reduceat(np.unpackbits(descriptors[order], axis=1), first, axis=0, dtype=np.int32)
        moved = words.copy()
        moved[used] = np.packbits(2 * ones > members[:, None], axis=1)
        if np.array_equal(moved, words):
            break
        words = moved
    return words


def nearest_words(descriptors: NDArray[np.uint8], words: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of the word of the least Hamming distance: (N, B) and (W, B) uint8 to (N,) int64."""
    if not len(descriptors):
        return np.empty(0, np.int64)
    index = faiss.IndexBinaryFlat(8 * words.shape[1])
    index.add(words)
    _, nearest = index.search(np.ascontiguousarray(descriptors), 1)
    return np.asarray(nearest[:, 0], np.int64)


def histogram(descriptors: NDArray[np.uint8], words: NDArray[np.uint8]) -> sparse.csr_array:
    """How often each word occurs in an image: (N, B) and (W, B) uint8 to (1, W) float64."""
    numbers, counts = np.unique(nearest_words(descriptors, words), return_counts=True)
    rows = np.zeros(len(numbers), np.int64)
    return sparse.csr_array((counts.astype(np.float64), (rows, numbers)), shape=(1, len(words)))


def inverse_document_frequency(histograms: sparse.csr_array) -> NDArray[np.float64]:
    """ln(M / M_w) of each word that M_w of M images have: (M, W) to (W,); 0 for a word of no image."""
    images = np.bincount(histograms.indices, minlength=histograms.shape[1])
    return np.where(images > 0, np.log(histograms.shape[0] / np.maximum(images, 1)), 0.0)


def weigh(histograms: sparse.csr_array, idf: NDArray[np.float64]) -> sparse.csr_array:
    """Term frequency times inverse document frequency, each row's sum scaled to 1.

    Args:
        histograms: (M, W) counts of words.
        idf: (W,).

    Returns:
        (M, W) without zeros; a row is empty where no word tells images apart.
    """
    # The length of an image, which term frequencies are divided by, cancels in the scaling.
    weights = sparse.csr_array(histograms.multiply(idf[None]))
    weights.eliminate_zeros()
    sums = weights.sum(axis=1)
    weights.data /= np.repeat(sums, np.diff(weights.indptr))
    return weights


def l1_scores(query: sparse.csr_array, places: sparse.csc_array) -> NDArray[np.float64]:
    """Score 1 - |q - p| / 2 of vectors whose sums are 1 (DBoW2, eq. 2), which is the sum of min(q, p).

    Only the columns of the query's words are read: an inverted index.

    Args:
        query: (1, W) weights.
        places: (M, W) weights.

    Returns:
        (M,) in [0, 1]; 0 where no word is common.
    """
    common = places[:, query.indices]
    common.data = np.minimum(common.data, np.repeat(query.data, np.diff(common.indptr)))
    return np.asarray(common.sum(axis=1), np.float64)


def _to_grey(image: RgbImage) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _read_grey(place_map: MapReader, place_id: int) -> NDArray[np.uint8]:
    """(H, W) uint8 thumbnail."""
    jpeg = np.frombuffer(place_map.thumbnail(place_id), np.uint8)
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE), np.uint8)


def _sample(features: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(N, 32) ORB descriptors, as many of every image."""
    rng = np.random.default_rng(_SEED)
    most = max(1, _SAMPLE // max(1, len(features)))
    return np.concatenate(
        [np.empty((0, _ORB_BYTES), np.uint8), *(found[rng.permutation(len(found))[:most]] for found in features)]
    )
