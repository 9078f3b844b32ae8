"""Short codes of descriptors: what `DescriptorIndex` searches where comparing all descriptors would take long.

Each descriptor is turned by one random rotation, which spreads its variance evenly, and product-quantised to four bits
for two or four dimensions (Andre et al., "Quicker ADC", PAMI 2021). All codes are compared, then the best descriptors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

# docs/maps.md has the measurements that chose these.
TRAINING_SAMPLE = 50_000
WANTED_RECALL = 0.98
BLOCK = 2**15
# Of descriptors of at most so many dimensions, two share four bits, of longer ones four.
_NARROW_UP_TO = 256
# From the fewest on, doubled until the wanted recall is reached.
_FEWEST_RESCORED = 400
_MOST_RESCORED = 6400
_LEAST_PER_RESULT = 2
_QUERIES = 200
_RECALL_AT = 10
# Cosine of a query with the place that it shows, as two visits to one place have.
_QUERY_COSINE = 0.8
_SEED = 5


def make_codes(sample: NDArray[np.float32]) -> Any:
    """An empty index of codes, learned from descriptors like those to come, and of the descriptors themselves in fp16.

    Args:
        sample: (S, D) float32, L2-normalised.

    Returns:
        A trained `faiss.IndexRefine`.
    """
    dimension = sample.shape[1]
    rotation: Any = faiss.RandomRotationMatrix(dimension, dimension)
    rotation.init(_SEED)
    widths = (4, 2, 1) if dimension > _NARROW_UP_TO else (2, 1)
    width = next(width for width in widths if dimension % width == 0)
    codes: Any = faiss.IndexPQFastScan(dimension, dimension // width, 4, faiss.METRIC_INNER_PRODUCT)
    whole: Any = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index: Any = faiss.IndexRefine(faiss.IndexPreTransform(rotation, codes), whole)
    index.train(np.ascontiguousarray(sample, np.float32))
    return index


def search_codes(
    index: Any, queries: NDArray[np.float32], top_k: int, rescored: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare all codes, and the descriptors of the best.

    Args:
        index: of `make_codes`.
        queries: (Q, D) float32.
        top_k: K, not more than there are.
        rescored: how many descriptors are compared; at least twice K.

    Returns:
        (Q, K) cosines and (Q, K) numbers.
    """
    compared = min(int(index.ntotal), max(rescored, _LEAST_PER_RESULT * top_k))
    parameters = faiss.IndexRefineSearchParameters(k_factor=compared / top_k)  # type: ignore[call-arg]
    similarity, number = index.search(queries, top_k, params=parameters)
    return similarity, number


def search_whole(
    index: Any, queries: NDArray[np.float32], top_k: int, among: Sequence[int] | NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare descriptors, not codes: exact.

    Args:
        index: flat descriptors.
        queries: (Q, D) float32.
        top_k: K, not more than there are.
        among: numbers that may be returned; None for all.

    Returns:
        (Q, K) cosines and (Q, K) numbers.
    """
    if among is None:
        chosen: Any = None
    elif isinstance(among, range) and among.step == 1:
        chosen = faiss.IDSelectorRange(among.start, among.stop)
    else:
        admitted = np.zeros(index.ntotal, bool)
        admitted[np.asarray(among, np.int64)] = True
        bits: Any = np.packbits(admitted, bitorder="little")
        chosen = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg]
    similarity, number = index.search(queries, top_k, params=faiss.SearchParameters(sel=chosen))  # type: ignore[call-arg]
    return similarity, number


def choose_rescored(index: Any) -> tuple[int, float]:
    """Choose how many descriptors are compared after the codes, by recall@10 against exact search.

    Queries are places turned in the direction that two other places differ in, as far as a second visit is from the
    first. The fewest are chosen that reach `WANTED_RECALL` on half of the queries.

    Args:
        index: of `make_codes`, with more descriptors than two.

    Returns:
        The number, and the recall@10 that it reaches on the other half of the queries.
    """
    rng = np.random.default_rng(0)
    whole = index.refine_index
    rows = rng.integers(0, index.ntotal, 3 * _QUERIES)
    shown, other, third = np.split(whole.reconstruct_batch(rows), 3)
    queries = turned(shown, other - third, _QUERY_COSINE)
    exact = search_whole(whole, queries, min(_RECALL_AT, index.ntotal), None)[1]
    choosing, reporting = slice(0, _QUERIES, 2), slice(1, _QUERIES, 2)
    rescored = _FEWEST_RESCORED
    while rescored < _MOST_RESCORED and _recall(index, queries[choosing], exact[choosing], rescored) < WANTED_RECALL:
        rescored *= 2
    return rescored, _recall(index, queries[reporting], exact[reporting], rescored)


def turned(descriptors: NDArray[np.float32], towards: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
    """Descriptors turned in a direction until they have this cosine with what they were.

    Args:
        descriptors: (N, D) float32, L2-normalised.
        towards: (N, D) directions; where one is along the descriptor, the descriptor stays.
        cosine: in (0, 1].
    """
    aside = towards - np.sum(towards * descriptors, axis=1, keepdims=True) * descriptors
    norm = np.linalg.norm(aside, axis=1, keepdims=True)
    mixed = cosine * descriptors + math.sqrt(1.0 - cosine**2) * aside / np.maximum(norm, 1e-3)
    return np.ascontiguousarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def remove_codes(index: Any, numbers: Collection[int]) -> None:
    """Remove descriptors; those that follow take lower numbers. Codes are made again, seconds for a million.

    Args:
        index: of `make_codes`, in memory.
        numbers: of the descriptors.
    """
    whole = index.refine_index
    whole.remove_ids(faiss.IDSelectorBatch(np.fromiter(numbers, np.int64)))
    index.base_index.reset()
    for block in descriptor_blocks(whole):
        index.base_index.add(block)
    index.ntotal = whole.ntotal


def descriptor_blocks(whole: Any) -> Iterable[NDArray[np.float32]]:
    """(M, D) float32 descriptors of a flat index, block by block."""
    for start in range(0, whole.ntotal, BLOCK):
        yield whole.reconstruct_n(start, min(BLOCK, whole.ntotal - start))


def _recall(index: Any, queries: NDArray[np.float32], exact: NDArray[np.int64], rescored: int) -> float:
    found = search_codes(index, queries, exact.shape[1], rescored)[1]
    return sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True)) / exact.size
