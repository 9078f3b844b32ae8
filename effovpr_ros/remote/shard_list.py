"""Parts of a served map that a robot may keep."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass

from effovpr_ros.core.errors import ServerError
from effovpr_ros.mapping.manifest import INDEX_NAME, MANIFEST_NAME
from effovpr_ros.mapping.store import STORE_NAME
from effovpr_ros.remote.map_info import Extent
from effovpr_ros.remote.reading import read_from_server

SHARD_FILES = (MANIFEST_NAME, STORE_NAME, INDEX_NAME)
"""Of a shard, as of any map."""

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True)
class ShardRecord:
    """One part.

    Attributes:
        name: letters, digits, - and _.
        sha256: of its `map.yaml`, which has the checksums of the rest.
        first_number: is added to the numbers of its places.
        places: their number.
        extent: of them; null where no position is known.
        bytes: of the files `SHARD_FILES`, in this order; the index may be missing (0).
    """

    name: str
    sha256: str
    first_number: int
    places: int
    extent: Extent | None
    bytes: tuple[int, int, int]

    def distance_m(self, x: float, y: float) -> float:
        """Horizontal metres from its extent to a position, 0 inside; infinite where it has none."""
        box = self.extent
        if box is None:
            return math.inf
        return math.hypot(max(box.min_x - x, x - box.max_x, 0.0), max(box.min_y - y, y - box.max_y, 0.0))


@dataclass(frozen=True)
class PropertyRecord:
    """A small value that belongs to the whole map, such as its confidence model.

    Attributes:
        key: of the value.
        base64: the value.
    """

    key: str
    base64: str

    @property
    def value(self) -> bytes:
        """The value.

        Raises:
            ServerError: it is no base64.
        """
        try:
            return base64.b64decode(self.base64, validate=True)
        except binascii.Error as error:
            raise ServerError(f"property {self.key!r} of the map cannot be read: {error}") from error


@dataclass(frozen=True)
class ShardList:
    """All parts of a revision.

    Attributes:
        revision: of the map.
        name: of the map.
        shards: in the order of the map.
        properties: of the whole map.
    """

    revision: str
    name: str
    shards: tuple[ShardRecord, ...]
    properties: tuple[PropertyRecord, ...]


def read_shard_list(values: object, where: str) -> ShardList:
    """The parts of what JSON held.

    Raises:
        ServerError: another form, or a name that is no name of a folder.
    """
    found = read_from_server(ShardList, values, "what the server says of its shards", where)
    for shard in found.shards:
        named = bool(shard.name) and set(shard.name) <= _NAME_CHARACTERS
        if not named or len(shard.sha256) != 64 or not set(shard.sha256) <= set("0123456789abcdef"):
            raise ServerError(f"{where}: a shard is called {shard.name[:60]!r}, which is no name")
    return found
