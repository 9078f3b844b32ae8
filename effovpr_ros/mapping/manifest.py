"""`map.yaml`: what a map is, for people and for whoever opens it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from effovpr_ros.core.errors import GeodesyError, MapError, MapFormatError, ModelMismatchError
from effovpr_ros.core.files import write_atomically
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.pca import PcaProjection
from effovpr_ros.mapping.checked import entry, integer, real, refuse, table, text, truth
from effovpr_ros.mapping.index import IndexSummary
from effovpr_ros.mapping.index_file import StoredIndex
from effovpr_ros.mapping.plain_yaml import read_plain_yaml
from effovpr_ros.mapping.shards import SHARDS_NAME, ShardEntry, read_shards, shards_to_bytes

FORMAT_VERSION = 1
SHARDED_FORMAT_VERSION = 2
"""Of maps in shards, which earlier versions of this package do not read."""
MANIFEST_NAME = "map.yaml"
INDEX_NAME = "index.faiss"
MAX_DIMENSION = 2**16
_FARTHEST_VERSION = 1000
MAX_RESCORED = 2**20
_LISTED_CHARACTERS = 2**15
"""Of the sessions that the manifest names, for people; the store has them all."""
_MODEL_NAMES = ("architecture", "weights_sha256", "preprocessing", "facet", "global_kind", "local_codes", "tail_sha256")
_MODEL_NUMBERS = {
    "image_size": (1, 2**13),
    "global_dim": (1, MAX_DIMENSION),
    "local_dim": (1, MAX_DIMENSION),
    "local_block": (0, 1000),
    "max_keypoints": (0, 2**16),
}


@dataclass(frozen=True)
class Manifest:
    """Content of `map.yaml`.

    Attributes:
        name: of the map.
        created: ISO 8601, UTC.
        updated: ISO 8601, UTC.
        fingerprint: of the model that made the descriptors.
        frame_id: frame of the poses.
        datum: origin of the frame, if it is geo-referenced.
        global_dim: dimension of the indexed descriptors, after PCA.
        num_places: when the manifest was written.
        sessions: names in order of appearance; of very many, the first are written.
        session_frames: of those the frame of their poses and the body whose poses they are, for people; the store has
            them all.
        places_sha256: over the checksums of the first `num_places` places.
        index_sha256: of `index.faiss`.
        index: how it searches, and what it finds.
        recognition: settings of recognition that it was made for, see `recognition.presets`; empty in maps of earlier
            versions.
        shards: that the places lie in; empty where they lie in this folder itself.
    """

    name: str
    created: str
    updated: str
    fingerprint: ModelFingerprint
    frame_id: str
    datum: Datum | None
    global_dim: int
    num_places: int = 0
    sessions: tuple[str, ...] = ()
    session_frames: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    places_sha256: str = ""
    index_sha256: str = ""
    index: IndexSummary = field(default_factory=IndexSummary)
    recognition: Mapping[str, Any] = field(default_factory=dict)
    shards: tuple[ShardEntry, ...] = ()

    def write(self, folder: Path) -> Manifest:
        """Write atomically; returns the manifest as written, with the time of update."""
        manifest = replace(self, updated=now())
        origin = manifest.datum.origin if manifest.datum else None
        listed = _listed(manifest.sessions)
        checksums = {"places": manifest.places_sha256, "index.faiss": manifest.index_sha256}
        content = {
            "format_version": SHARDED_FORMAT_VERSION if manifest.shards else FORMAT_VERSION,
            "name": manifest.name,
            "created": manifest.created,
            "updated": manifest.updated,
            "frame_id": manifest.frame_id,
            "datum": None
            if origin is None
            else {"latitude": origin.latitude_deg, "longitude": origin.longitude_deg, "altitude": origin.altitude_m},
            "num_places": manifest.num_places,
            "sessions": listed,
            "session_frames": {name: dict(manifest.session_frames.get(name, {})) for name in listed},
            "global_dim": manifest.global_dim,
            "index": asdict(manifest.index),
            "model": manifest.fingerprint.to_dict(),
            "recognition": dict(manifest.recognition),
            "checksums": checksums,
        }
        if manifest.shards:
            shards = shards_to_bytes(manifest.shards)
            write_atomically(folder / SHARDS_NAME, shards)
            checksums[SHARDS_NAME] = hashlib.sha256(shards).hexdigest()
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_atomically(folder / MANIFEST_NAME, text.encode("utf-8"))
        return manifest

    def require_store(self, path: Path, num_places: int, places_sha256: str) -> None:
        """Refuse a store that has lost or changed what the manifest claims.

        Args:
            path: of the store.
            num_places: that it holds.
            places_sha256: over as many of its places as the manifest claims.

        Raises:
            MapError: it has.
        """
        if num_places < self.num_places:
            raise MapError(
                f"{path} holds {num_places} places, {MANIFEST_NAME} {self.num_places}; "
                "restore the map from a copy or rebuild it"
            )
        if places_sha256 != self.places_sha256:
            raise MapError(f"{path} does not fit the checksum in {MANIFEST_NAME}; restore or rebuild the map")

    def require_model(self, path: Path, fingerprint: ModelFingerprint) -> None:
        """Refuse a model whose descriptors do not compare with those of the map at this path.

        Raises:
            ModelMismatchError: names every difference.
        """
        differences = self.fingerprint.differences(fingerprint)
        if differences:
            listed = "; ".join(differences)
            raise ModelMismatchError(
                f"map {path} is of another model (map != loaded): {listed}; load the map's model or rebuild the map"
            )

    def stored_index(self, folder: Path, dimension: int) -> StoredIndex:
        """The index file of a map folder, whose descriptors should have this dimension."""
        return StoredIndex(folder / INDEX_NAME, self.index_sha256, dimension, self.num_places, self.index)

    def projection(self, stored: bytes | None) -> PcaProjection | None:
        """The principal components that a map stores, if it does.

        Raises:
            MapFormatError: they are not of descriptors of this model.
        """
        if not stored:
            return None
        pca = PcaProjection.from_bytes(stored)
        if len(pca.mean) != self.fingerprint.global_dim or len(pca.components) > len(pca.mean):
            raise MapFormatError(
                f"the stored PCA makes {len(pca.components)} numbers of {len(pca.mean)}, the map's descriptors have "
                f"{self.fingerprint.global_dim}; restore or rebuild the map"
            )
        return pca

    def problems(self, num_places: int) -> list[str]:
        """What the manifest lacks of a store with so many places; nothing if it is whole."""
        if num_places == self.num_places:
            return []
        return [
            f"{MANIFEST_NAME} knows {self.num_places} of {num_places} places: a build was interrupted; "
            "repeat its command"
        ]


def read_manifest(folder: Path) -> Manifest:
    """Read `map.yaml`.

    Raises:
        MapError: no map there.
        MapFormatError: unreadable, incomplete, or of another format version.
    """
    path = folder / MANIFEST_NAME
    if folder.is_file():
        raise MapError(f"{folder} is a file, and a map is a folder; name the one that `effovpr map build` made")
    if not folder.is_dir():
        raise MapError(f"map {folder} does not exist; build one with `effovpr map build {folder} SOURCE`")
    if not path.is_file():
        raise MapError(
            f"{folder} holds no {MANIFEST_NAME}, so it is no map, or one whose build on a cluster was ended; name the "
            "folder that `effovpr map build` made, or repeat that command"
        )
    content = read_plain_yaml(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or abs(version) > _FARTHEST_VERSION:
        raise MapFormatError(f"{path} names no format_version; it is damaged or no map of effovpr_ros")
    if version not in (FORMAT_VERSION, SHARDED_FORMAT_VERSION):
        known = f"{FORMAT_VERSION} and {SHARDED_FORMAT_VERSION}"
        remedy = "update effovpr_ros" if version > FORMAT_VERSION else "rebuild the map"
        raise MapFormatError(f"{path} has format {version}, this version reads {known}; {remedy}")
    try:
        manifest = _parse(table(content, "the whole"))
        if version == FORMAT_VERSION:
            return manifest
        checksum = entry(table(content["checksums"], "checksums"), SHARDS_NAME, "checksums")
        shards = read_shards(folder, text(checksum, f"the checksum of {SHARDS_NAME}"))
    except (MapFormatError, GeodesyError) as error:
        raise MapFormatError(f"{path}: {error}") from error
    if sum(shard.num_places for shard in shards) != manifest.num_places:
        raise MapFormatError(f"{path} has {manifest.num_places} places, {SHARDS_NAME} another number; restore the map")
    return replace(manifest, shards=shards)


def _listed(sessions: Sequence[str]) -> list[str]:
    ends = accumulate(len(session) for session in sessions)
    return [session for session, end in zip(sessions, ends, strict=True) if end <= _LISTED_CHARACTERS]


def _parse(content: Mapping[str, Any]) -> Manifest:
    def named(name: str) -> Any:
        return entry(content, name, "it")

    datum, checksums = named("datum"), table(named("checksums"), "checksums")
    sessions = named("sessions")
    if not isinstance(sessions, list):
        raise refuse(sessions, "sessions", "a list of names")
    return Manifest(
        name=text(named("name"), "name"),
        created=text(named("created"), "created"),
        updated=text(named("updated"), "updated"),
        fingerprint=_fingerprint(table(named("model"), "model")),
        frame_id=text(named("frame_id"), "frame_id"),
        datum=None if datum is None else _datum(table(datum, "datum")),
        global_dim=integer(named("global_dim"), "global_dim", 1, MAX_DIMENSION),
        num_places=integer(named("num_places"), "num_places"),
        sessions=tuple(text(session, "a session") for session in sessions),
        session_frames=_session_frames(table(content.get("session_frames", {}), "session_frames")),
        places_sha256=text(entry(checksums, "places", "checksums"), "the checksum of the places"),
        index_sha256=text(entry(checksums, "index.faiss", "checksums"), "the checksum of the index"),
        index=_index(table(content.get("index", {}), "index")),
        recognition=_recognition(table(content.get("recognition", {}), "recognition")),
    )


def _session_frames(content: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        session: {name: text(value, f"{name} of a session") for name, value in table(frames, "a session").items()}
        for session, frames in content.items()
    }


def _fingerprint(content: Mapping[str, Any]) -> ModelFingerprint:
    model = ModelFingerprint.from_dict(content)
    for name in _MODEL_NAMES:
        text(getattr(model, name), f"{name} of the model")
    for name, (low, high) in _MODEL_NUMBERS.items():
        integer(getattr(model, name), f"{name} of the model", low, high)
    truth(model.centered, "centered of the model")
    real(model.min_attention, "min_attention of the model", 0.0, 1.0)
    return model


def _recognition(content: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, plain values; whoever recognises checks what they are."""
    for name, value in content.items():
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, str):
            text(value, f"recognition {name}")
        else:
            real(value, f"recognition {name}")
    return dict(content)


def _datum(content: Mapping[str, Any]) -> Datum:
    latitude, longitude = (real(entry(content, name, "datum"), name) for name in ("latitude", "longitude"))
    altitude = entry(content, "altitude", "datum")
    return Datum(GeoPoint(latitude, longitude, None if altitude is None else real(altitude, "altitude")))


def _index(content: Mapping[str, Any]) -> IndexSummary:
    """What maps say of their index; older ones say nothing."""
    recall = content.get("recall_at_10")
    known = None if recall is None else real(recall, "recall_at_10 of the index", 0.0, 1.0)
    rescored = integer(content.get("rescored", 0), "rescored of the index", 0, MAX_RESCORED)
    return IndexSummary(text(content.get("kind", "flat"), "kind of the index"), rescored, known)


def now() -> str:
    """The current time, ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
