"""Options of `effovpr map build` against a map that is there already: what contradicts it is refused."""

from __future__ import annotations

import argparse

from effovpr_ros.cli.options import AUTO_PRESET, given_model_options, preset
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import READING_FIELDS, ExtractorConfig, ModelFingerprint
from effovpr_ros.features.names import NAMED_MODELS
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.recognition.presets import map_settings, settings_of_map

_AS_IT_COMES = {"tail": "auto", "local_codes": "auto", "global_dim": 0}
"""Values that leave the choice to the model."""


def require_as_made(options: argparse.Namespace, place_map: MapReader, extractor: FeatureExtractor) -> None:
    """Refuse options that say otherwise than the map that they are to add to.

    Args:
        options: of `map build`.
        place_map: that exists.
        extractor: of its model.

    Raises:
        ConfigError: names every option that contradicts the map, and what the map has.
    """
    made = extractor.config
    wanted = [(f"{option} {value}", name, value) for option, name, value in given_model_options(options)]
    given = {name for _, name, _ in wanted}
    if options.preset != AUTO_PRESET:
        chosen, recognizer = preset(options)
        wanted += [
            (f"--preset {options.preset} ({name} {getattr(chosen, name)})", name, getattr(chosen, name))
            for name in (*READING_FIELDS, "tail")
            if name not in given
        ]
        carried = settings_of_map(place_map)
        differing = {name: value for name, value in map_settings(recognizer).items() if value != carried[name]}
        contradictions = [
            f"--preset {options.preset} ({name} {value}): the map has {carried[name]}"
            for name, value in differing.items()
        ]
    else:
        contradictions = []
    for said, name, value in wanted:
        if not _agrees(name, value, made, extractor, place_map.fingerprint):
            contradictions.append(f"{said}: the map has {getattr(made, name)}")
    if options.frame_id and options.frame_id != place_map.frame_id:
        contradictions.append(f"--frame-id {options.frame_id}: the map has {place_map.frame_id}")
    if options.name and options.name != place_map.name:
        contradictions.append(f"--name {options.name}: the map has {place_map.name}")
    if options.datum and place_map.datum != Datum(GeoPoint(*options.datum)) and (place_map.datum or len(place_map)):
        origin = place_map.datum.origin if place_map.datum else None
        contradictions.append(f"--datum {' '.join(map(str, options.datum))}: the map has {origin}")
    if contradictions:
        raise ConfigError(
            f"map {place_map.path} was made with other settings: {'; '.join(contradictions)}; leave the options "
            "out, or build another map"
        )


def _agrees(
    name: str, value: object, made: ExtractorConfig, extractor: FeatureExtractor, fingerprint: ModelFingerprint
) -> bool:
    if _AS_IT_COMES.get(name, ...) == value:
        return True
    if name == "model":
        return NAMED_MODELS.get(str(value), str(value)).split(".")[0] == fingerprint.architecture
    if name == "local_block" and isinstance(value, int):
        return extractor.layout.block_number(value) == extractor.block
    if name == "global_kind" and fingerprint.tail_sha256:
        # A tail has a kind of its own, whatever is said.
        return True
    if name == "global_dim":
        return value == fingerprint.global_dim
    return bool(value == getattr(made, name))
