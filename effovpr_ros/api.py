"""The library in three names: `build_map`, `open_map`, and the `Recognizer` that it gives.

In short:

    from effovpr_ros.api import build_map, open_map

    build_map("office", "photos/")
    with open_map("office") as office:
        answer = office.recognize("where_is_this.jpg")
        print(answer.status.name, answer.confidence, answer.place, answer.pose)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from effovpr_ros.core.errors import ConfigError, SourceError
from effovpr_ros.core.images import MAX_PIXELS, RgbImage, read_image
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig, config_for_fingerprint
from effovpr_ros.features.names import NAMED_MODELS
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.making import removed_if_empty
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.quantisation_sources import map_quantisation_images, source_quantisation_images
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.mapping.session_origins import join_session
from effovpr_ros.mapping.sharded_map import SHARD_BYTES
from effovpr_ros.mapping.sharded_map import open_map as open_stored_map
from effovpr_ros.recognition.answer import Hint, Recognition
from effovpr_ros.recognition.answer_picture import draw_answer
from effovpr_ros.recognition.map_filling import fill_map
from effovpr_ros.recognition.presets import PRESETS, config_for_map, map_settings, preset_for
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.sources.bag_cameras import camera_of_bag
from effovpr_ros.sources.map_source import open_source

__all__ = ["Recognizer", "build_map", "open_map"]


@dataclass(frozen=True)
class Built:
    """What `build_map` did.

    Attributes:
        places: that the map has now.
        added: of them, new ones.
        refused: one line for each image, or each kind of image of a bag, that could not be used, with the cause.
        notes: what was assumed, for people.
    """

    places: int
    added: int
    refused: tuple[str, ...]
    notes: tuple[str, ...]


class Recognizer:
    """An open map with the model that it names; `open_map` makes it. For one thread, and a context that closes it.

    Attributes:
        place_map: its places, frame and datum.
    """

    def __init__(self, place_map: MapReader, recognizer: PlaceRecognizer, max_pixels: int = MAX_PIXELS) -> None:
        """Join both; see `open_map`."""
        self.place_map = place_map
        self._recognizer = recognizer
        self._max_pixels = max_pixels

    def recognize(
        self, image: RgbImage | str | Path, *, hint: Hint | None = None, camera: MountedCamera | None = None
    ) -> Recognition:
        """Say which place an image shows.

        Args:
            image: (H, W, 3) uint8 RGB, or a file.
            hint: where the camera is believed to be; places elsewhere are not considered.
            camera: that took the image; None: that of the matched place, for measured poses.

        Returns:
            Status, confidence, place, pose with covariance, geo-tag, ranked candidates and latencies.

        Raises:
            ImageError: the file cannot be read, or the array is of another type or shape.
        """
        return self._recognizer.recognize(self._read(image), hint=hint, camera=camera)

    def draw(self, image: RgbImage | str | Path, answer: Recognition) -> RgbImage:
        """The image beside the best candidate with matched patches joined.

        Args:
            image: that was asked about.
            answer: to it.

        Returns:
            (height, 1000, 3) uint8 RGB.

        Raises:
            ImageError: the answer has no candidate, or the image cannot be read.
        """
        return draw_answer(self._recognizer, self._read(image), answer)

    def close(self) -> None:
        """Close the map."""
        self.place_map.close()

    def _read(self, image: RgbImage | str | Path) -> RgbImage:
        return read_image(image, max_pixels=self._max_pixels) if isinstance(image, str | Path) else image

    def __enter__(self) -> Recognizer:
        """Enter a context that closes the map."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def open_map(
    path: str | Path,
    *,
    weights: str = "",
    device: str = "auto",
    precision: str = "auto",
    engine: str = ExtractorConfig.engine,
    settings: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    shard_bytes: int = SHARD_BYTES,
) -> Recognizer:
    """Open a map and load the model that it names.

    Args:
        path: of the map.
        weights: where the weights lie if not at the model's own source.
        device: auto (CUDA, else CPU), cpu, cuda or cuda:N.
        precision: auto, fp32, fp16 or bf16.
        engine: what runs the network, see docs/engines.md.
        settings: fields of `RecognizerConfig` that are to differ from what the map was made for.
        max_pixels: larger image files are refused.
        shard_bytes: that open shards of a map may take; beyond, those that were not used for longest are closed.

    Raises:
        MapError: no usable map.
        WeightsError: no usable weights of its model.
        EngineError: the engine is not installed, or its descriptors are not PyTorch's.
        ConfigError: an impossible setting.
    """
    place_map = open_stored_map(path, shard_bytes=shard_bytes)
    try:
        model = config_for_fingerprint(
            place_map.fingerprint, weights=weights, device=device, precision=precision, engine=engine
        )
        extractor = FeatureExtractor(model, map_quantisation_images(place_map.path))
        config = config_for_map(place_map, _known_settings(settings or {}))
        return Recognizer(place_map, PlaceRecognizer(extractor, place_map, config), max_pixels)
    except BaseException:
        place_map.close()
        raise


