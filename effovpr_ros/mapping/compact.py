"""An existing map with shorter local descriptors, without its images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from effovpr_ros.core.errors import MapError
from effovpr_ros.features.codes import decode, encode
from effovpr_ros.features.extractor import Features, LocalFeatures
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.local_projection import (
    AUTO,
    FULL,
    FacetSource,
    LocalProjection,
    choose_projection,
    codes_name,
    setting_for_codes,
)
from effovpr_ros.features.tails import find_tail, tail_of_map
from effovpr_ros.mapping.manifest import INDEX_NAME
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.store import STORE_NAME, PlaceStore
from effovpr_ros.matching.reranking import RerankConfig, Reranker

_COMMIT_PLACES = 256
_MAX_COMPARED = 50
_NEIGHBOURS = 20


@dataclass(frozen=True)
class CompactReport:
    """What a conversion did.

    Attributes:
        places: of the map.
        local_codes: name of the new codes, see `ModelFingerprint`.
        local_bytes_before: of the local descriptors.
        local_bytes_after: likewise.
        file_bytes_before: of the file with the places, all of it.
        file_bytes_after: likewise.
        compared: places, spread over the map, that were looked up among others before and after.
        agreed: of them, those whose best other place stayed the same; neighbours that look alike may change places.
    """

    places: int
    local_codes: str
    local_bytes_before: int
    local_bytes_after: int
    file_bytes_before: int
    file_bytes_after: int
    compared: int
    agreed: int


def compact_map(path: Path, out: Path | None = None, progress: Callable[[int], object] | None = None) -> CompactReport:
    """Convert a map's local descriptors to the short codes that come with this package for its model.

    The new map is written beside the old one, a few hundred places in memory at a time, compared with it, and then
    takes its place; a kill leaves the old map whole (between two renamings as `MAP.before`, which the next call puts
    back). Numbers, poses, sessions, thumbnails and the index stay. A stored calibration stays too but does not
    count any more, since it was fitted to other codes.

    Args:
        path: of the map.
        out: folder of the new map, which does not exist yet; None to replace the map.
        progress: called with the number of places converted since the last call.

    Raises:
        MapError: the codes are short already, there are none for the model, `out` exists, the map is damaged, the disk
            is full, or the converted map does not recognise its own places.
    """
    target = out or path
    before, partial = (path.with_name(f"{path.name}.before"), target.with_name(f"{target.name}.compacting"))
    _put_back(before, path)
    if out is not None and out.exists():
        raise MapError(f"{out} exists already; choose a new folder for the compact map")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with PlaceMap.open(path) as source:
            projection = _projection(source)
            _convert(source, partial, projection, progress)
            with PlaceMap.open(partial) as compacted:
                report = _compare(source, compacted)
        if out is None:
            shutil.rmtree(before, ignore_errors=True)
            path.rename(before)
        partial.rename(target)
        if out is None:
            shutil.rmtree(before)
    except OSError as error:
        raise MapError(f"{target} cannot be written: {error.strerror}; free some space") from error
    finally:
        _put_back(before, path)
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _put_back(before: Path, path: Path) -> None:
    """Undo the first of two renamings if the second did not follow."""
    if not path.exists() and before.exists():
        before.rename(path)


def _projection(source: PlaceMap) -> LocalProjection:
    model = source.fingerprint
    if setting_for_codes(model.local_codes) != FULL:
        raise MapError(f"map {source.path} has short local descriptors already ({model.local_codes})")
    facets = FacetSource(_network(model), model.local_block, model.facet, model.centered)
    projection = choose_projection(AUTO, facets)
    if projection is None:
        raise MapError(
            f"map {source.path}: no projection comes with this package for {facets}; maps of the default model and "
            "block can be compacted, others keep descriptors of full length"
        )
    return projection


def _network(model: ModelFingerprint) -> str:
    """Fingerprint of the weights that local descriptors came from."""
    if model.tail_sha256:
        _, tail = find_tail(model.architecture, "", tail_of_map(model.tail_sha256, ""))
        if tail is not None and tail.weights:
            return tail.sha256
    return model.weights_sha256


def _convert(
    source: PlaceMap, folder: Path, projection: LocalProjection, progress: Callable[[int], object] | None
) -> None:
    """Write the converted map: a copy whose local descriptors are replaced."""
    folder.mkdir(parents=True)
    model, places = source.fingerprint, source.places()
    with closing(PlaceStore(source.path, writable=False)) as store:
        store.copy_to(folder)
    with closing(PlaceStore(folder)) as copy:
        for start in range(0, len(places), _COMMIT_PLACES):
            place_ids = [place.place_id for place in places[start : start + _COMMIT_PLACES]]
            features = copy.features(place_ids, model.global_dim, model.local_dim)
            copy.replace_local(place_ids, [_projected(item, projection) for item in features])
            if progress:
                progress(len(place_ids))
        copy.vacuum()
    if (source.path / INDEX_NAME).is_file():
        shutil.copyfile(source.path / INDEX_NAME, folder / INDEX_NAME)
    replace(source.manifest, fingerprint=compact_fingerprint(model, projection)).write(folder)


def _projected(features: Features, projection: LocalProjection) -> Features:
    codes = encode(projection.project(decode(features.local.codes)))
    return replace(features, local=LocalFeatures(codes, features.local.cells_xy))


def compact_fingerprint(model: ModelFingerprint, projection: LocalProjection) -> ModelFingerprint:
    """A model's fingerprint with projected local descriptors."""
    return replace(model, local_dim=projection.dimension, local_codes=codes_name(projection))


def _compare(source: PlaceMap, compacted: PlaceMap) -> CompactReport:
    """Look places up among their most similar ones, by the descriptors of either map.

    Raises:
        MapError: a place of the converted map resembles another one more than itself.
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, min(len(source), _MAX_COMPARED), dtype=np.int64))
    everywhere = source.places()
    descriptors = source.global_descriptors() if len(chosen) else np.empty((0, 0), np.float32)
    reranker, agreed = Reranker(RerankConfig()), 0
    for row in chosen:
        own = everywhere[row].place_id
        found = source.search(descriptors[row], _NEIGHBOURS + 1)
        others = [candidate.place.place_id for candidate in found if candidate.place.place_id != own]
        if not others:
            agreed += 1
            continue
        best_before = _scores(source, reranker, own, others)
        best_after = _scores(compacted, reranker, own, others)
        if best_after[0] < max(best_after[1:]) or best_before[0] > 0.0 >= best_after[0]:
            raise MapError(
                f"place {own} of the converted map does not recognise itself, so map {source.path} stays as it is; "
                "see `effovpr map check`"
            )
        agreed += int(np.argmax(best_before[1:]) == np.argmax(best_after[1:]))
    before, after = source.bytes_by_part(), compacted.bytes_by_part()
    return CompactReport(
        places=len(source),
        local_codes=compacted.fingerprint.local_codes,
        local_bytes_before=before["local_descriptors"],
        local_bytes_after=after["local_descriptors"],
        file_bytes_before=(source.path / STORE_NAME).stat().st_size,
        file_bytes_after=(compacted.path / STORE_NAME).stat().st_size,
        compared=len(chosen),
        agreed=agreed,
    )


def _scores(place_map: PlaceMap, reranker: Reranker, own: int, others: Sequence[int]) -> list[float]:
    """Scores of a place as query against itself and others."""
    query, *candidates = place_map.local_features([own, *others])
    return [item.score for item in reranker.score(query, [query, *candidates])]
