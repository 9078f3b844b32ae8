"""`build.json`: which builds made a map in shards, so that one that was interrupted goes on and none is done twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from effovpr_ros.cluster.storage import Storage
from effovpr_ros.core.errors import MapError
from effovpr_ros.mapping.manifest import MANIFEST_NAME, read_manifest
from effovpr_ros.mapping.shard_joining import SHARDS_FOLDER

PLAN_NAME = "build.json"
LOCK_NAME = "building.lock"


@dataclass(frozen=True)
class Begun:
    """A build of a map: the first one, or one that added to it.

    Attributes:
        plan: see `ShardJob.plan_sha256`.
        part_places: images a part.
        first: number of its first part.
        done: whether the map names its shards.
    """

    plan: str
    part_places: int
    first: int
    done: bool = False


def read_begun(out: Storage) -> list[Begun]:
    """Builds of a map, in their order; none where there is no map yet.

    Raises:
        MapError: damaged.
    """
    try:
        return [Begun(**values) for values in json.loads(out.read(PLAN_NAME))["builds"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise MapError(f"{out.url}/{PLAN_NAME} is damaged ({error}); remove {out.url} and build it anew") from error


def begin(out: Storage, plan: str, part_places: int) -> Begun:
    """Note what is built, or find that it was begun or done before; what is new is added to a map that is there.

    Raises:
        MapError: another build is not finished, or nothing can be added to what lies there.
    """
    builds = read_begun(out)
    for build in builds:
        if build.plan == plan:
            return build
    has_map = MANIFEST_NAME in out.names()
    if builds and not builds[-1].done:
        remove = f"{out.url}/{PLAN_NAME} and the shards from {builds[-1].first:05d} on" if has_map else out.url
        raise MapError(
            f"{out.url} was begun with other images, options or another version of this package, and is not finished; "
            f"repeat the command that began it, or remove {remove} to give it up"
        )
    first = _next_shard(out) if has_map else _require_empty(out)
    _write(out, [*builds, Begun(plan, part_places, first)])
    return Begun(plan, part_places, first)


def note_done(out: Storage, plan: str) -> None:
    """Note that the map names all shards of a build."""
    _write(out, [replace(build, done=build.done or build.plan == plan) for build in read_begun(out)])


def require_sharded(out: Storage) -> None:
    """Refuse to add to a map that lies in one folder, or in an object store.

    Raises:
        MapError: says how its places and new ones become one map.
    """
    if not out.is_local:
        raise MapError(
            f"{out.url} is a map in an object store, which is not added to; name all sources in one command, or add "
            "to a copy on a file system"
        )
    if not read_manifest(out.path).shards:
        raise MapError(
            f"map {out.url} is of one folder; add to it without --cluster, or cut it with "
            f"`effovpr map shard {out.url} NEW_MAP --shards 1` and add to that"
        )


def _next_shard(out: Storage) -> int:
    require_sharded(out)
    numbers = [int(name) for name in out.below(SHARDS_FOLDER).names() if name.isdigit()]
    return max(numbers, default=-1) + 1


def _require_empty(out: Storage) -> int:
    others = [name for name in out.names() if name not in (LOCK_NAME, PLAN_NAME)]
    if others:
        raise MapError(f"{out.url} is not empty (it holds {others[0]}); choose a new folder for the map")
    return 0


def _write(out: Storage, builds: Sequence[Begun]) -> None:
    out.write(PLAN_NAME, json.dumps({"builds": [asdict(build) for build in builds]}).encode())
