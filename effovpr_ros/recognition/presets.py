"""Settings of the model and of recognition that belong together, and those that a map carries."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from effovpr_ros.core.errors import ConfigError, MapFormatError
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.names import OFFLINE_MODEL
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

if TYPE_CHECKING:
    from effovpr_ros.mapping.map_reading import MapReader

_logger = logging.getLogger(__name__)

PRESETS = {
    "default": (ExtractorConfig(), RecognizerConfig()),
    "paper": (
        ExtractorConfig(tail="none", local_block=-2, centered=False, global_kind="cls", min_attention=0.05),
        RecognizerConfig(score="count", min_similarity=0.65),
    ),
}
"""This package's choice for the offline model, and the paper's settings (sections 3 and 4.2)."""
MAP_SETTINGS = ("top_k", "score", "min_similarity")
"""Fields of `RecognizerConfig` that a map carries: how its local descriptors are compared."""


def preset_for(model: str) -> str:
    """The preset of a model where none is named.

    The package's own was chosen with the weights of the offline model (docs/defaults.md). For any other network this
    project has no evidence, and the paper's settings have what is published.
    """
    return "default" if model == OFFLINE_MODEL else "paper"


def map_settings(config: RecognizerConfig) -> dict[str, Any]:
    """What a map is to carry of a recogniser's settings."""
    return {name: getattr(config, name) for name in MAP_SETTINGS}


def settings_of_map(place_map: MapReader, base: RecognizerConfig | None = None) -> dict[str, Any]:
    """The settings that a map was made for.

    Maps of earlier versions carry none: one whose descriptors are not centred was made for the paper's score and T2,
    any other one for the package's own; K is that of whoever asks.

    Args:
        place_map: that is asked.
        base: of whoever asks; the defaults if None.

    Raises:
        MapFormatError: one is impossible.
    """
    stored = {name: value for name, value in place_map.manifest.recognition.items() if name in MAP_SETTINGS}
    if not stored:
        made_for = PRESETS["default" if place_map.fingerprint.centered else "paper"][1]
        return {**map_settings(made_for), "top_k": (base or RecognizerConfig()).top_k}
    try:
        return map_settings(replace(RecognizerConfig(), **stored))
    except (ConfigError, TypeError) as error:
        raise MapFormatError(f"map {place_map.path} carries impossible settings of recognition: {error}") from error


def config_for_map(
    place_map: MapReader, given: Mapping[str, Any], base: RecognizerConfig | None = None
) -> RecognizerConfig:
    """A recogniser's settings for a map: what is given, else what the map was made for, else the base.

    What is given and differs from the map's is said in the log, since confidence and recall are those of the map's.

    Args:
        place_map: that is asked.
        given: values of fields of `RecognizerConfig` that somebody named.
        base: of all other fields; the defaults if None.

    Raises:
        ConfigError: an impossible value is given.
        MapFormatError: the map carries an impossible one.
    """
    carried = settings_of_map(place_map, base)
    config = replace(base or RecognizerConfig(), **{**carried, **given})
    for name in MAP_SETTINGS:
        if name in given and given[name] != carried[name]:
            _logger.warning(
                "%s %s is used for map %s, which was made for %s", name, given[name], place_map.name, carried[name]
            )
    return config
