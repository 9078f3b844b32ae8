"""A map in shards, built part by part: what is finished stays, what is missing is done, then the whole is written."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from effovpr_ros.cluster.parts import PartReport, finished
from effovpr_ros.cluster.storage import Storage, unfinished
from effovpr_ros.cluster.work import Part, ShardJob, WorkItem, cut
from effovpr_ros.core.errors import InUseError, MapError, SourceError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.mapping.manifest import MANIFEST_NAME, Manifest, read_manifest
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER, ShardDescription, write_whole
from effovpr_ros.mapping.shards import SHARDS_NAME
from effovpr_ros.mapping.store import STORE_NAME

_logger = logging.getLogger(__name__)

PLAN_NAME = "build.json"
_LOCK_NAME = "building.lock"

Runner = Callable[[ShardJob, Sequence[Part]], Iterator[PartReport]]
"""Builds parts and gives their reports as they are finished, in any order."""


@dataclass(frozen=True)
class ClusterReport:
    """What a build did.

    Attributes:
        places: of the map.
        shards: that it lies in.
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


def build_shards(
    job: ShardJob,
    items: Sequence[WorkItem],
    part_places: int,
    run: Runner,
    progress: Callable[[int], object] | None = None,
) -> ClusterReport:
    """Build a map in shards, or go on with one that was interrupted.

    Args:
        job: of the build.
        items: images that become places, in driving order.
        part_places: images a shard; a build that goes on keeps its own.
        run: builds what is missing.
        progress: called with the number of images that are done since the last call.

    Raises:
        InUseError: another command builds this map.
        MapError: the folder holds another map or another build, or cannot be written.
        SourceError: no image, or a part that could not be read.
    """
    started = time.perf_counter()
    out = Storage(job.out)
    with _held(out):
        plan = job.plan_sha256(items)
        part_places = _begin(out, plan, part_places)
        parts = cut(items, part_places)
        _remove_unfinished(out)
        before = finished(out)
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
        places = _finish(out, job, parts, reports)
        _remove_unfinished(out)
    made = [report for number, report in reports.items() if number not in before]
    return ClusterReport(
        places,
        sum(report.shard is not None for report in reports.values()),
        len(items),
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
        lock = FileLock(out.path / _LOCK_NAME)
    except InUseError as error:
        raise InUseError(f"map {out.url} is being built by {error}; wait for its end, or stop it") from error
    except OSError as error:
        raise MapError(f"map {out.url} cannot be made: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def _begin(out: Storage, plan: str, part_places: int) -> int:
    """Note what is built, or see that it is the same; returns how many images a part has.

    Raises:
        MapError: something else lies there, or was begun.
    """
    names = [name for name in out.names() if name != _LOCK_NAME]
    if PLAN_NAME in names:
        try:
            known = json.loads(out.read(PLAN_NAME))
            same, places = known["plan"] == plan, int(known["part_places"])
        except (ValueError, KeyError, TypeError) as error:
            raise MapError(f"{out.url}/{PLAN_NAME} is damaged ({error}); remove {out.url} and build it anew") from error
        if not same:
            raise MapError(
                f"{out.url} was begun with other images, options or another version of this package; repeat the "
                f"command that began it, or remove {out.url}"
            )
        return places
    if names:
        raise MapError(f"{out.url} is not empty (it holds {names[0]}); choose a new folder for the map")
    out.write(PLAN_NAME, json.dumps({"plan": plan, "part_places": part_places}).encode())
    return part_places


def _finish(out: Storage, job: ShardJob, parts: Sequence[Part], reports: dict[int, PartReport]) -> int:
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
    descriptions: list[ShardDescription] = []
    total = 0
    for part in parts:
        described = reports[part.number].shard
        if described is not None:
            descriptions.append(replace(described, entry=replace(described.entry, first_number=total)))
            total += described.entry.num_places
    if not descriptions:
        why = next((why for report in reports.values() for _, why in report.unreadable), "there is none")
        raise SourceError(f"0 places built: no image of {job.source} can be read; the first: {why}")
    first = _manifest_of(out, descriptions[0])
    if MANIFEST_NAME in out.names():
        return total
    if out.is_local:
        return write_whole(out.path, first, descriptions, name=job.name, keeps=(PLAN_NAME, _LOCK_NAME))
    with tempfile.TemporaryDirectory(prefix="effovpr_ros-whole-") as made:
        write_whole(Path(made) / "map", first, descriptions, name=job.name)
        # What names the others comes last.
        for name in (STORE_NAME, SHARDS_NAME, MANIFEST_NAME):
            out.write(name, (Path(made) / "map" / name).read_bytes())
    return total


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
