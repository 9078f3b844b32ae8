"""Open maps of a server: the newest revision answers, an older one until its last question is answered."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.core.version import version
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.quantisation_sources import map_quantisation_images
from effovpr_ros.mapping.session_cameras import read_cameras
from effovpr_ros.mapping.session_origins import read_origins
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.mapping.store import STORE_NAME
from effovpr_ros.recognition.confidence import read_confidence_models, read_map_null, setting_name
from effovpr_ros.recognition.presets import config_for_map
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.remote.answers import GeoRecord
from effovpr_ros.remote.map_info import Extent, MapInfo

_logger = logging.getLogger(__name__)
_DIGITS = 16


@dataclass(frozen=True)
class ServedMap:
    """Which map is served, and how.

    Attributes:
        path: of its folder.
        settings: fields of `RecognizerConfig` that are to differ from what the map was made for.
        model: weights, device, precision and engine, see `config_for_fingerprint`.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def extractor(self, place_map: MapReader) -> FeatureExtractor:
        """The model that an open map names.

        Raises:
            WeightsError: no usable weights.
            EngineError: the engine is not installed, or its descriptors are not PyTorch's.
        """
        config = config_for_fingerprint(place_map.fingerprint, **self.model)
        return FeatureExtractor(config, map_quantisation_images(place_map.path))

    def signature(self) -> tuple[object, ...]:
        """Of the files that change when the map does; equal as long as it does not."""
        found: list[object] = []
        for name in (MANIFEST_NAME, STORE_NAME):
            try:
                status = (self.path / name).stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)


class Watch:
    """Says when the files of a map have changed and rest."""

    def __init__(self, served: ServedMap) -> None:
        """Take them as they are."""
        self._served = served
        self._taken = self._seen = served.signature()

    def has_changed(self) -> bool:
        """Whether they are others than were taken, and as they were at the last look.

        While somebody writes they change from look to look; what is complete between two writes can wait.
        """
        before, self._seen = self._seen, self._served.signature()
        return self._seen != self._taken and self._seen == before and None not in self._seen

    def take(self) -> None:
        """Take them as they were at the last look."""
        self._taken = self._seen


def revision_of(place_map: MapReader, config: RecognizerConfig) -> str:
    """Changes with the map's places, and with what it knows of its confidence and cameras."""
    known = (
        place_map.revision,
        len(place_map),
        read_confidence_models(place_map),
        read_map_null(place_map, setting_name(place_map.fingerprint, config)),
        read_cameras(place_map),
    )
    return hashlib.sha256(repr(known).encode()).hexdigest()[:_DIGITS]


class Revision:
    """One open map; for any number of threads, each with a recogniser at a time.

    Attributes:
        place_map: that is open.
        info: of it.
        name: of the revision.
    """

    def __init__(self, place_map: MapReader, make: Callable[[], PlaceRecognizer]) -> None:
        """Take an open map, and make a first recogniser.

        Args:
            place_map: closed with the revision.
            make: makes a recogniser of it.

        Raises:
            EffoVPRError: the settings are impossible, or the map is damaged.
        """
        self.place_map, self._make = place_map, make
        self._idle: queue.LifoQueue[PlaceRecognizer] = queue.LifoQueue()
        first = make()
        self.name = revision_of(place_map, first.config)
        self.info = map_info(first, self.name)
        self._idle.put(first)

    @contextmanager
    def recognizer(self) -> Iterator[PlaceRecognizer]:
        """One that nobody else uses meanwhile."""
        try:
            mine = self._idle.get_nowait()
        except queue.Empty:
            mine = self._make()
        yield mine
        # Not after an error, whatever it left behind.
        self._idle.put(mine)

    def close(self) -> None:
        """Close the map."""
        self.place_map.close()


