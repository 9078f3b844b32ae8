"""One query on a large map, stage by stage, and re-ranking by number of candidates beside doing it on demand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from effovpr_ros.core.images import decode_image
from effovpr_ros.features.devices import wait_for
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features, PackedLocal
from effovpr_ros.lab.benchmarks.synthetic import second_visits
from effovpr_ros.lab.benchmarks.timing import Timing
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

LIMIT_MS, LIMIT_SHARE = 15.0, 0.4
"""What everything beside the network may take: the larger of this and this share of the network's time."""

_ON_DEMAND_BATCH = 8


@dataclass(frozen=True)
class QueryFigures:
    """From a JPEG to the answer, stages of the same queries.

    Attributes:
        engine: that ran the network.
        places: of the map.
        candidates: re-ranked.
        decode: JPEG to pixels.
        preprocess: pixels to the network's input.
        network: its forward pass, by the engine.
        describe: its output to global and local descriptors.
        search: of the first stage.
        rerank: with local descriptors read from the map.
        rerank_cached: of the same query asked again, which finds them in memory.
        verify: the third stage where it runs: points of the query, and candidates whose points the map keeps.
        decide: status, confidence, pose and covariance.
        around: all but the network, of each query.
        limit_ms: what `around` should not exceed: 15 ms, or 40 % of the network where that is more.
    """

    engine: str
    places: int
    candidates: int
    decode: Timing
    preprocess: Timing
    network: Timing
    describe: Timing
    search: Timing
    rerank: Timing
    rerank_cached: Timing
    verify: Timing
    decide: Timing
    around: Timing
    limit_ms: float


@dataclass(frozen=True)
class RerankFigures:
    """Re-ranking of K candidates.

    Attributes:
        candidates: K.
        read: with local descriptors read from the map.
        cached: with local descriptors in memory.
        on_demand: with local descriptors extracted anew from stored images, by the same engine.
        times_as_fast: `on_demand` by `read`, medians.
    """

    candidates: int
    read: Timing
    cached: Timing
    on_demand: Timing
    times_as_fast: float


class ImagesOnlyMap(PlaceMap):
    """A map used as if it kept images instead of local descriptors, which take no space then.

    Attributes:
        extractor: of the local descriptors, set before the first query.
    """

    extractor: FeatureExtractor

    def packed_local(self, place_ids: Sequence[int]) -> list[PackedLocal]:
        """Local features of places, extracted from their pictures."""
        found: list[PackedLocal] = []
        for start in range(0, len(place_ids), _ON_DEMAND_BATCH):
            batch = place_ids[start : start + _ON_DEMAND_BATCH]
            images = [decode_image(self.thumbnail(place_id), f"thumbnail {place_id}") for place_id in batch]
            found += [features.local.packed for features in self.extractor.extract(images)]
        return found

    def codes_on(self, device: str) -> None:
        """None are kept: what is extracted is compared on the CPU."""


def measure_query(
    extractor: FeatureExtractor, path: Path, jpegs: Sequence[bytes], config: RecognizerConfig, rounds: int
) -> QueryFigures:
    """Ask a map one query after the other, each for other places.

    Args:
        extractor: of the map's model.
        path: of the map.
        jpegs: images to ask with, in turn.
        config: of recognition.
        rounds: queries.
    """
    parts: dict[str, list[float]] = {}
    with PlaceMap.open(path) as place_map:
        recognizer = PlaceRecognizer(extractor, place_map, config)
        visits = _visits(place_map, rounds + 1)
        for number, visit in enumerate(visits):
            found = _one_query(extractor, recognizer, jpegs[number % len(jpegs)], visit)
            if number:  # the first opens files and starts threads
                for name, spent_ms in found.items():
                    parts.setdefault(name, []).append(spent_ms)
        timings = {name: Timing.of(times_ms) for name, times_ms in parts.items()}
        limit_ms = max(LIMIT_MS, LIMIT_SHARE * timings["network"].median_ms)
        return QueryFigures(extractor.engine.name, len(place_map), config.top_k, **timings, limit_ms=round(limit_ms, 3))


def measure_reranking(
    extractor: FeatureExtractor,
    path: Path,
    query: Features,
    base: RecognizerConfig,
    counts: Sequence[int],
    rounds: int,
    on_demand_rounds: int,
) -> list[RerankFigures]:
    """Re-rank by K, from descriptors and on demand.

    Args:
        extractor: of the map's model.
        path: of the map.
        query: whose local features are matched.
        base: of recognition, but for K.
        counts: values of K.
        rounds: queries of each K, each for other places.
        on_demand_rounds: likewise of the slow way.
    """
    rows = []
    for count in counts:
        config = replace(base, top_k=count)
        # Opened anew, nothing is in its memory.
        with PlaceMap.open(path) as place_map, ImagesOnlyMap.open(path) as images_only:
            images_only.extractor = extractor
            recognizer = PlaceRecognizer(extractor, place_map, config)
            asked = [replace(query, global_descriptor=visit) for visit in _visits(place_map, rounds + 1)]
            read, cached = [], []
            for features in asked:
                read.append(recognizer.recognize_features(features).latency_ms.rerank)
                cached.append(recognizer.recognize_features(features).latency_ms.rerank)
            slow = PlaceRecognizer(extractor, images_only, config)
            on_demand = [slow.recognize_features(item).latency_ms.rerank for item in asked[-on_demand_rounds:]]
        timings = Timing.of(read[1:]), Timing.of(cached[1:]), Timing.of(on_demand)
        ratio = timings[2].median_ms / timings[0].median_ms
        rows.append(RerankFigures(count, *timings, times_as_fast=round(ratio, 1)))
    return rows


@torch.inference_mode()
def _one_query(
    extractor: FeatureExtractor, recognizer: PlaceRecognizer, jpeg: bytes, visit: NDArray[np.float32]
) -> dict[str, float]:
    """Milliseconds by stage; fields as in `QueryFigures`."""
    moments = [time.perf_counter()]

    def lap() -> None:
        wait_for(extractor.device)
        moments.append(time.perf_counter())

    image = decode_image(jpeg, "the query")
    lap()
    pixels = extractor.pixels([image])
    lap()
    output = extractor.engine.run(pixels)
    lap()
    features = replace(extractor.features(output)[0], global_descriptor=visit)
    lap()
    decode, preprocess, network, describe = (1e3 * float(spent) for spent in np.diff(moments))
    latency = recognizer.recognize_features(features).latency_ms
    again = recognizer.recognize_features(features)
    stage, started = recognizer.third_stage, time.perf_counter()
    stage.verify(lambda: stage.extractor.extract(image), again.candidates, len(features.local))
    verify_ms = (time.perf_counter() - started) * 1e3
    return {
        "decode": decode,
        "preprocess": preprocess,
        "network": network,
        "describe": describe,
        "search": latency.search,
        "rerank": latency.rerank,
        "rerank_cached": again.latency_ms.rerank,
        "verify": verify_ms,
        "decide": latency.decide,
        "around": decode + preprocess + describe + latency.total,
    }


def _visits(place_map: MapReader, count: int) -> NDArray[np.float32]:
    return second_visits(place_map.global_descriptors(), count)
