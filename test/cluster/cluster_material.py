"""A folder and a bag whose places are known, the plain build of each, and how both ways are compared."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from synthetic import picture, tiny_extractor

from effovpr_ros.cluster.building import ClusterReport, Runner, build_shards
from effovpr_ros.cluster.parts import PartReport
from effovpr_ros.cluster.shard_builder import ShardBuilder
from effovpr_ros.cluster.versions import this_version
from effovpr_ros.cluster.work import Part, ShardJob, WorkSource, list_work
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_origins import join_session
from effovpr_ros.sources.map_source import MapSource, open_source


@dataclass(frozen=True)
class TinyConfig(ExtractorConfig):
    """Of the tiny network, which a worker knows once it has imported this module to read the configuration."""


BUILD = BuildConfig(spacing_m=1.5, batch_size=4)
"""Images are 1 m apart, so every second one becomes a place."""


def make_folder(folder: Path, count: int = 40, broken: Sequence[int] = (), first: int = 0) -> Path:
    """Images 1 m apart along x, from `first` m on, with a table; some are no pictures."""
    folder.mkdir(parents=True)
    with (folder / "poses.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "stamp", "x", "y", "z"])
        for number in range(first, first + count):
            name = f"{number:03d}.png"
            table.writerow([name, number + 1, float(number), 0.0, 0.0])
            if number in broken:
                (folder / name).write_bytes(b"no picture")
            else:
                cv2.imwrite(str(folder / name), cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))
    return folder


def open_folder(folder: Path) -> MapSource:
    return open_source(folder, table=folder / "poses.csv")


def build_plain(*sources: MapSource, out: Path, extractor: FeatureExtractor, pca: int = 0) -> Path:
    with PlaceMap.create(out, fingerprint=extractor.fingerprint) as place_map:
        for source in sources:
            join_session(place_map, source.session, source.origin)
            build_map(place_map, extractor, source.frames(), BUILD)
        if pca:
            place_map.fit_pca(pca)
    return out


def work_source(source: MapSource) -> WorkSource:
    topic = source.bag.image_topic if source.bag is not None else ""
    return WorkSource(str(source.path), topic, source.session, "", source.origin, None)


def job_for(source: MapSource, out: str, extractor: FeatureExtractor, **changed: Any) -> ShardJob:
    job = ShardJob(
        version=this_version(),
        out=out,
        name="city",
        sources=(work_source(source),),
        max_pixels=10**8,
        frame_id="map",
        datum=None,
        recognition={},
        extractor=TinyConfig(**{item.name: getattr(extractor.config, item.name) for item in fields(extractor.config)}),
        fingerprint=extractor.fingerprint,
        build=BUILD,
        with_points=False,
        total=source.total,
    )
    return replace(job, **changed)


def run_here(job: ShardJob, parts: Sequence[Part]) -> Iterator[PartReport]:
    """Without Ray, one after the other."""
    builder = ShardBuilder(job)
    return map(builder.build, parts)


def build_cut(source: MapSource, job: ShardJob, part_places: int, run: Runner = run_here, **more: Any) -> ClusterReport:
    items, _ = list_work(source, BUILD)
    return build_shards(job, [items], part_places, run, **more)


def require_same(cut: MapReader, plain: MapReader, descriptors_within: float = 0.0) -> None:
    """Places, descriptors, codes and answers of two maps are the same."""
    assert cut.places() == plain.places()
    assert cut.sessions == plain.sessions
    assert (cut.frame_id, cut.datum) == (plain.frame_id, plain.datum)
    np.testing.assert_allclose(cut.global_descriptors(), plain.global_descriptors(), rtol=0, atol=descriptors_within)
    numbers = [place.place_id for place in plain.places()]
    for number, mine, theirs in zip(numbers, cut.local_features(numbers), plain.local_features(numbers), strict=True):
        np.testing.assert_array_equal(mine.codes, theirs.codes)
        np.testing.assert_array_equal(mine.cells_xy, theirs.cells_xy)
        assert cut.thumbnail(number) == plain.thumbnail(number)
    for query in plain.global_descriptors():
        found, expected = cut.search(query, 5), plain.search(query, 5)
        assert [item.place for item in found] == [item.place for item in expected]


def extractor_in(folder: Path) -> FeatureExtractor:
    folder.mkdir(exist_ok=True)
    return tiny_extractor(folder)
