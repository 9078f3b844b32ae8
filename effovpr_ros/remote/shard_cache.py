"""Shards near the last known place, kept in a folder of the robot, as a map that it can use alone."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from effovpr_ros.core.errors import EffoVPRError, MapError, ServerError
from effovpr_ros.core.files import write_atomically
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER, join_shards
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.remote.client import MapServer
from effovpr_ros.remote.map_info import MapInfo, read_map_info
from effovpr_ros.remote.shard_list import SHARD_FILES, ShardList, ShardRecord

_logger = logging.getLogger(__name__)
_CURRENT = "current.json"
_DIGITS = 16
_LEAST_BYTES_A_SECOND = 50_000
_LEAST_S = 60.0


class ShardCache:
    """Keeps shards of one server; fetches them in a thread of its own.

    Attributes:
        problem: why the last fetching failed; empty where it did not.
    """

    def __init__(self, folder: Path, server: MapServer, radius_m: float, max_bytes: int) -> None:
        """Take what is there from before.

        Args:
            folder: that this cache may fill; it keeps a folder of its own for each server.
            server: to ask, by nobody else.
            radius_m: shards within are wanted.
            max_bytes: of all of them; nearer ones first.

        Raises:
            MapError: the folder cannot be written.
        """
        self._folder = folder.expanduser() / hashlib.sha256(server.url.encode()).hexdigest()[:_DIGITS]
        self._server, self._radius_m, self._max_bytes = server, radius_m, max_bytes
        self.problem = ""
        self._wanted = threading.Condition()
        self._position: tuple[float, float] | None = None
        self._is_ended = False
        self._current: tuple[Path, MapInfo] | None = None
        try:
            (self._folder / SHARDS_FOLDER).mkdir(parents=True, exist_ok=True)
            (self._folder / "maps").mkdir(exist_ok=True)
        except OSError as error:
            raise MapError(f"server_cache {folder} cannot be written: {error.strerror}") from error
        self._current = self._stored()
        self._thread = threading.Thread(target=self._run, name="shard-cache", daemon=True)
        self._thread.start()

    @property
    def current(self) -> tuple[Path, MapInfo] | None:
        """Folder of the map that is kept, and what the server said of the whole one; None where none is."""
        return self._current

    def near(self, x: float, y: float) -> None:
        """The robot is here, in the map frame; returns at once."""
        with self._wanted:
            self._position = (x, y)
            self._wanted.notify()

    def close(self) -> None:
        """Fetch nothing any more."""
        with self._wanted:
            self._is_ended = True
            self._wanted.notify()
        self._server.close()

    def fetch(self, x: float, y: float) -> bool:
        """Fetch the shards near a position and make them the map that is kept; whether it is another one now.

        Raises:
            EffoVPRError: the server cannot be asked, or what it sent is no map.
        """
        listed = self._server.shards()
        chosen = choose_shards(listed.shards, (x, y), self._radius_m, self._max_bytes)
        if not chosen:
            raise MapError(f"no shard of {self._server.url} is near ({x:.0f}, {y:.0f}) and small enough to be kept")
        key = hashlib.sha256(repr((listed.revision, [shard.sha256 for shard in chosen])).encode()).hexdigest()[:_DIGITS]
        path = self._folder / "maps" / key
        if self._current is not None and self._current[0] == path:
            return False
        info = self._server.info()
        if info.revision != listed.revision:
            raise ServerError(f"the map of {self._server.url} was replaced meanwhile; the next place asks again")
        try:
            for shard in chosen:
                self._download(shard)
            if not path.is_dir():
                self._join(path, listed, chosen)
            write_atomically(self._folder / _CURRENT, json.dumps({"map": key, "info": asdict(info)}).encode())
        except OSError as error:
            raise MapError(f"shards cannot be kept in {self._folder}: {error.strerror or error}") from error
        self._current = (path, info)
        self._clean(path, chosen)
        _logger.info("%d shards of %s near (%.0f, %.0f) are kept in %s", len(chosen), self._server.url, x, y, path)
        return True

    def _run(self) -> None:
        last: tuple[float, float] | None = None
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._is_ended or self._position is not None)
                if self._is_ended:
                    return
                position, self._position = self._position, None
            assert position is not None
            is_same = last is not None and math.dist(last, position) < 0.25 * self._radius_m
            if is_same and not self.problem:
                continue
            try:
                self.fetch(*position)
                last, self.problem = position, ""
            except (EffoVPRError, OSError, ValueError) as error:
                self.problem = str(error)
                # Not again for each image.
                with self._wanted:
                    self._wanted.wait_for(lambda: self._is_ended, timeout=5.0)

    def _stored(self) -> tuple[Path, MapInfo] | None:
        try:
            values = json.loads((self._folder / _CURRENT).read_bytes())
            path = self._folder / "maps" / str(values["map"])
            return (path, read_map_info(values["info"], str(self._folder))) if path.is_dir() else None
        except (OSError, ValueError, KeyError, TypeError, ServerError):
            return None

    def _download(self, shard: ShardRecord) -> None:
        """Have a shard's files in a folder by its checksum, complete or not at all."""
        target = self._folder / SHARDS_FOLDER / shard.sha256[:_DIGITS]
        if target.is_dir():
            return
        making = target.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        for file, size in zip(SHARD_FILES, shard.bytes, strict=True):
            if size:
                timeout_s = _LEAST_S + size / _LEAST_BYTES_A_SECOND
                with (making / file).open("wb") as sink:
                    path = f"/v1/shards/{shard.name}/{file}"
                    self._server.download(path, sink, timeout_s=timeout_s, largest=2 * size + 2**20)
        found = hashlib.sha256((making / MANIFEST_NAME).read_bytes()).hexdigest()
        if found != shard.sha256:
            raise ServerError(f"shard {shard.name} of {self._server.url} is not the one that was listed")
        making.rename(target)

    def _join(self, path: Path, listed: ShardList, chosen: Sequence[ShardRecord]) -> None:
        """Make one map of shards that are there, which answers with the numbers of the whole map."""
        making = path.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        for shard in chosen:
            folder = making / SHARDS_FOLDER / shard.name
            folder.mkdir(parents=True)
            for file in (self._folder / SHARDS_FOLDER / shard.sha256[:_DIGITS]).iterdir():
                if file.name in SHARD_FILES:
                    os.link(file, folder / file.name)
        paths = [f"{SHARDS_FOLDER}/{shard.name}" for shard in chosen]
        join_shards(making, paths, [shard.first_number for shard in chosen], name=listed.name)
        with open_map(making, writable=True) as place_map:
            for known in listed.properties:
                place_map.set_property(known.key, known.value)
        making.rename(path)

    def _clean(self, path: Path, chosen: Sequence[ShardRecord]) -> None:
        """Remove other maps and shards; what is open of them stays readable until it is closed."""
        kept = {shard.sha256[:_DIGITS] for shard in chosen}
        for other in (self._folder / "maps").iterdir():
            if other != path:
                shutil.rmtree(other, ignore_errors=True)
        for other in (self._folder / SHARDS_FOLDER).iterdir():
            if other.name not in kept:
                shutil.rmtree(other, ignore_errors=True)


def choose_shards(
    shards: Sequence[ShardRecord], position_xy: tuple[float, float], radius_m: float, max_bytes: int
) -> list[ShardRecord]:
    """The shards within a radius, nearer ones first, as many as fit; in the order of the map.

    Args:
        shards: of the map.
        position_xy: in the map frame.
        radius_m: horizontal.
        max_bytes: of all their files.
    """
    left = max_bytes
    chosen: list[ShardRecord] = []
    for shard in sorted(shards, key=lambda item: item.distance_m(*position_xy)):
        if shard.distance_m(*position_xy) <= radius_m and sum(shard.bytes) <= left:
            chosen.append(shard)
            left -= sum(shard.bytes)
    return [shard for shard in shards if shard in chosen]
