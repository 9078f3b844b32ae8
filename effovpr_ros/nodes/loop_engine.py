"""What the loop closure detector works with: the session's folder, the model of its map, and the detector of both."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from effovpr_ros.core.errors import MapError
from effovpr_ros.core.memory import give_back_memory
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.loop_closure.detector import LoopClosureDetector
from effovpr_ros.loop_closure.keyframe_map import open_session_map
from effovpr_ros.loop_closure.loop_config import LoopConfig
from effovpr_ros.mapping.manifest import MANIFEST_NAME, read_manifest
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.quantisation_sources import map_quantisation_images
from effovpr_ros.nodes.map_paths import map_folder
from effovpr_ros.nodes.parameters import CameraNodeConfig, LoopNodeConfig
from effovpr_ros.nodes.recognition_engine import load_model, load_model_of
from effovpr_ros.recognition.presets import PRESETS, config_for_map, map_settings, preset_for
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


class LoopEngine:
    """An open session."""

    def __init__(
        self,
        camera_config: CameraNodeConfig,
        node_config: LoopNodeConfig,
        recognizer_config: RecognizerConfig,
        loop_config: LoopConfig,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """Open or make the map, load its model, begin a run.

        Args:
            camera_config: of the node.
            node_config: likewise.
            recognizer_config: of the recogniser; the map's own settings, or those for the model of a new one, take the
                place of what is not given.
            loop_config: rules.
            given: fields of `recognizer_config` that somebody gave.

        Raises:
            MapError: the folder is not usable.
            WeightsError: no usable weights of the model.
            ConfigError: impossible settings of the model.
        """
        self._lock = threading.Lock()
        self._temporary: Path | None = None
        if not node_config.session_path:
            self._temporary = _temporary_folder()
        try:
            folder = self._temporary or map_folder(node_config.session_path, camera_config.map_root)
            extractor = _load_model(folder, camera_config, node_config)
            given = dict(given or {})
            place_map = open_session_map(
                folder,
                extractor.fingerprint,
                frame_id=node_config.odom_frame,
                recognition=_new_settings(node_config.model, recognizer_config, given),
            )
            try:
                self.config = config_for_map(place_map, given, recognizer_config)
                session = node_config.session or time.strftime("%Y-%m-%dT%H-%M-%S")
                self.detector = LoopClosureDetector(extractor, place_map, self.config, loop_config, session)
                self.detector.load()
            except BaseException:
                place_map.close()
                raise
        except BaseException:
            self._let_go()
            raise
        self._extractor = extractor
        extractor.seek_faster_engine()
        give_back_memory()

    @property
    def device(self) -> str:
        """Where the model runs and by which engine."""
        return f"{self._extractor.device}, {self._extractor.engine.name}"

    @property
    def engine_state(self) -> dict[str, str]:
        """The engine in use and how it came to be that, for people."""
        return self._extractor.engine_state

    def take_over(self) -> bool:
        """Go on with a faster engine if one was found since the last image; whether that is so."""
        return self._extractor.take_over()

    @property
    def place_map(self) -> PlaceMap:
        """That grows."""
        return self.detector.place_map

    @property
    def is_temporary(self) -> bool:
        """Whether the map is deleted at the end."""
        return self._temporary is not None

    def save_map(self, folder: Path, name: str) -> None:
        """Save a copy of the map; another thread than the detector's may ask for it.

        Raises:
            MapError: the folder is not usable, or the disk is full.
        """
        with self._lock:
            self.detector.save_map(folder, name)

    def close(self) -> None:
        """Close the map, after a copy that is being saved; a temporary one is deleted.

        Raises:
            MapError: the disk is full. Keyframes are safe all the same; the index is made again at the next opening.
        """
        self._extractor.close()
        with self._lock:
            try:
                self.detector.close()
            finally:
                self._let_go()

    def _let_go(self) -> None:
        """Leave the folder to others, or delete a temporary one."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _load_model(folder: Path, camera_config: CameraNodeConfig, node_config: LoopNodeConfig) -> FeatureExtractor:
    """The model that the map names, or that of a new map."""
    if (folder / MANIFEST_NAME).is_file():
        return load_model_of(read_manifest(folder).fingerprint, camera_config, map_quantisation_images(folder))
    config = replace(
        PRESETS[preset_for(node_config.model)][0],
        model=node_config.model,
        image_size=node_config.image_size,
        weights=camera_config.weights,
        device=camera_config.device,
        precision=camera_config.precision,
        engine=camera_config.engine,
    )
    return load_model(config, camera_config)


def _new_settings(model: str, config: RecognizerConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a new map is made for: the preset of its model, and as many candidates as the detector takes."""
    return {**map_settings(PRESETS[preset_for(model)][1]), "top_k": config.top_k, **given}


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="effovpr_session_"))
    except OSError as error:
        raise MapError(f"no temporary folder can be made: {error}; set the parameter session_path") from error
