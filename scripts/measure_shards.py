"""Measure a map in shards on made-up places: `python scripts/measure_shards.py FOLDER [--places 1000000] [--shards 8]`.

Descriptors are those of drives, queries are second visits to places (`lab.benchmarks.synthetic`); the truth is an exact
search over all descriptors in one array. Prints one JSON object. FOLDER keeps the map, to be measured again.

With --whole the places have local features as long as those of the shipped model and its name (24 kB a place), so that
`effovpr serve FOLDER` opens it; with --url a server of it is asked instead, by one client, with features alone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.poses import Pose
from effovpr_ros.features.codes import LOCAL_CODES
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig, ModelFingerprint
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.lab.benchmarks.synthetic import drives, second_visits
from effovpr_ros.mapping.codec import as_stored
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER, join_shards, shard_flat_limit, shard_name
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.remote.client import MapServer
from effovpr_ros.remote.queries import FeatureQuery, encode_query

_COMMIT_PLACES = 4096
_TOP_K = 20
_PICTURES = 16
_WARM = 20


def main() -> None:
    """Make the map if it is not there, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--places", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    descriptors = np.concatenate(list(drives(options.places, options.dimension)))
    figures: dict[str, object] = {"places": options.places, "shards": options.shards, "dimension": options.dimension}
    if not (options.folder / "map.yaml").is_file():
        figures["built_s"] = _make(options, descriptors)
    queries = second_visits(descriptors, options.queries)
    if options.url:
        print(json.dumps(_ask(options.url, queries), indent=1))
        return
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


def _model_and_features(options: argparse.Namespace) -> tuple[ModelFingerprint, list[Features]]:
    """A model, and features whose global descriptors are to be replaced."""
    if not options.whole:
        model = ModelFingerprint(
            *("made_up", "0" * 64, 28, "none", options.dimension, 4, 1, "value", False, "cls", 0.05, 0, LOCAL_CODES)
        )
        local = LocalFeatures(7 * np.eye(4, dtype=np.int8), np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.uint8))
        return model, [Features(np.zeros(options.dimension, np.float32), local, (2, 2))]
    extractor = FeatureExtractor(ExtractorConfig(device="cpu", engine="torch"))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (12, 16, 3), np.uint8) for _ in range(_PICTURES)]
    smooth = [np.asarray(cv2.resize(picture, (640, 480)), np.uint8) for picture in pictures]
    return extractor.fingerprint, extractor.extract(smooth)


def _ask(url: str, queries: NDArray[np.float32]) -> dict[str, object]:
    """How long a server takes, beyond the model: all of a question with features."""
    with MapServer(url, timeout_s=120.0) as server:
        info = server.info()
        options = argparse.Namespace(whole=True)
        _, features = _model_and_features(options)
        times: list[float] = []
        stages: dict[str, list[float]] = {}
        for number, query in enumerate(queries):
            seen = replace(features[number % len(features)], global_descriptor=query)
            body = encode_query(FeatureQuery(seen, (640, 480)), info.model)
            started = time.perf_counter()
            answers = server.localize_features(body)
            times.append(time.perf_counter() - started)
            for name, value in asdict(answers.results[0].latency_ms).items():
                stages.setdefault(name, []).append(value)
    # The first ones open shards.
    first, times = times[0], times[_WARM:]
    return {
        "places": info.places,
        "shards": info.shards,
        "first_s": first,
        "beyond_the_model_ms": {f"p{level}": 1e3 * float(np.percentile(times, level)) for level in (50, 90, 99)},
        "p50_of_stages_ms": {name: round(float(np.median(values[_WARM:])), 1) for name, values in stages.items()},
    }


def _make(options: argparse.Namespace, descriptors: NDArray[np.float32]) -> float:
    model, features = _model_and_features(options)
    started = time.perf_counter()
    paths, firsts = [], []
    for number, part in enumerate(np.array_split(np.arange(options.places), options.shards)):
        paths.append(f"{SHARDS_FOLDER}/{shard_name(number)}")
        firsts.append(int(part[0]))
        with PlaceMap.create(options.folder / paths[-1], fingerprint=model) as shard:
            new = (
                NewPlace(
                    *("drive", place + 1, f"{place}.jpg", Pose.from_yaw(float(place % 1000), place / 1e3, 0.0)),
                    *(None, (64, 48), b"\xff\xd8\xff\xd9"),
                    replace(features[place % len(features)], global_descriptor=descriptors[place]),
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