def build_map(
    path: str | Path,
    source: str | Path,
    *,
    session: str = "",
    image_topic: str = "",
    pose_topic: str = "",
    table: str | Path | None = None,
    spacing_m: float = 0.0,
    spacing_deg: float = 0.0,
    camera: MountedCamera | None = None,
    model: str = "",
    weights: str = "",
    device: str = "auto",
    engine: str = ExtractorConfig.engine,
    progress: Callable[[int], object] | None = None,
) -> Built:
    """Build a map of a bag or a folder of images, or add to one; the same call resumes what was interrupted.

    Args:
        path: folder of the map; made if missing.
        source: rosbag2 folder, .mcap, .db3 or .bag file, or folder of images.
        session: name of this drive; the source's if empty.
        image_topic: of a bag; empty for the only one.
        pose_topic: of a bag; empty for the only one, `none` for no positions.
        table: CSV or TUM file with the poses of a folder's images; with a bag TUM.
        spacing_m: metres between places; 0 with `spacing_deg` 0: every image.
        spacing_deg: or a turn by so many degrees.
        camera: of the images, for measured poses; None: as a bag says.
        model: of a new map: offline (the default), small, base, large, giant or a timm ViT name. A map keeps its own.
        weights: see `open_map`.
        device: see `open_map`.
        engine: see `open_map`.
        progress: called with the number of images that are done since the last call.

    Raises:
        SourceError: nothing of the source can be used; says why.
        MapError: the map is damaged, in use or cannot be written.
        ConfigError: the map that exists is of another model than `model`.
        WeightsError: no usable weights of the model.
        EngineError: see `open_map`.
        KeyboardInterrupt: Ctrl-C; what is finished is kept.
    """
    folder = Path(path)
    config_build = BuildConfig(spacing_m, spacing_deg)
    exists = (folder / MANIFEST_NAME).is_file()
    datum = None
    if exists:
        with PlaceMap.open(folder) as existing:
            datum = existing.datum
    opened = open_source(
        Path(source),
        image_topic=image_topic,
        pose_topic=pose_topic,
        table=Path(table) if table is not None else None,
        session=session,
        datum=datum,
    )
    # Before anything is written: a source without a usable image makes no map.
    frames = opened.frames()
    if camera is None and opened.bag is not None:
        camera, notes = camera_of_bag(opened.bag, opened.origin.child_frame_id)
        opened.notes.extend(notes)
    pictures = source_quantisation_images(folder, opened.reopen, opened.total)
    runs: dict[str, Any] = {"weights": weights, "device": device, "engine": engine}
    if exists:
        place_map = PlaceMap.open(folder, writable=True)
    else:
        config, recognition = PRESETS[preset_for(model or ExtractorConfig.model)]
        extractor = FeatureExtractor(replace(config, **{**runs, "model": model or config.model}), pictures)
        place_map = PlaceMap.create(
            folder,
            fingerprint=extractor.fingerprint,
            frame_id=opened.origin.frame_id or "map",
            recognition=map_settings(recognition),
        )
    with removed_if_empty(folder, not exists), place_map:
        if exists:
            config = config_for_fingerprint(place_map.fingerprint, **runs)
            if model and NAMED_MODELS.get(model, model) != NAMED_MODELS.get(config.model, config.model):
                raise ConfigError(f"map {folder} is of model {config.model}, not {model}; build another map")
            extractor = FeatureExtractor(config, pictures)
        opened.notes.extend(join_session(place_map, opened.session, opened.origin, ""))
        if camera is not None:
            set_session_camera(place_map, opened.session, camera)
        extractor.seek_faster_engine(opened.total)
        report = fill_map(place_map, extractor, frames, config_build, progress)
        if report.interrupted:
            raise KeyboardInterrupt
        unreadable = [f"{name}: {why}" for name, why in report.unreadable]
        if not report.added and not report.already_present:
            raise SourceError(
                f"none of the {len(unreadable)} images of {source} can be read; the first: {unreadable[0]}"
            )
        return Built(len(place_map), report.added, (*opened.refusals(), *unreadable), tuple(opened.said()))


def _known_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    unknown = [name for name in settings if not hasattr(RecognizerConfig(), name)]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no setting of recognition; RecognizerConfig has them")
    return settings
