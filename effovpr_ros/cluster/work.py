"""The work of a build: which images become places, decided before any is read, and how they are cut into parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.mapping.builder import BuildConfig
from effovpr_ros.mapping.spacing import spaced
from effovpr_ros.sources.bags import BagPosition
from effovpr_ros.sources.frame import Frame, PoseOrigin
from effovpr_ros.sources.map_source import MapSource

# Of how a machine runs the network, which changes no place.
_OF_THE_MACHINE = ("device", "precision", "engine", "weights")
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
class Part:
    """Images of one shard, in driving order.

    Attributes:
        number: of the shard.
        items: at least one.
    """

    number: int
    items: tuple[WorkItem, ...]


@dataclass(frozen=True)
class ShardJob:
    """What all shards of a build have in common; it goes to every worker.

    Attributes:
        version: of this package.
        out: URL of the map.
        name: of the map.
        source: URL of the bag or folder.
        image_topic: of the bag; empty for a folder.
        max_pixels: larger images are refused.
        session: that the places join under.
        session_frame: frame of its own that the session gets; empty for the map's.
        origin: of the poses.
        camera: of the images, if known.
        frame_id: of the map.
        datum: latitude, longitude and altitude that were given; None: the origin's.
        recognition: settings that the map is made for.
        extractor: the model.
        build: batch and thumbnails; its spacing has been applied.
        with_points: whether places keep points.
        total: images of all shards.
    """

    version: str
    out: str
    name: str
    source: str
    image_topic: str
    max_pixels: int
    session: str
    session_frame: str
    origin: PoseOrigin
    camera: MountedCamera | None
    frame_id: str
    datum: GeoPoint | None
    recognition: dict[str, Any]
    extractor: ExtractorConfig
    build: BuildConfig
    with_points: bool
    total: int

    def plan_sha256(self, items: Sequence[WorkItem]) -> str:
        """Name of what is built, however it is cut and wherever it runs."""
        model = {name: value for name, value in asdict(self.extractor).items() if name not in _OF_THE_MACHINE}
        build = replace(self.build, batch_size=1)
        camera = self.camera.to_dict() if self.camera else None
        fixed = (self.version, self.name, self.source, self.image_topic, self.session, self.session_frame, self.origin)
        made = (camera, self.frame_id, self.datum, self.recognition, model, build, self.with_points)
        digest = hashlib.sha256(repr((fixed, made)).encode())
        for item in items:
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


def cut(items: Sequence[WorkItem], part_places: int) -> list[Part]:
    """Parts of so many images that follow each other; the last may have fewer."""
    starts = range(0, len(items), part_places)
    return [Part(number, tuple(items[start : start + part_places])) for number, start in enumerate(starts)]
