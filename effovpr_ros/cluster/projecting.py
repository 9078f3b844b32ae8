"""Principal components of a map in shards: those of all its places, by which each shard is searched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from effovpr_ros.cluster.parts import REPORT_NAME, PartReport
from effovpr_ros.core.files import write_atomically
from effovpr_ros.features.pca import PcaProjection, fit_pca
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.map_reading import PCA_PROPERTY
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.shard_joining import describe_shard, shard_flat_limit

PROJECTION_NAME = "projection.npz"


def project_shards(
    folder: Path, reports: Mapping[int, PartReport], total: int, dimension: int, known: PcaProjection | None
) -> tuple[PcaProjection, dict[int, PartReport]]:
    """Index shards by principal components. What a kill leaves undone, the next call does.

    Args:
        folder: of the whole map.
        reports: of its new shards.
        total: places of the whole map.
        dimension: how many components there will be.
        known: the components of the map that the shards are added to; None: they are found in the shards' places,
            whose descriptors have to fit into memory.

    Returns:
        The components, and the reports of the shards as they are now.

    Raises:
        ConfigError: fewer places than components.
        MapError: a shard is damaged, or cannot be written.
    """
    made = [report for _, report in sorted(reports.items()) if report.shard is not None]
    pca = known or _components(folder, made, dimension)
    return pca, {**reports, **{report.number: _project(folder, report, pca, total) for report in made}}


def _components(folder: Path, made: list[PartReport], dimension: int) -> PcaProjection:
    path = folder / PROJECTION_NAME
    if path.is_file():
        return PcaProjection.from_bytes(path.read_bytes())
    blocks = []
    for report in made:
        assert report.shard is not None
        with PlaceMap.open(folder / report.shard.entry.path) as shard:
            blocks.append(shard.global_descriptors())
    pca = fit_pca(np.concatenate(blocks), dimension)
    # Shards are changed one after the other, all by the same numbers.
    write_atomically(path, pca.to_bytes())
    return pca


def _project(folder: Path, report: PartReport, pca: PcaProjection, total: int) -> PartReport:
    assert report.shard is not None
    path = report.shard.entry.path
    manifest = folder / path / MANIFEST_NAME
    with PlaceMap.open(folder / path, writable=True) as shard:
        is_same = shard.get_property(PCA_PROPERTY) == pca.to_bytes()
        if is_same and hashlib.sha256(manifest.read_bytes()).hexdigest() == report.shard.entry.sha256:
            return report
        shard.set_pca(pca)
        limit = shard_flat_limit(total, shard.global_dim)
        if len(shard) > limit:
            shard.reindex(limit)
        shard.flush()
        report = replace(report, shard=describe_shard(shard, path))
    write_atomically(folder / path / REPORT_NAME, report.to_json().encode())
    return report
