"""Recognises alone in the shards that are kept of a served map, while its server does not answer."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.answer import Hint, Recognition
from effovpr_ros.recognition.presets import config_for_map
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.remote.shard_cache import ShardCache

_logger = logging.getLogger(__name__)


class KeptMap:
    """The newest map of a cache, open once it is needed; for one thread.

    Attributes:
        cache: that keeps it.
        answered: questions that were answered alone.
    """

    def __init__(self, cache: ShardCache, config: RecognizerConfig) -> None:
        """Open nothing yet.

        Args:
            cache: that keeps it.
            config: of the recogniser; a map's own settings take the place of what it carries.
        """
        self.cache = cache
        self._config = config
        self.answered = 0
        self._opened: tuple[Path, MapReader, PlaceRecognizer] | None = None

    @property
    def num_places(self) -> int:
        """Of what is open; 0 where nothing is."""
        return len(self._opened[1]) if self._opened is not None else 0

    def recognize(
        self,
        extractor: FeatureExtractor,
        features: Features,
        points: Points | None,
        hint: Hint | None,
        camera: MountedCamera | None,
    ) -> Recognition | None:
        """Answer from the shards that are kept; None where none can be used.

        Its confidence was fitted with the rivals of the whole map, so that it only ranks answers here.

        Args:
            extractor: of the map's model.
            features: of the query, by it.
            points: of the query; None: the third stage does not run.
            hint: where the camera is believed to be.
            camera: that took the picture.
        """
        try:
            recognizer = self._recognizer(extractor)
        except EffoVPRError as error:
            _logger.warning("the copy of the map on this machine cannot be used: %s", error)
            return None
        if recognizer is None:
            return None
        known = None if points is None else lambda: points
        found = recognizer.recognize_features(features, points=known, hint=hint, camera=camera)
        self.answered += 1
        return replace(found, calibrated=False)

    def values(self) -> dict[str, str]:
        """For /diagnostics."""
        current = self.cache.current
        return {
            "server_cache": str(current[0]) if current is not None else "nothing yet",
            "server_cache_problem": self.cache.problem,
            "answered_alone": str(self.answered),
        }

    def close(self) -> None:
        """Close what is open, and fetch nothing any more."""
        self.cache.close()
        self._close_map()

    def _recognizer(self, extractor: FeatureExtractor) -> PlaceRecognizer | None:
        current = self.cache.current
        if current is None:
            return None
        if self._opened is None or self._opened[0] != current[0]:
            place_map = open_map(current[0])
            try:
                config = config_for_map(place_map, {}, self._config)
                recognizer = PlaceRecognizer(extractor, place_map, config)
                recognizer.load()
            except BaseException:
                place_map.close()
                raise
            self._close_map()
            self._opened = (current[0], place_map, recognizer)
        return self._opened[2]

    def _close_map(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()
