"""Measure a map in shards on made-up places: `python scripts/measure_shards.py FOLDER [--places 1000000] [--shards 8]`.

Descriptors are those of drives, queries are second visits to places (`lab.benchmarks.synthetic`); the truth is an exact
search over all descriptors in one array. Prints one JSON object. FOLDER keeps the map, to be measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.features.codes import LOCAL_CODES
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.lab.benchmarks.synthetic import drives, second_visits
from effovpr_ros.mapping.codec import as_stored
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER, join_shards, shard_flat_limit, shard_name
from effovpr_ros.mapping.sharded_map import open_map

_COMMIT_PLACES = 4096
_TOP_K = 20


def main() -> None:
    """Make the map if it is not there, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--places", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=400)
    options = parser.parse_args()
    descriptors = np.concatenate(list(drives(options.places, options.dimension)))
    figures: dict[str, object] = {"places": options.places, "shards": options.shards, "dimension": options.dimension}
    if not (options.folder / "map.yaml").is_file():
        figures["built_s"] = _make(options, descriptors)
    queries = second_visits(descriptors, options.queries)
    truth = _exact(as_stored(descriptors), queries)
    del descriptors
    everything = 2**40
    started = time.perf_counter()
    with open_map(options.folder, shard_bytes=everything) as place_map:
        figures["opening_s"] = time.perf_counter() - started
        started = time.perf_counter()
        place_map.search(queries[0], _TOP_K)
        figures["first_search_s"] = time.perf_counter() - started
        figures |= _answers(place_map, queries, truth)
        whole = sum(path.stat().st_size for path in options.folder.glob(f"{SHARDS_FOLDER}/*/index.faiss"))
        figures["index_bytes"] = whole
    half = whole // 2
    before = _anonymous_bytes()
    with open_map(options.folder, shard_bytes=half) as place_map:
        most = 0
        for query in queries[:10]:
            place_map.search(query, _TOP_K)
            most = max(most, _anonymous_bytes() - before)
        figures["with_half_the_bytes"] = {
            "shard_bytes": half,
            "shards_open": len(place_map.loaded),
            "grown_bytes": most,
        }  # type: ignore[attr-defined]
    print(json.dumps(figures, indent=1))


def _make(options: argparse.Namespace, descriptors: NDArray[np.float32]) -> float:
    model = ModelFingerprint(
        *("made_up", "0" * 64, 28, "none", options.dimension, 4, 1, "value", False, "cls", 0.05, 0, LOCAL_CODES)
    )
    local = LocalFeatures(7 * np.eye(4, dtype=np.int8), np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.uint8))
    started = time.perf_counter()
    paths, firsts = [], []
    for number, part in enumerate(np.array_split(np.arange(options.places), options.shards)):
        paths.append(f"{SHARDS_FOLDER}/{shard_name(number)}")
        firsts.append(int(part[0]))
        with PlaceMap.create(options.folder / paths[-1], fingerprint=model) as shard:
            new = (
                NewPlace(
                    *("drive", place + 1, f"{place}.jpg", Pose.from_yaw(float(place % 1000), place / 1e3, 0.0)),
                    *(None, (64, 48), b"\xff\xd8\xff\xd9", Features(descriptors[place], local, (2, 2))),
                )
                for place in part.tolist()
            )
            while batch := list(islice(new, _COMMIT_PLACES)):
                shard.add(batch)
            limit = shard_flat_limit(options.places, options.dimension)
            if len(shard) > limit and shard.manifest.index.kind == "flat":
                shard.reindex(limit)
            shard.flush()
        print(f"shard {number + 1} of {options.shards} after {time.perf_counter() - started:.0f} s", flush=True)
    join_shards(options.folder, paths, firsts)
    return time.perf_counter() - started


def _exact(descriptors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """(Q, K) numbers of the most similar places, best first."""
    found = np.empty((len(queries), _TOP_K), np.int64)
    for start in range(0, len(queries), 50):
        similarity = queries[start : start + 50] @ descriptors.T
        best = np.argpartition(-similarity, _TOP_K, axis=1)[:, :_TOP_K]
        order = np.argsort(-np.take_along_axis(similarity, best, axis=1), axis=1)
        found[start : start + 50] = np.take_along_axis(best, order, axis=1)
    return found


def _answers(place_map: MapReader, queries: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, object]:
    times, first, overlap = [], 0, 0
    for query, expected in zip(queries, truth, strict=True):
        started = time.perf_counter()
        found = [candidate.place.place_id for candidate in place_map.search(query, _TOP_K)]
        times.append(time.perf_counter() - started)
        first += found[0] == expected[0]
        overlap += len({*found} & {*expected.tolist()})
    return {
        "search_ms": {f"p{level}": 1e3 * float(np.percentile(times, level)) for level in (50, 90, 99)},
        "same_answer": first / len(queries),
        "recall_at_20": overlap / truth.size,
    }


def _anonymous_bytes() -> int:
    """Memory of this process that no file backs, which the system cannot drop."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


if __name__ == "__main__":
    main()