class LocalRevision(Revision):
    """A map and its model in this process.

    Attributes:
        extractor: of the model.
    """

    def __init__(self, served: ServedMap, extractor: FeatureExtractor | None = None) -> None:
        """Open the map, and load its model unless a loaded one fits.

        Raises:
            EffoVPRError: no usable map, model or settings.
        """
        place_map = open_map(served.path)
        try:
            config = config_for_map(place_map, served.settings)
            fits = extractor is not None and not place_map.fingerprint.differences(extractor.fingerprint)
            model = extractor if extractor is not None and fits else served.extractor(place_map)
            self.extractor = model

            def make() -> PlaceRecognizer:
                recognizer = PlaceRecognizer(model, place_map, config)
                recognizer.load()
                return recognizer

            super().__init__(place_map, make)
        except BaseException:
            place_map.close()
            raise


def map_info(recognizer: PlaceRecognizer, revision: str) -> MapInfo:
    """What is said of an open map."""
    place_map, config = recognizer.place_map, recognizer.config
    origin = place_map.datum.origin if place_map.datum else None
    extent = place_map.extent_xy()
    bodies = {item.child_frame_id for item in read_origins(place_map).values()} - {""}
    return MapInfo(
        name=place_map.name,
        revision=revision,
        version=version(),
        places=len(place_map),
        sessions=len(place_map.sessions),
        frame_id=place_map.frame_id,
        bodies=tuple(sorted(bodies)),
        datum=None if origin is None else GeoRecord(origin.latitude_deg, origin.longitude_deg, origin.altitude_m),
        extent=None if extent is None else Extent(*extent),
        model=place_map.fingerprint,
        points=recognizer.third_stage.extractor.kind if config.verify != "off" else "",
        measures_poses=bool(recognizer.poses.cameras) and config.measure_pose,
        shards=max(1, len(place_map.manifest.shards)),
        in_order=recognizer.has_order,
    )


class Revisions:
    """The revision that answers, and those that still do.

    Attributes:
        current: that answers.
        swaps: how often a newer one took over.
        problem: why a newer one could not; empty where none failed.
    """

    def __init__(self, first: Revision) -> None:
        """Start with one."""
        self._lock = threading.Lock()
        self._users: dict[Revision, int] = {}
        self.current = first
        self.swaps = 0
        self.problem = ""

    @contextmanager
    def borrow(self) -> Iterator[Revision]:
        """The newest revision, which stays open until the end of the context."""
        with self._lock:
            revision = self.current
            self._users[revision] = self._users.get(revision, 0) + 1
        try:
            yield revision
        finally:
            with self._lock:
                self._users[revision] -= 1
                is_last = not self._users[revision]
                if is_last:
                    del self._users[revision]
                closes = is_last and revision is not self.current
            if closes:
                revision.close()

    def swap(self, fresh: Revision) -> None:
        """Let a newer revision answer; the former is closed when nobody asks it any more."""
        with self._lock:
            former, self.current = self.current, fresh
            closes = former not in self._users
        if closes:
            former.close()
        self.swaps += 1
        _logger.warning("map %s: revision %s answers, %d places", fresh.info.name, fresh.name, fresh.info.places)

    def refuse(self, path: Path, error: Exception) -> None:
        """A newer revision cannot be used: the current one stays."""
        if str(error) != self.problem:
            _logger.error("a newer revision of map %s is not served: %s", path, error)
        self.problem = str(error)


def refresh(revisions: Revisions, served: ServedMap, watch: Watch) -> FeatureExtractor | None:
    """Open a map of this process anew if its files have changed and rest.

    Returns:
        The model of the former revision where the newer one has another, to be closed; else None.
    """
    former = revisions.current
    if not isinstance(former, LocalRevision) or not watch.has_changed():
        return None
    try:
        fresh = LocalRevision(served, former.extractor)
    except (EffoVPRError, OSError) as error:
        revisions.refuse(served.path, error)
        return None
    watch.take()
    revisions.problem = ""
    if fresh.name == former.name:
        fresh.close()
        return None
    revisions.swap(fresh)
    if fresh.extractor is former.extractor:
        return None
    fresh.extractor.seek_faster_engine()
    return former.extractor
