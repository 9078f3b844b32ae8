"""A map in shards, built part by part: what is finished stays, what is missing is done, then the whole is written."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from effovpr_ros.cluster.begun import LOCK_NAME, PLAN_NAME, Begun, begin, note_done
from effovpr_ros.cluster.parts import PartReport, finished
from effovpr_ros.cluster.projecting import PROJECTION_NAME, project_shards
from effovpr_ros.cluster.storage import Storage, unfinished
from effovpr_ros.cluster.work import Part, ShardJob, WorkItem, cut
from effovpr_ros.core.errors import InUseError, MapError, SourceError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.features.pca import PcaProjection
from effovpr_ros.mapping.manifest import MANIFEST_NAME, Manifest, read_manifest
from effovpr_ros.mapping.shard_adding import add_shards
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER, ShardDescription, write_whole
from effovpr_ros.mapping.sharded_map import ShardedMap
from effovpr_ros.mapping.shards import SHARDS_NAME
from effovpr_ros.mapping.store import STORE_NAME

_logger = logging.getLogger(__name__)

Runner = Callable[[ShardJob, Sequence[Part]], Iterator[PartReport]]
"""Builds parts and gives their reports as they are finished, in any order."""


@dataclass(frozen=True)
class ClusterReport:
    """What a build did.

    Attributes:
        places: of the map, with those that it had before.
        shards: that this build made, now or before it was interrupted.
        images: that were to become places.
        done_before: of them, those whose shards an earlier run had finished.
        unreadable: (image, why) of every image that could not be read.
        seconds: of this run.
        worker_seconds: of all its workers together, for their shards.
        extract_seconds: of them, the network.
        engines: that ran the network.
    """

    places: int
    shards: int
    images: int
    done_before: int
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    worker_seconds: float
    extract_seconds: float
    engines: tuple[str, ...]


@dataclass(frozen=True)
class BuiltShards(ClusterReport):
    """What `effovpr map build --cluster` did.

    Attributes:
        skipped_spacing: frames too close to the last place.
        refused: one line for each image, or kind of image, that was refused for its pose, time or tags.
        num_refused: images that were.
        notes: what was assumed.
        with_pose: images that had a pose.
        with_geo_tag: images that had a geo-tag.
    """

    skipped_spacing: int
    refused: Sequence[str]
    num_refused: int
    notes: Sequence[str]
    with_pose: int
    with_geo_tag: int


def build_shards(
    job: ShardJob,
    items: Sequence[Sequence[WorkItem]],
    part_places: int,
    run: Runner,
    progress: Callable[[int], object] | None = None,
) -> ClusterReport:
    """Build a map in shards, add to one, or go on with what was interrupted.

    Args:
        job: of the build.
        items: of each source of the job the images that become places, in driving order.
        part_places: images a shard; a build that goes on keeps its own.
        run: builds what is missing.
        progress: called with the number of images that are done since the last call.

    Raises:
        InUseError: another command builds this map.
        MapError: the folder holds something else or an unfinished other build, or cannot be written.
        SourceError: no image, or a part that could not be read.
    """
    started = time.perf_counter()
    out = Storage(job.out)
    with _held(out):
        begun = begin(out, job.plan_sha256(items), part_places)
        parts = cut(items, begun.part_places, begun.first)
        _remove_unfinished(out)
        numbers = {part.number for part in parts}
        before = {number: report for number, report in finished(out, begun.first).items() if number in numbers}
        reports = dict(before)
        done_before = sum(report.images for report in before.values())
        if progress and done_before:
            progress(done_before)
        missing = [part for part in parts if part.number not in before]
        if missing:
            for report in run(job, missing):
                _log(report)
                # What is done twice counts once.
                if progress and report.number not in reports and not report.error:
                    progress(report.images)
                reports[report.number] = report
        places = _finish(out, job, begun, parts, reports)
        _remove_unfinished(out)
    made = [report for number, report in reports.items() if number not in before]
    return ClusterReport(
        places,
        sum(report.shard is not None for report in reports.values()),
        sum(map(len, items)),
        done_before,
        tuple(line for number in sorted(reports) for line in reports[number].unreadable),
        time.perf_counter() - started,
        sum(report.seconds for report in made),
        sum(report.extract_seconds for report in made),
        tuple(sorted({report.engine for report in made})),
    )


@contextmanager
def _held(out: Storage) -> Iterator[None]:
    """Keep other commands from building the same map; an object store has no locks, and its shards count once."""
    if not out.is_local:
        yield
        return
    try:
        out.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out.path / LOCK_NAME)
    except InUseError as error:
        raise InUseError(f"map {out.url} is being built by {error}; wait for its end, or stop it") from error
    except OSError as error:
        raise MapError(f"map {out.url} cannot be made: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def _finish(out: Storage, job: ShardJob, begun: Begun, parts: Sequence[Part], reports: dict[int, PartReport]) -> int:
    """Write the manifest of the whole; returns the number of places.

    Raises:
        SourceError: a part failed, or no image could be read.
    """
    failed = [report for report in reports.values() if report.error]
    if failed:
        raise SourceError(
            f"{len(failed)} of {len(parts)} shards failed, the first: {failed[0].error}; the others are kept, and the "
            "same command does these again"
        )
    lost = [part.number for part in parts if part.number not in reports]
    if lost:
        raise MapError(f"{len(lost)} of {len(parts)} shards are missing; repeat the command, which builds them")
    if not any(report.shard is not None for report in reports.values()):
        why = next((why for report in reports.values() for _, why in report.unreadable), "there is none")
        sources = ", ".join(source.url for source in job.sources)
        raise SourceError(f"0 places built: no image of {sources} can be read; the first: {why}")
    if begun.done:
        return _places_in(out)
    # The shards that a kill left unnamed are named now; those that it left named are known by their sessions.
    has_map = MANIFEST_NAME in out.names()
    added = has_map and begun.first > 0 and not _is_named(out, begun.first)
    pca: PcaProjection | None = None
    if job.principal_components and not (has_map and not added):
        pca, reports = _projected(out, job, reports, added)
    descriptions: list[ShardDescription] = []
    total = 0
    for part in parts:
        described = reports[part.number].shard
        if described is not None:
            descriptions.append(replace(described, entry=replace(described.entry, first_number=total)))
            total += described.entry.num_places
    if added:
        add_shards(out.path, descriptions, _frames_of(out, descriptions))
    elif not has_map:
        _write_first(out, job, descriptions, pca)
    note_done(out, begun.plan)
    if out.is_local:
        (out.path / PROJECTION_NAME).unlink(missing_ok=True)
    return _places_in(out)


def _write_first(
    out: Storage, job: ShardJob, descriptions: Sequence[ShardDescription], pca: PcaProjection | None
) -> None:
    """Write the manifest of a new map."""
    first = replace(_manifest_of(out, descriptions[0]), session_frames=_frames_of(out, descriptions))
    stored = pca.to_bytes() if pca is not None else None
    if out.is_local:
        write_whole(out.path, first, descriptions, stored, name=job.name, keeps=(PLAN_NAME, LOCK_NAME, PROJECTION_NAME))
        return
    with tempfile.TemporaryDirectory(prefix="effovpr_ros-whole-") as made:
        write_whole(Path(made) / "map", first, descriptions, stored, name=job.name)
        # What names the others comes last.
        for name in (STORE_NAME, SHARDS_NAME, MANIFEST_NAME):
            out.write(name, (Path(made) / "map" / name).read_bytes())


def _projected(
    out: Storage, job: ShardJob, reports: dict[int, PartReport], added: bool
) -> tuple[PcaProjection, dict[int, PartReport]]:
    known: PcaProjection | None = None
    if added:
        with ShardedMap.open(out.path) as before:
            known = before.pca
    return project_shards(out.path, reports, job.total, job.principal_components, known)


def _is_named(out: Storage, first: int) -> bool:
    """Whether the map names shards of this number or higher ones."""
    return any(entry.name.isdigit() and int(entry.name) >= first for entry in read_manifest(out.path).shards)


def _places_in(out: Storage) -> int:
    """Number of places of a map."""
    with tempfile.TemporaryDirectory(prefix="effovpr_ros-manifest-") as made:
        for name in (MANIFEST_NAME, SHARDS_NAME):
            (Path(made) / name).write_bytes(out.read(name))
        return read_manifest(Path(made)).num_places


def _frames_of(out: Storage, descriptions: Sequence[ShardDescription]) -> dict[str, Mapping[str, str]]:
    """What the manifest says of the frames of each session, by its first shard."""
    first: dict[str, ShardDescription] = {}
    for described in descriptions:
        for session, _ in described.starts:
            first.setdefault(session, described)
    return {session: _manifest_of(out, described).session_frames[session] for session, described in first.items()}


def _manifest_of(out: Storage, described: ShardDescription) -> Manifest:
    with tempfile.TemporaryDirectory(prefix="effovpr_ros-manifest-") as made:
        (Path(made) / MANIFEST_NAME).write_bytes(out.read(f"{described.entry.path}/{MANIFEST_NAME}"))
        return read_manifest(Path(made))


def _remove_unfinished(out: Storage) -> None:
    for name in out.below(SHARDS_FOLDER).names():
        if unfinished(name):
            out.below(SHARDS_FOLDER).remove(name)


def _log(report: PartReport) -> None:
    for name, why in report.unreadable:
        _logger.warning("skipped %s: %s", name, why)
    if report.error:
        _logger.warning("shard %05d failed: %s", report.number, report.error)
