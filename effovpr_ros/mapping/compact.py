"""An existing map with shorter local descriptors, without its images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.files import exchange, replaced_file, sync_folder, usable_path
from effovpr_ros.core.work_folder import work_folder
from effovpr_ros.features.codes import decode, encode
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features, LocalFeatures
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
from effovpr_ros.mapping.manifest import INDEX_NAME, MANIFEST_NAME
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.store import STORE_NAME, PlaceStore
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import Reranker

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
    exchanged with it in one step: a kill leaves the old map or the new one. Numbers, poses, sessions, thumbnails and
    the index stay. A stored confidence model stays too but does not count any more, since it was fitted to other codes.

    A map that is compact already stays as it is, and so does an `out` that is the compact map already.

    Args:
        path: of the map; nobody else may write to it meanwhile if it is replaced.
        out: folder of the new map, which does not exist yet; None to replace the map.
        progress: called with the number of places converted since the last call.

    Raises:
        InUseError: another program writes to the map; names it.
        MapError: there are no short codes for the model, `out` is something else, the map is damaged, the disk is full,
            or the converted map does not recognise its own places.
    """
    path = usable_path(path)
    target = path if out is None else usable_path(out)
    try:
        with ExitStack() as stack:
            work = stack.enter_context(work_folder(target, "compacting"))
            # As a writer where the map is replaced, so that nothing is added that would be lost.
            source = stack.enter_context(PlaceMap.open(path, writable=out is None))
            if setting_for_codes(source.fingerprint.local_codes) != FULL:
                if out is None:
                    return _unchanged(source)
                raise MapError(f"map {path} has short local descriptors already; copy it")
            projection = _projection(source)
            if out is not None and target.exists():
                return _made_before(source, target, projection)
            new = work / target.name
            _convert(source, new, projection, progress)
            with PlaceMap.open(new) as compacted:
                report = _compare(source, compacted)
            if out is None:
                exchange(new, path)
            else:
                new.rename(target)
                sync_folder(target.parent)
    except OSError as error:
        raise MapError(
            f"{target} cannot be written: {error.strerror}; free some space"
            + ("" if out else ", or give the compact map a folder of its own with --out")
        ) from error
    return report


def _unchanged(source: PlaceMap) -> CompactReport:
    """Of a map that is compact already, as after a command that was killed when it had done its work."""
    local_bytes, file_bytes = source.bytes_by_part()["local_descriptors"], (source.path / STORE_NAME).stat().st_size
    codes = source.fingerprint.local_codes
    return CompactReport(len(source), codes, local_bytes, local_bytes, file_bytes, file_bytes, 0, 0)


def _made_before(source: PlaceMap, target: Path, projection: LocalProjection) -> CompactReport:
    """Of a target that is there.

    Raises:
        MapError: it is anything else than the compact map of the source.
    """
    if (target / MANIFEST_NAME).is_file():
        with PlaceMap.open(target) as made:
            wanted = compact_fingerprint(source.fingerprint, projection)
            if made.fingerprint == wanted and made.has_places_of(source):
                return _unchanged(made)
    raise MapError(f"{target} exists already; choose a new folder for the compact map")


def _projection(source: PlaceMap) -> LocalProjection:
    model = source.fingerprint
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
    folder.mkdir()
    model = source.fingerprint
    with closing(PlaceStore(source.path, writable=False)) as store:
        store.copy_to(folder)
    with closing(PlaceStore(folder)) as copy:
        place_ids = copy.place_ids()
        for start in range(0, len(place_ids), _COMMIT_PLACES):
            batch = place_ids[start : start + _COMMIT_PLACES]
            features = copy.features(batch, model.global_dim, model.local_dim)
            copy.replace_local(batch, [_projected(item, projection) for item in features])
            if progress:
                progress(len(batch))
        copy.vacuum()
    index = source.path / INDEX_NAME
    if index.is_file():
        with replaced_file(folder / INDEX_NAME) as temporary:
            shutil.copyfile(index, temporary)
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
    compared = place_map.packed_local([own, *others])
    return [item.score for item in reranker.score(compared[0].unpacked(), compared)]
