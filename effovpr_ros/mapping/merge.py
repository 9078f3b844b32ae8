"""Several maps of one model to one map, session by session."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.files import sync_folder, usable_path
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.work_folder import work_folder
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.map_reading import PCA_PROPERTY, MapReader
from effovpr_ros.mapping.place import NewPlace, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.pose_frames import PoseFrames
from effovpr_ros.mapping.session_cameras import read_cameras, write_cameras
from effovpr_ros.mapping.session_origins import SessionOrigin, odometry_drives, read_origins, write_origins
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.mapping.sharded_store import SHARD_PROPERTIES
from effovpr_ros.mapping.store import STORE_PROPERTIES

_logger = logging.getLogger(__name__)

COMMIT_PLACES = 256
_MADE_OF_PROPERTY = "merged_from"
_OF_STORAGE = frozenset({_MADE_OF_PROPERTY, PCA_PROPERTY, *STORE_PROPERTIES, *SHARD_PROPERTIES})


@dataclass(frozen=True)
class MergeConfig:
    """How maps are joined.

    Attributes:
        name: of the new map; the folder's if empty.
        rename_sessions: put the map's name before the name of a session that an earlier map has too.
        keep_frames: leave the poses of every map but the first in a frame of their own, `MAP/FRAME`; without it all
            maps must name one frame and one datum.
    """

    name: str = ""
    rename_sessions: bool = False
    keep_frames: bool = False


@dataclass(frozen=True)
class _Plan:
    """What the sessions and the frames of a map are called in the new one; the name of the map's frame is empty."""

    sessions: Mapping[str, str]
    frames: Mapping[str, str]


def merge_maps(
    out: Path, maps: Sequence[Path], config: MergeConfig, progress: Callable[[int], object] | None = None
) -> int:
    """Join maps in a new one, or the shards of one.

    Frame, datum and the settings of recognition are the first map's; other settings are named in the log. What
    belongs to one map alone is not carried over from several: confidence models, and the projection of a PCA. The new
    map appears under its name when it is finished; what a kill leaves beside it, the next call removes. If `out` is the
    merge of these maps already, it stays as it is.

    Args:
        out: folder that does not exist yet.
        maps: two or more, in the order that their sessions get; or one that lies in shards.
        config: see there.
        progress: called with the number of places copied since the last call.

    Returns:
        Number of places.

    Raises:
        MapError: `out` exists, fewer than two maps, sessions of one name, other frames or datums, or a map is damaged.
        ModelMismatchError: maps of different models.
    """
    out = usable_path(out)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_map(path)) for path in maps]
        if len(maps) < 2 and not (opened and opened[0].manifest.shards):
            raise MapError(f"{len(maps)} map given; a merge needs two or more, or one that lies in shards")
        for other in opened[1:]:
            other.require_model(opened[0].fingerprint)
        plans = _plan(opened, config)
        sources = repr((config, [(len(source), source.places_sha256) for source in opened], plans)).encode()
        made_of = hashlib.sha256(sources).hexdigest().encode()
        work = stack.enter_context(work_folder(out, "merging"))
        if out.exists():
            return _made_before(out, made_of)
        merged = PlaceMap.create(
            work / out.name,
            fingerprint=opened[0].fingerprint,
            name=config.name or out.resolve().name,
            frame_id=opened[0].frame_id,
            datum=opened[0].datum,
            recognition=_recognition(opened),
        )
        with merged:
            merged.set_pose_frames(_pose_frames(opened, plans))
            write_origins(merged, _origins(opened, plans))
            write_cameras(merged, _cameras(opened, plans))
            if len(opened) == 1:
                copy_properties(opened[0], merged)
            for source, plan in zip(opened, plans, strict=True):
                _copy(source, merged, plan, progress)
            merged.set_property(_MADE_OF_PROPERTY, made_of)
            merged.flush()
            count = len(merged)
        try:
            (work / out.name).rename(out)
            sync_folder(out.parent)
        except OSError as error:
            raise MapError(f"{out} cannot be written: {error.strerror}; choose another folder") from error
    return count


def _recognition(maps: Sequence[MapReader]) -> Mapping[str, Any]:
    """Settings of the first map; says where another was made for other ones."""
    first = maps[0].manifest.recognition
    for other in maps[1:]:
        theirs = other.manifest.recognition
        names = [name for name in {**first, **theirs} if first.get(name) != theirs.get(name)]
        if names:
            differences = ", ".join(
                f"{name} {theirs.get(name, 'not known')} instead of {first.get(name, 'not known')}" for name in names
            )
            _logger.warning(
                "map %s was made for %s; the merged map has the settings of %s: name the map first whose settings it "
                "should have",
                other.path,
                differences,
                maps[0].path,
            )
    return first


def _made_before(out: Path, made_of: bytes) -> int:
    """Number of places of a map that an earlier call made of the same maps.

    Raises:
        MapError: it is another one.
    """
    if (out / MANIFEST_NAME).is_file():
        with open_map(out) as merged:
            if merged.get_property(_MADE_OF_PROPERTY) == made_of:
                return len(merged)
    raise MapError(f"{out} exists already; choose a new folder for the merged map")


