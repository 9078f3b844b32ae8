"""Reports of finished shards, which lie beside or in them: a shard that has one is whole, and is never made again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from effovpr_ros.cluster.storage import Storage, new_name
from effovpr_ros.core.errors import MapError
from effovpr_ros.mapping.index import IndexSummary
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER, ShardDescription, shard_name
from effovpr_ros.mapping.shards import ShardEntry

REPORT_NAME = "part.json"


@dataclass(frozen=True)
class PartReport:
    """What became of a part.

    Attributes:
        number: of the part.
        images: that it had.
        unreadable: (image, why) of every one that could not be read.
        seconds: that it took, all of it.
        extract_seconds: of them, the network.
        engine: that ran the network.
        shard: description of the shard; None where no image could be read, or where it failed.
        error: why it failed; it is tried again when the command is repeated. Empty where it did not.
    """

    number: int
    images: int
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    extract_seconds: float
    engine: str
    shard: ShardDescription | None = None
    error: str = ""

    def to_json(self) -> str:
        """As stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> PartReport:
        """Inverse of `to_json`.

        Raises:
            MapError: it is none.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            values["unreadable"] = tuple((name, why) for name, why in values["unreadable"])
            values["shard"] = _description(values["shard"]) if values["shard"] else None
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise MapError(
                f"a report of a shard is damaged ({error}); remove that shard, and it is made again"
            ) from error


def finished(storage: Storage, first: int = 0) -> dict[int, PartReport]:
    """Reports of the shards that are whole and have this number or a higher one, by number."""
    names = [name for name in storage.below(SHARDS_FOLDER).names() if name[:5].isdigit() and int(name[:5]) >= first]
    if storage.is_local:
        paths = [f"{SHARDS_FOLDER}/{name}/{REPORT_NAME}" for name in names]
    else:
        paths = [f"{SHARDS_FOLDER}/{name}" for name in names if name.endswith(".json")]
    reports = [PartReport.from_json(storage.read(path)) for path in paths]
    return {report.number: report for report in reports}


def publish(storage: Storage, folder: Path, report: PartReport) -> PartReport:
    """Put a shard where it belongs, unless another worker has; returns the report that counts.

    In an object store, where nothing can be renamed in one step, the shard gets a name of its own and counts once its
    report is there.

    Args:
        storage: of the map.
        folder: of the shard on this machine, on the file system of a local storage.
        report: on it.
    """
    name = f"{SHARDS_FOLDER}/{shard_name(report.number)}"
    if storage.is_local:
        (folder / REPORT_NAME).write_text(report.to_json(), encoding="utf-8")
        if storage.put(folder, name):
            return report
        return PartReport.from_json(storage.read(f"{name}/{REPORT_NAME}"))
    if f"{shard_name(report.number)}.json" in storage.below(SHARDS_FOLDER).names():
        return PartReport.from_json(storage.read(f"{name}.json"))
    if report.shard is not None:
        path = new_name(name)
        storage.put(folder, path)
        report = replace(report, shard=replace(report.shard, entry=replace(report.shard.entry, path=path)))
    storage.write(f"{name}.json", report.to_json().encode())
    return report


def _description(values: dict[str, Any]) -> ShardDescription:
    entry = values["entry"]
    for name in ("sessions", "extent_xy", "extent_geo_deg"):
        entry[name] = tuple(entry[name]) if entry[name] is not None else None
    return ShardDescription(
        ShardEntry(**entry),
        tuple((first, count) for first, count in values["numbers"]),
        tuple((session, start) for session, start in values["starts"]),
        values["properties"],
        IndexSummary(**values["index"]),
    )
