"""`map.yaml`: what a map is, for people and for whoever opens it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from effovpr_ros.core.errors import GeodesyError, MapError, MapFormatError, ModelMismatchError
from effovpr_ros.core.files import write_atomically
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.mapping.index import IndexSummary
from effovpr_ros.mapping.index_file import StoredIndex, file_sha256

FORMAT_VERSION = 1
MANIFEST_NAME = "map.yaml"
INDEX_NAME = "index.faiss"


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
        sessions: names in order of appearance.
        places_sha256: over the checksums of the first `num_places` places.
        index_sha256: of `index.faiss`.
        index: how it searches, and what it finds.
        recognition: settings of recognition that it was made for, see `recognition.presets`; empty in maps of earlier
            versions.
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
    places_sha256: str = ""
    index_sha256: str = ""
    index: IndexSummary = field(default_factory=IndexSummary)
    recognition: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Manifest:
        """Write atomically; returns the manifest as written, with the time of update."""
        manifest = replace(self, updated=now())
        origin = manifest.datum.origin if manifest.datum else None
        content = {
            "format_version": FORMAT_VERSION,
            "name": manifest.name,
            "created": manifest.created,
            "updated": manifest.updated,
            "frame_id": manifest.frame_id,
            "datum": None
            if origin is None
            else {"latitude": origin.latitude_deg, "longitude": origin.longitude_deg, "altitude": origin.altitude_m},
            "num_places": manifest.num_places,
            "sessions": list(manifest.sessions),
            "global_dim": manifest.global_dim,
            "index": asdict(manifest.index),
            "model": manifest.fingerprint.to_dict(),
            "recognition": dict(manifest.recognition),
            "checksums": {"places": manifest.places_sha256, "index.faiss": manifest.index_sha256},
        }
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

    def problems(self, folder: Path, num_places: int) -> list[str]:
        """What a map folder lacks of what the manifest claims; nothing if it is whole.

        Args:
            folder: of the map.
            num_places: that the store holds.
        """
        problems, index = [], folder / INDEX_NAME
        if not index.is_file() or file_sha256(index) != self.index_sha256:
            problems.append(
                f"{INDEX_NAME} is missing or does not fit its checksum; it is rebuilt when the map is opened"
            )
        if num_places != self.num_places:
            problems.append(
                f"{MANIFEST_NAME} knows {self.num_places} of {num_places} places: a build was interrupted; "
                "repeat its command"
            )
        return problems


def read_manifest(folder: Path) -> Manifest:
    """Read `map.yaml`.

    Raises:
        MapError: no map there.
        MapFormatError: unreadable, incomplete, or of another format version.
    """
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise MapError(f"map {folder} does not exist; build one with `effovpr map build {folder} SOURCE`")
    if not path.is_file():
        raise MapError(
            f"{folder} holds no {MANIFEST_NAME}, so it is no map; name the folder that `effovpr map build` made"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MapFormatError(f"{path} cannot be read: {error}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise MapFormatError(f"{path} names no format_version; it is damaged or no map of effovpr_ros")
    if version != FORMAT_VERSION:
        remedy = "update effovpr_ros" if version > FORMAT_VERSION else "rebuild the map"
        raise MapFormatError(f"{path} has format {version}, this version reads {FORMAT_VERSION}; {remedy}")
    try:
        return _parse(content)
    except (KeyError, TypeError, ValueError, GeodesyError) as error:
        raise MapFormatError(f"{path} is incomplete or damaged ({error!r}); restore or rebuild the map") from error


def _parse(content: dict[str, Any]) -> Manifest:
    datum = content["datum"]
    return Manifest(
        name=str(content["name"]),
        created=str(content["created"]),
        updated=str(content["updated"]),
        fingerprint=ModelFingerprint.from_dict(content["model"]),
        frame_id=str(content["frame_id"]),
        datum=_datum(datum) if datum else None,
        global_dim=int(content["global_dim"]),
        num_places=int(content["num_places"]),
        sessions=tuple(str(session) for session in content["sessions"]),
        places_sha256=str(content["checksums"]["places"]),
        index_sha256=str(content["checksums"]["index.faiss"]),
        index=_index(content.get("index", {})),
        recognition=dict(content.get("recognition", {})),
    )


def _datum(content: dict[str, Any]) -> Datum:
    altitude = content["altitude"]
    known = None if altitude is None else float(altitude)
    return Datum(GeoPoint(float(content["latitude"]), float(content["longitude"]), known))


def _index(content: dict[str, Any]) -> IndexSummary:
    """What maps say of their index; older ones say nothing."""
    recall = content.get("recall_at_10")
    known = None if recall is None else float(recall)
    return IndexSummary(str(content.get("kind", "flat")), int(content.get("rescored", 0)), known)


def now() -> str:
    """The current time, ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
