"""The first stage by size of the map."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from effovpr_ros.lab.benchmarks.synthetic import drives, second_visits
from effovpr_ros.lab.benchmarks.timing import Timing
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.index_file import write_index

SHORT_DIM = 128

_QUERIES = 200
_EXACT_QUERIES = 20
_FOUND = 100
# Short descriptors are trained or principal components, whose directions spread; longer ones share a direction.
_SHARED, _COSINE = 0.7, 0.9


@dataclass(frozen=True)
class SearchFigures:
    """Search among N places.

    Attributes:
        places: N.
        dimension: of the descriptors.
        kind: of the index, see `mapping.index.IndexSummary`.
        time: of one query for 100 places.
        exact: of one query against every descriptor in float32.
        recall_at_10: of ten nearest, found among the first ten, against the exact search.
        build_s: making the index.
        bytes_per_place: of the index file.
    """

    places: int
    dimension: int
    kind: str
    time: Timing
    exact: Timing
    recall_at_10: float
    build_s: float
    bytes_per_place: float


def measure_search(places: int, dimension: int) -> SearchFigures:
    """Build an index of drives and ask it for places seen a second time.

    Args:
        places: N.
        dimension: of the descriptors.
    """
    shared = 0.0 if dimension <= SHORT_DIM else _SHARED
    blocks = list(drives(places, dimension, shared=shared))
    descriptors = np.concatenate(blocks)
    queries = second_visits(descriptors, _QUERIES, cosine=0.8 if dimension <= SHORT_DIM else _COSINE)
    exact = faiss.IndexFlatIP(dimension)
    exact.add(descriptors)
    wanted = exact.search(queries, 10)[1]
    exact_ms = [_spent_ms(partial(exact.search, query[None], _FOUND)) for query in queries[:_EXACT_QUERIES]]
    exact.reset()
    del descriptors
    started = time.perf_counter()
    index = DescriptorIndex.build(dimension, places, lambda: blocks)
    build_s = time.perf_counter() - started
    with tempfile.TemporaryDirectory(prefix="effovpr_bench_") as folder:
        file = Path(folder) / "index.faiss"
        write_index(index, file)
        size = file.stat().st_size
    hits = [
        len({*row.tolist()} & {*index.search(query, _FOUND)[0][:10].tolist()})
        for query, row in zip(queries, wanted, strict=True)
    ]
    times_ms = [_spent_ms(partial(index.search, query, _FOUND)) for query in queries]
    return SearchFigures(
        places,
        dimension,
        index.summary.kind,
        Timing.of(times_ms),
        Timing.of(exact_ms),
        round(sum(hits) / wanted.size, 4),
        round(build_s, 2),
        round(size / places, 1),
    )


def _spent_ms(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e3
