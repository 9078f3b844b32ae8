"""The work of a build: which images become places, decided before any is read, and how they are cut into parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.extractor_config import ExtractorConfig, ModelFingerprint
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.spacing import spaced
from effovpr_ros.sources.bags import BagPosition
from effovpr_ros.sources.frame import Frame, PoseOrigin
from effovpr_ros.sources.map_source import MapSource

_MOST_PLACES = 8192
_FEWEST_PLACES = 64
_PARTS_PER_WORKER = 4


@dataclass(frozen=True)
class WorkItem:
    """An image that becomes a place.

    Attributes:
        name: see `Frame`.
        stamp_ns: likewise.
        pose: likewise.
        geo: likewise.
        position: where it stands in its bag; None in a folder.
    """

    name: str
    stamp_ns: int | None
    pose: Pose | None
    geo: GeoPoint | None
    position: BagPosition | None = None


@dataclass(frozen=True)
class WorkSource:
    """A bag or folder whose images join the map as a session.

    Attributes:
        url: of the bag or folder.
        image_topic: of the bag; empty for a folder.
        session: that the places join under.
        session_frame: frame of its own that the session gets; empty for the map's.
        origin: of the poses.
        camera: of the images, if known.
    """

    url: str
    image_topic: str
    session: str
    session_frame: str
    origin: PoseOrigin
    camera: MountedCamera | None


@dataclass(frozen=True)
class Part:
    """Images of one shard, in driving order.

    Attributes:
        number: of the shard.
        items: at least one.
        source: position of the source among those of the job.
    """

    number: int
    items: tuple[WorkItem, ...]
    source: int = 0


@dataclass(frozen=True)
class ShardJob:
    """What all shards of a build have in common; it goes to every worker.

    Attributes:
        version: of this package.
        out: URL of the map.
        name: of the map.
        sources: whose images become places, in the order of the places.
        max_pixels: larger images are refused.
        frame_id: of the map.
        datum: of the map; None: its poses are not on the earth.
        recognition: settings that the map is made for.
        extractor: how each worker opens the model.
        fingerprint: of the model.
        build: batch and thumbnails; its spacing has been applied.
        with_points: whether places keep points.
        total: images of all shards, with those that the map has already.
        principal_components: of the global descriptors that the indices hold; 0: all.
    """

    version: str
    out: str
    name: str
    sources: tuple[WorkSource, ...]
    max_pixels: int
    frame_id: str
    datum: Datum | None
    recognition: dict[str, Any]
    extractor: ExtractorConfig
    fingerprint: ModelFingerprint
    build: BuildConfig
    with_points: bool
    total: int
    principal_components: int = 0

    def plan_sha256(self, items: Sequence[Sequence[WorkItem]]) -> str:
        """Name of what is built of the items of each source, however it is cut and wherever it runs."""
        build = replace(self.build, batch_size=1)
        fixed = (self.version, self.name, self.frame_id, self.datum, sorted(self.recognition.items()))
        made = (self.fingerprint, build, self.with_points, self.principal_components)
        digest = hashlib.sha256(repr((fixed, made)).encode())
        for source, listed in zip(self.sources, items, strict=True):
            camera = source.camera.to_dict() if source.camera else None
            digest.update(repr((replace(source, camera=None), camera)).encode())
            for item in listed:
                digest.update(repr(item).encode())
        return digest.hexdigest()


def list_work(source: MapSource, build: BuildConfig) -> tuple[list[WorkItem], int]:
    """Images that become places, by their poses alone, and how many are too close to the last place.

    A bag is read once, without decoding its images.

    Raises:
        SourceError: no image can be used.
    """
    read = 0

    def counted() -> Iterator[tuple[BagPosition | None, Frame]]:
        nonlocal read
        for pair in source.numbered_frames():
            read += 1
            yield pair

    kept = [
        WorkItem(frame.name, frame.stamp_ns, frame.pose, frame.geo, position)
        for position, frame in spaced(counted(), build.spacing_m, build.spacing_deg, lambda pair: pair[1])
    ]
    return kept, read - len(kept)


def places_per_part(total: int, workers: int, wanted: int, batch_size: int) -> int:
    """How many images a part has: what is wanted, else a few parts for each worker, in whole batches."""
    places = wanted or min(max(-(-total // (_PARTS_PER_WORKER * workers)), _FEWEST_PLACES), _MOST_PLACES)
    return -(-places // batch_size) * batch_size


def cut(items: Sequence[Sequence[WorkItem]], part_places: int, first: int = 0) -> list[Part]:
    """Parts of so many images of one source that follow each other; the last of a source may have fewer.

    Args:
        items: of each source.
        part_places: images a part.
        first: number of the first part.
    """
    pieces = [
        (source, tuple(listed[start : start + part_places]))
        for source, listed in enumerate(items)
        for start in range(0, len(listed), part_places)
    ]
    return [Part(number, piece, source) for number, (source, piece) in enumerate(pieces, first)]
