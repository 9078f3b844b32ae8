"""Search in maps of up to a million places, and their opening: `make bench`. Descriptors come in drives."""

from __future__ import annotations

import statistics
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import FINGERPRINT

from effovpr_ros.lab.benchmarks.synthetic import drives, second_visits
from effovpr_ros.mapping.index import DescriptorIndex, flat_limit
from effovpr_ros.mapping.index_file import write_index
from effovpr_ros.mapping.place_map import PlaceMap

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]
DRIVE = 1000
# All descriptors of the 512-D default share a direction; the cosine is of a query with the place that it shows.
SHARED = {128: 0.0, 512: 0.7}
QUERY_COSINE = {128: 0.8, 512: 0.9}


def uniform(count: int, dimension: int) -> Iterator[NDArray[np.float32]]:
    """Random directions: the hardest descriptors, as no real place has them."""
    rng = np.random.default_rng(0)
    for start in range(0, count, 50 * DRIVE):
        block = rng.standard_normal((min(50 * DRIVE, count - start), dimension), dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def median_ms(times_s: list[float]) -> float:
    return statistics.median(times_s) * 1e3


@pytest.mark.parametrize("kind", ["drives", "uniform"])
@pytest.mark.parametrize(("count", "dimension"), [(10**5, 128), (10**6, 128), (10**5, 512), (10**6, 512)])
def test_search(kind: str, count: int, dimension: int, tmp_path: Path):
    blocks = list(drives(count, dimension, shared=SHARED[dimension]) if kind == "drives" else uniform(count, dimension))
    descriptors = np.concatenate(blocks)
    queries = second_visits(descriptors, 200, cosine=QUERY_COSINE[dimension])
    exact = faiss.IndexFlatIP(dimension)
    exact.add(descriptors)
    right, flat_s = [], []
    for query in queries:
        started = time.perf_counter()
        right.append(set(exact.search(query[None], 10)[1][0].tolist()))
        flat_s.append(time.perf_counter() - started)
    del exact
    started = time.perf_counter()
    index = DescriptorIndex.build(dimension, count, lambda: blocks)
    build_s = time.perf_counter() - started
    write_index(index, tmp_path / "index.faiss")
    size = (tmp_path / "index.faiss").stat().st_size / count
    hits, times_s = 0, []
    for query, wanted in zip(queries, right, strict=True):
        started = time.perf_counter()
        numbers, _ = index.search(query, 100)
        times_s.append(time.perf_counter() - started)
        hits += len(wanted & set(numbers[:10].tolist()))
    among_ms = {}
    for name, some in {"99 %": range(count * 99 // 100), "1000": np.arange(0, count, count // 1000)}.items():
        among_s = []
        for query in queries[:30]:
            started = time.perf_counter()
            index.search(query, 100, among=some)
            among_s.append(time.perf_counter() - started)
        among_ms[name] = round(median_ms(among_s), 2)
    recall, p50, p90 = hits / 10 / len(queries), median_ms(times_s), float(np.percentile(times_s, 90)) * 1e3
    print(
        f"\n{count} x {dimension} {kind}: {index.summary}, flat {median_ms(flat_s):.2f} ms, p50 {p50:.2f} ms, "
        f"p90 {p90:.2f} ms, recall@10 {recall:.4f}, among {among_ms} ms, build {build_s:.1f} s, {size:.0f} B a place"
    )
    assert index.is_exact == (count <= flat_limit(dimension))
    if kind == "drives":
        assert recall >= 0.98
    if (count, dimension, kind) == (10**6, 128, "drives"):
        assert p50 < 2.0


def large_map(folder: Path, count: int, dimension: int) -> Path:
    """A map without local descriptors and pictures, written past `PlaceMap.add`, which takes minutes for a million."""
    fingerprint = replace(FINGERPRINT, global_dim=dimension)
    with PlaceMap.create(folder, fingerprint=fingerprint) as place_map:
        connection = place_map._store._database._connection
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        place_id = 0
        for block in drives(count, dimension, shared=SHARED[dimension]):
            rows, descriptors = [], []
            for values in block.astype("<f2"):
                drive = f"drive {place_id // DRIVE // 100}"
                key = (place_id, drive, place_id, f"{place_id}.jpg", float(place_id), 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
                row = (*key, None, None, None, 640, 480)
                blob = values.tobytes()
                rows.append((*row, 23, 23, zlib.crc32(blob, zlib.crc32(repr(row).encode()))))
                descriptors.append((place_id, blob))
                place_id += 1
            connection.executemany(f"INSERT INTO places VALUES ({', '.join('?' * 19)})", rows)
            connection.executemany("INSERT INTO global_descriptors VALUES (?, ?)", descriptors)
        connection.execute("COMMIT")
    with PlaceMap.open(folder, writable=True) as place_map:
        place_map.flush()
    return folder


@pytest.mark.parametrize(
    ("count", "dimension", "limit_s"), [(10**4, 512, 0.5), (10**5, 512, 2.0), (10**6, 128, 8.0), (10**6, 512, 10.0)]
)
def test_opening_a_map(tmp_path: Path, count: int, dimension: int, limit_s: float):
    folder = large_map(tmp_path / "map", count, dimension)
    program = """
        import statistics, sys, time
        import numpy as np
        from effovpr_ros.mapping.place_map import PlaceMap

        def memory_mb(kind):
            lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024

        before = memory_mb("RssAnon")
        started = time.perf_counter()
        place_map = PlaceMap.open(sys.argv[1])
        opened_s = time.perf_counter() - started
        opened_mb = memory_mb("RssAnon") - before
        queries = np.random.default_rng(0).normal(size=(50, place_map.fingerprint.global_dim)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)

        def median_ms(near):
            times = []
            for query in queries:
                started = time.perf_counter()
                place_map.search(query, 100, within=place_map.rows_near((5000.0, 0.0), 50.0) if near else None)
                times.append(time.perf_counter() - started)
            return statistics.median(times) * 1e3

        searched_ms = median_ms(False)
        started = time.perf_counter()
        place_map.rows_near((5000.0, 0.0), 50.0)
        first_hint_s = time.perf_counter() - started
        print(
            f"opened in {opened_s:.2f} s, {opened_mb:.0f} MB; search {searched_ms:.2f} ms; first hint "
            f"{first_hint_s:.2f} s, then {median_ms(True):.2f} ms; "
            f"{memory_mb('RssAnon') - before:.0f} MB and {memory_mb('RssFile'):.0f} MB of files"
        )
        print(opened_s)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(program), str(folder)], capture_output=True, text=True, check=True
    )
    said, opened_s = done.stdout.splitlines()
    print(f"\n{count} places x {dimension}: {said}")
    assert float(opened_s) < limit_s