def _plan(maps: Sequence[MapReader], config: MergeConfig) -> list[_Plan]:
    taken: set[str] = set()
    frames = {maps[0].frame_id}
    plans = []
    for source in maps:
        in_map_frame = source is maps[0] or _shares_frame(maps[0], source, config)
        sessions, renamed = {}, {}
        for old_name in source.sessions:
            name = old_name
            if name in taken and config.rename_sessions:
                name = f"{source.name}/{old_name}"
            if name in taken:
                raise MapError(
                    f"map {source.path}: an earlier map has a session {name!r} too; "
                    + ("give the maps different names" if config.rename_sessions else "use --rename-sessions")
                )
            taken.add(name)
            sessions[old_name] = name
        for own_frame in {place.own_frame for place in source.places()}:
            frame = own_frame or ("" if in_map_frame else source.frame_id)
            # A frame's name says nothing outside its own map.
            if frame and source is not maps[0]:
                frame = f"{source.name}/{frame}"
            if frame in frames:
                raise MapError(f"map {source.path}: an earlier map has a frame {frame!r} too; rename one of the maps")
            renamed[own_frame] = frame
        frames |= set(renamed.values()) - {""}
        plans.append(_Plan(sessions, renamed))
    return plans


def _shares_frame(first: MapReader, other: MapReader, config: MergeConfig) -> bool:
    """Whether the poses of a map are in the frame of the first; without poses nothing hinges on it.

    Raises:
        MapError: they should be and cannot.
    """
    if not any(place.map_pose for place in other.places()):
        return True
    if config.keep_frames:
        return False
    differences = []
    drives = odometry_drives(other), odometry_drives(first)
    if (drives[0] or drives[1]) and drives[0].isdisjoint(drives[1]):
        differences.append("they are by odometry, which begins where a drive begins, and the drives differ")
    if other.frame_id != first.frame_id:
        differences.append(f"frame {other.frame_id!r}, the first has {first.frame_id!r}")
    if other.datum != first.datum:
        origins = [place_map.datum.origin if place_map.datum else None for place_map in (other, first)]
        differences.append(f"datum {origins[0]}, the first has {origins[1]}")
    if differences:
        raise MapError(
            f"poses of map {other.path} are not in the frame of {first.path}: {'; '.join(differences)}; use "
            "--keep-frames, which never compares them, or rebuild one with the --frame-id and --datum of the other"
        )
    return True


def _pose_frames(maps: Sequence[MapReader], plans: Sequence[_Plan]) -> PoseFrames:
    """Frames of the poses of all places, in the order that they are copied in."""
    frames = PoseFrames()
    planned = [(plan, place) for source, plan in zip(maps, plans, strict=True) for place in source.places()]
    for number, (plan, place) in enumerate(planned):
        frames = frames.begin(plan.sessions[place.session], number, plan.frames[place.own_frame])
    return frames


def _origins(maps: Sequence[MapReader], plans: Sequence[_Plan]) -> dict[str, SessionOrigin]:
    """What the maps keep of their sessions' poses, by the new names."""
    return {
        plan.sessions[session]: origin
        for source, plan in zip(maps, plans, strict=True)
        for session, origin in read_origins(source).items()
        if session in plan.sessions
    }


def _cameras(maps: Sequence[MapReader], plans: Sequence[_Plan]) -> dict[str, MountedCamera]:
    """The cameras of the maps' sessions, by the new names."""
    return {
        plan.sessions[session]: mounted
        for source, plan in zip(maps, plans, strict=True)
        for session, mounted in read_cameras(source).items()
        if session in plan.sessions
    }


def whole_places(source: MapReader, places: Sequence[Place]) -> list[NewPlace]:
    """Places with all that is stored of them, as they would join another map.

    Args:
        source: map of the places.
        places: of it.

    Raises:
        MapError: one is damaged.
    """
    store, model = source.store, source.fingerprint
    place_ids = [place.place_id for place in places]
    features = store.features(place_ids, model.global_dim, model.local_dim)
    return [
        NewPlace(
            place.session,
            place.stamp_ns,
            place.source,
            place.pose,
            place.geo,
            place.image_size_wh,
            store.thumbnail(place.place_id),
            found,
            points,
            store.digest(place.place_id),
        )
        for place, found, points in zip(places, features, store.points(place_ids), strict=True)
    ]


def copy_properties(source: MapReader, target: MapReader) -> None:
    """Give a map all that is known of another one with the same places, but for how that one is stored.

    Args:
        source: of the values.
        target: open for writing.
    """
    for key in source.store.property_keys():
        value = source.get_property(key)
        if value is not None and key.partition("/")[0] not in _OF_STORAGE:
            target.set_property(key, value)
    if source.pca is not None and isinstance(target, PlaceMap):
        target.set_pca(source.pca)


def _copy(source: MapReader, merged: PlaceMap, plan: _Plan, progress: Callable[[int], object] | None) -> None:
    places = source.places()
    for start in range(0, len(places), COMMIT_PLACES):
        batch = whole_places(source, places[start : start + COMMIT_PLACES])
        merged.add([replace(place, session=plan.sessions[place.session]) for place in batch])
        if progress:
            progress(len(batch))
