"""What the node recognises with on its own: an open map, the model it names, and the recogniser of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.memory import give_back_memory
from effovpr_ros.core.poses import Pose
from effovpr_ros.engines.quantisation_images import QuantisationImages
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig, ModelFingerprint, config_for_fingerprint
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.quantisation_sources import map_quantisation_images
from effovpr_ros.mapping.session_origins import read_origins
from effovpr_ros.mapping.sharded_map import SHARD_BYTES, open_map
from effovpr_ros.nodes.configured import gpu_values
from effovpr_ros.nodes.map_engine import MapEngine, MapInUse
from effovpr_ros.nodes.parameters import CameraNodeConfig
from effovpr_ros.recognition.doubtful_pose import with_doubtful_pose
from effovpr_ros.recognition.presets import MAP_SETTINGS, config_for_map
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.rig_query import RigAnswer, RigPicture, recognize_rig
from effovpr_ros.recognition.temporal import SequenceFilter


def load_model(
    config: ExtractorConfig, node_config: CameraNodeConfig, quantisation_images: QuantisationImages | None = None
) -> FeatureExtractor:
    """A model, with the CPU threads that the node may use.

    Args:
        config: of the model.
        node_config: of the node.
        quantisation_images: images for an 8-bit engine.

    Raises:
        WeightsError: no usable weights.
        ConfigError: impossible settings.
    """
    if node_config.num_threads:
        torch.set_num_threads(node_config.num_threads)
    return FeatureExtractor(config, quantisation_images)


def load_model_of(
    fingerprint: ModelFingerprint, node_config: CameraNodeConfig, quantisation_images: QuantisationImages | None
) -> FeatureExtractor:
    """The model that a map names; raises as `load_model`."""
    config = config_for_fingerprint(
        fingerprint,
        weights=node_config.weights,
        device=node_config.device,
        precision=node_config.precision,
        engine=node_config.engine,
    )
    return load_model(config, node_config, quantisation_images)


def map_in_use(place_map: MapReader) -> MapInUse:
    """What is said of an open map.

    Raises:
        MapFormatError: what it keeps of its sessions is damaged.
    """
    bodies = frozenset(origin.child_frame_id for origin in read_origins(place_map).values()) - {""}
    architecture = place_map.fingerprint.architecture
    return MapInUse(place_map.name, str(place_map.path), place_map.frame_id, architecture, bodies, place_map)


class RecognitionEngine(MapEngine):
    """Map, model and recogniser, replaceable as one between two images; for one thread."""

    def __init__(
        self,
        node_config: CameraNodeConfig,
        config: RecognizerConfig,
        given: Mapping[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Start without a map.

        Args:
            node_config: of the node.
            config: of the recogniser; a map's own settings take the place of what is not given.
            given: fields of it that somebody gave.
            shard_bytes: see `open_map`.
        """
        self._shard_bytes = shard_bytes
        self._given = dict(given or {})
        self._node_config = node_config
        self._config = config
        self._base = config
        self._extractor: FeatureExtractor | None = None
        self._recognizer: PlaceRecognizer | None = None
        self._sequence: SequenceFilter | None = None
        self.map_in_use: MapInUse | None = None

    @property
    def device(self) -> str:
        """Where the model runs and by which engine; empty without one."""
        return f"{self._extractor.device}, {self._extractor.engine.name}" if self._extractor else ""

    @property
    def engine_state(self) -> dict[str, str]:
        """The engine in use and how it came to be that, for people; empty without a model."""
        return self._extractor.engine_state if self._extractor else {}

    def values(self) -> dict[str, str]:
        """Of what is kept on a GPU, for /diagnostics."""
        return gpu_values(self.place_map)

    def take_over(self) -> bool:
        """Go on with a faster engine if one was found since the last image; whether that is so."""
        return self._extractor is not None and self._extractor.take_over()

    @property
    def num_places(self) -> int:
        """Of the map; 0 without one."""
        return len(self.place_map) if self.place_map is not None else 0

    @property
    def place_map(self) -> MapReader | None:
        """The open map; None without one."""
        return self.map_in_use.place_map if self.map_in_use is not None else None

    def load_map(self, path: Path) -> MapInUse:
        """Open a map, load its model unless it is loaded already, and use both from the next image on.

        The map in use stays if anything fails.

        Raises:
            MapError: no usable map.
            EngineError: the engine is not installed, or its descriptors are not PyTorch's.
            WeightsError: no usable weights of its model.
        """
        place_map = open_map(path, shard_bytes=self._shard_bytes)
        try:
            extractor = self._extractor
            if extractor is None or place_map.fingerprint.differences(extractor.fingerprint):
                extractor = load_model_of(
                    place_map.fingerprint, self._node_config, map_quantisation_images(place_map.path)
                )
            config = config_for_map(place_map, self._given, self._base)
            recognizer = PlaceRecognizer(extractor, place_map, config)
            recognizer.load()
            in_use = map_in_use(place_map)
        except BaseException:
            place_map.close()
            raise
        previous, self.map_in_use = self.place_map, in_use
        if self._extractor is not None and self._extractor is not extractor:
            self._extractor.close()
        self._extractor, self._recognizer, self._config = extractor, recognizer, config
        extractor.seek_faster_engine()
        give_back_memory()
        self._sequence = SequenceFilter(recognizer)
        if previous is not None:
            previous.close()
        return in_use

    @property
    def config(self) -> RecognizerConfig:
        """The settings in use."""
        return self._config

    def require(self, config: RecognizerConfig) -> None:
        """All settings can be followed."""

    def set_config(self, config: RecognizerConfig, given: Mapping[str, Any] | None = None) -> None:
        """Use other thresholds from the next image on; `given` as when made."""
        self._config, self._given = config, dict(given or {})
        # What the map in use has said does not count for the next one.
        own = {name: getattr(self._base, name) for name in MAP_SETTINGS if name not in self._given}
        self._base = replace(config, **own)
        if self._extractor is not None and self.place_map is not None:
            self._recognizer = PlaceRecognizer(self._extractor, self.place_map, config)
            if self._sequence is not None:
                self._sequence.use(self._recognizer)

    def restart_sequence(self) -> None:
        """Forget the images so far, where a stream of images begins anew."""
        if self._sequence is not None:
            self._sequence.reset()

    @property
    def measures_poses(self) -> bool:
        """Whether the map keeps cameras to measure poses by, and that is wanted."""
        return self._recognizer is not None and bool(self._recognizer.poses.cameras) and self._config.measure_pose

    def recognize(
        self,
        pictures: Sequence[RigPicture],
        hint: Hint | None,
        stamp_ns: int | None = None,
        odometry: Pose | None = None,
        doubtful: bool = False,
    ) -> tuple[RigAnswer, MapInUse, PlaceRecognizer]:
        """Recognise the pictures of one moment with the map in use; see `MapEngine`.

        Raises:
            MapError: there is no map.
        """
        if self._recognizer is None or self.map_in_use is None:
            raise MapError("no map is loaded; set the parameter map_path or call ~/load_map")
        answer = recognize_rig(self._recognizer, pictures, hint=hint)
        if stamp_ns is not None and self._sequence is not None:
            judged = self._sequence.update(answer.recognition, stamp_ns=stamp_ns or None, odometry=odometry)
            answer = replace(answer, recognition=judged)
        if doubtful:
            answer = replace(answer, recognition=with_doubtful_pose(self._recognizer, answer.recognition))
        return answer, self.map_in_use, self._recognizer

    def close(self) -> None:
        """Close the map."""
        place_map, self.map_in_use = self.place_map, None
        self._recognizer = self._sequence = None
        if self._extractor is not None:
            self._extractor.close()
        if place_map is not None:
            place_map.close()
