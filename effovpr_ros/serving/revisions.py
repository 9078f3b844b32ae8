"""Open maps of a server: the newest revision answers, an older one until its last question is answered."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effovpr_ros.core.errors import EffoVPRError, MapError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.version import version
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.geometry.points import Points
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
from effovpr_ros.recognition.third_stage import point_extractor
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
    """One open map with its model; for any number of threads, each with a recogniser at a time.

    Attributes:
        place_map: that is open.
        extractor: of its model.
        config: settings of recognition.
        name: of the revision.
    """

    def __init__(self, served: ServedMap, extractor: FeatureExtractor | None = None) -> None:
        """Open the map, and load its model unless a loaded one fits.

        Raises:
            EffoVPRError: no usable map, model or settings.
        """
        self.place_map = open_map(served.path)
        try:
            self.config = config_for_map(self.place_map, served.settings)
            fits = extractor is not None and not self.place_map.fingerprint.differences(extractor.fingerprint)
            self.extractor = extractor if extractor is not None and fits else served.extractor(self.place_map)
            self.name = revision_of(self.place_map, self.config)
            self._idle: queue.LifoQueue[PlaceRecognizer] = queue.LifoQueue()
            first = PlaceRecognizer(self.extractor, self.place_map, self.config)
            first.load()
            self._idle.put(first)
            self.info = map_info(first, self.name)
        except BaseException:
            self.place_map.close()
            raise

    def points_of(self, image: RgbImage) -> Points:
        """Those of a picture, (H, W, 3) uint8 RGB; calls from several threads take turns."""
        return point_extractor(str(self.extractor.device)).extract(image)

    @contextmanager
    def recognizer(self) -> Iterator[PlaceRecognizer]:
        """One that nobody else uses meanwhile."""
        try:
            mine = self._idle.get_nowait()
        except queue.Empty:
            mine = PlaceRecognizer(self.extractor, self.place_map, self.config)
        yield mine
        # Not after an error, whatever it left behind.
        self._idle.put(mine)


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
    )


class Revisions:
    """The revision that answers, and those that still do."""

    def __init__(self, served: ServedMap) -> None:
        """Open the map.

        Raises:
            EffoVPRError: no usable map, model or settings.
        """
        self.served = served
        self._lock = threading.Lock()
        self._users: dict[Revision, int] = {}
        self._signature = served.signature()
        self._seen: tuple[object, ...] = self._signature
        self.current = Revision(served)
        self.swaps = 0
        self.problem = ""
        self.current.extractor.seek_faster_engine()

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
                revision.place_map.close()

    def refresh(self) -> bool:
        """Open the map anew if its files have changed and rest; whether a newer revision answers now.

        The revision in use stays where the newer one cannot be opened; `problem` says why.
        """
        seen, self._seen = self._seen, self.served.signature()
        # While somebody writes, files change from look to look; a map that is complete between two writes can wait.
        if self._seen in (self._signature,) or self._seen != seen or None in self._seen:
            return False
        signature = self._seen
        try:
            fresh = Revision(self.served, self.current.extractor)
        except (EffoVPRError, OSError) as error:
            if str(error) != self.problem:
                _logger.error("a newer revision of map %s is not served: %s", self.served.path, error)
            self.problem = str(error)
            return False
        self.problem, self._signature = "", signature
        if fresh.name == self.current.name:
            fresh.place_map.close()
            return False
        with self._lock:
            former, self.current = self.current, fresh
            closes = former not in self._users
        if former.extractor is not fresh.extractor:
            fresh.extractor.seek_faster_engine()
            former.extractor.close()
        if closes:
            former.place_map.close()
        self.swaps += 1
        _logger.warning("map %s: revision %s answers, %d places", fresh.info.name, fresh.name, fresh.info.places)
        return True

    def close(self) -> None:
        """Close the map, once nobody asks any more."""
        self.current.extractor.close()
        try:
            self.current.place_map.close()
        except MapError as error:
            _logger.warning("map %s: %s", self.served.path, error)
