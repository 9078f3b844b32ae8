"""`effovpr map info` and `effovpr map check`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from effovpr_ros.cli.map_building import index_in_words
from effovpr_ros.cli.options import print_json
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.mapping.index import IndexSummary
from effovpr_ros.mapping.session_cameras import read_cameras
from effovpr_ros.mapping.session_origins import read_origins
from effovpr_ros.mapping.sessions import SessionSummary, summarise
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.mapping.shards import ShardEntry
from effovpr_ros.recognition.presets import settings_of_map


@dataclass(frozen=True)
class MapDescription:
    """What is in a map.

    Attributes:
        name: of the map.
        path: its folder.
        places: their number.
        sessions: drives that it holds, in order of appearance.
        with_pose: places with a pose.
        with_geo_tag: places with a geo-tag.
        frame_id: frame of the poses.
        datum: origin of that frame; null where it is not geo-referenced.
        cameras: by session; empty where none is known, so that poses are not measured.
        created: ISO 8601, UTC.
        updated: likewise.
        global_dim: length of the descriptors that are searched, after PCA.
        index: how they are searched.
        shards: that the places lie in; empty where they lie in one folder.
        recognition: settings of recognition that it was made for.
        bytes: on disk, by part.
        model: that made the descriptors.
    """

    name: str
    path: str
    places: int
    sessions: Sequence[SessionSummary]
    with_pose: int
    with_geo_tag: int
    frame_id: str
    datum: GeoPoint | None
    cameras: Mapping[str, MountedCamera]
    created: str
    updated: str
    global_dim: int
    index: IndexSummary
    shards: Sequence[ShardEntry]
    recognition: Mapping[str, int | float | str]
    bytes: Mapping[str, int]
    model: ModelFingerprint


@dataclass(frozen=True)
class CheckedMap:
    """A map compared with its checksums.

    Attributes:
        map: its name.
        places: their number.
        problems: what is damaged, one line each; empty where all is sound.
    """

    map: str
    places: int
    problems: Sequence[str]


def print_info(options: argparse.Namespace) -> int:
    """Print what is in a map; gives the exit code.

    Raises:
        MapError: no usable map.
    """
    with open_map(options.map) as place_map:
        places, manifest = place_map.places(), place_map.manifest
        described = MapDescription(
            name=place_map.name,
            path=str(place_map.path),
            places=len(place_map),
            sessions=summarise(places, place_map.frame_id, read_origins(place_map)),
            with_pose=sum(place.pose is not None for place in places),
            with_geo_tag=sum(place.geo is not None for place in places),
            frame_id=place_map.frame_id,
            datum=place_map.datum.origin if place_map.datum else None,
            cameras=read_cameras(place_map),
            created=manifest.created,
            updated=manifest.updated,
            global_dim=place_map.global_dim,
            index=manifest.index,
            shards=manifest.shards,
            recognition=settings_of_map(place_map),
            bytes=place_map.bytes_by_part(),
            model=place_map.fingerprint,
        )
    if options.json:
        print_json(described)
        return 0
    shards = described.shards
    shown: dict[str, Any] = {
        **asdict(described),
        "sessions": len(described.sessions),
        "cameras": ", ".join(described.cameras) or "none: poses are not measured",
        "index": index_in_words(described.index),
        "shards": f"{len(shards)}, {shards[0].name} to {shards[-1].name}" if shards else "none: one folder",
        "model": described.model.to_dict(),
    }
    for key, value in shown.items():
        print(f"{key + ':':14}{value}")
    for session in described.sessions:
        print(f"session {_in_words(session)}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Compare a map with its checksums; gives the exit code.

    Raises:
        MapError: no usable map.
    """
    with open_map(options.map) as place_map:
        checked = CheckedMap(place_map.name, len(place_map), place_map.check())
    if options.json:
        print_json(checked)
    elif checked.problems:
        print("\n".join(checked.problems))
    else:
        print(f"map {checked.map}: {checked.places} places, all sound")
    return int(bool(checked.problems))


def _in_words(session: SessionSummary) -> str:
    stamps = (session.first_stamp_ns, session.last_stamp_ns)
    known = [stamp for stamp in stamps if stamp is not None]
    times = [datetime.fromtimestamp(stamp * 1e-9, timezone.utc).isoformat(timespec="seconds") for stamp in known]
    span = " to ".join(times) or "of unknown time"
    accuracy = "" if session.position_std_m is None else f"; positions to {session.position_std_m:.1f} m"
    body = f" of {session.child_frame_id}" if session.child_frame_id else ""
    return (
        f"{session.name}: {session.num_places} places {span}; {session.with_pose} with pose in frame "
        f"{session.frame_id}{body}, {session.with_geo_tag} with geo-tag{accuracy}"
    )
