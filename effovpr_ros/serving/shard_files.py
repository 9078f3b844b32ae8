"""Shards of a served map as files that a robot may fetch and keep."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.recognition.confidence import CONFIDENCE_PROPERTIES
from effovpr_ros.remote.map_info import Extent
from effovpr_ros.remote.shard_list import SHARD_FILES, PropertyRecord, ShardList, ShardRecord
from effovpr_ros.serving.service import NotThereError

_WHOLE = "whole"
"""Name of the one part of a map that has no shards."""


def list_shards(place_map: MapReader, revision: str) -> ShardList:
    """The parts of an open map; a map without shards is one part.

    Args:
        place_map: that is served.
        revision: its name.
    """
    shards = [
        _record(place_map, entry.name, entry.path, entry.sha256, entry.first_number, entry.num_places, entry.extent_xy)
        for entry in place_map.manifest.shards
    ]
    if not shards and len(place_map):
        digest = hashlib.sha256((place_map.path / MANIFEST_NAME).read_bytes()).hexdigest()
        shards = [_record(place_map, _WHOLE, ".", digest, 0, len(place_map), place_map.extent_xy())]
    known = ((key, place_map.get_property(key)) for key in CONFIDENCE_PROPERTIES)
    properties = [PropertyRecord(key, base64.b64encode(value).decode()) for key, value in known if value]
    return ShardList(revision, place_map.name, tuple(shards), tuple(properties))


def shard_file(place_map: MapReader, shard: str, file: str) -> Path:
    """A file of a part.

    Raises:
        NotThereError: no such part or file.
    """
    paths = {entry.name: entry.path for entry in place_map.manifest.shards} or {_WHOLE: "."}
    if shard not in paths or file not in SHARD_FILES or not (place_map.path / paths[shard] / file).is_file():
        raise NotThereError(f"the map has no file {file[:60]!r} of a shard {shard[:60]!r}")
    return place_map.path / paths[shard] / file


def _record(
    place_map: MapReader,
    name: str,
    path: str,
    digest: str,
    first_number: int,
    places: int,
    box: tuple[float, float, float, float] | None,
) -> ShardRecord:
    folder = place_map.path / path
    manifest, store, index = (
        (folder / file).stat().st_size if (folder / file).is_file() else 0 for file in SHARD_FILES
    )
    extent = None if box is None else Extent(*box)
    return ShardRecord(name, digest, first_number, places, extent, (manifest, store, index))
