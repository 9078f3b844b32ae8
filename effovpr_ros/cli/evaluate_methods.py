"""`effovpr evaluate --methods`: from what the user names to what answers queries."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from effovpr_ros.cli.options import AUTO_PRESET, add_preset_option, preset
from effovpr_ros.core.errors import ConfigError, EvaluationError
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.lab.evaluation.ablation import FACTORS
from effovpr_ros.lab.evaluation.confidence_fitting import ConfidenceFitConfig, fit_confidence, num_queries
from effovpr_ros.lab.evaluation.method import EffoVPRMethod, Method
from effovpr_ros.lab.evaluation.orb_bow import OrbBowMethod
from effovpr_ros.lab.evaluation.vlad import VladMethod
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.confidence import setting_name, store_confidence_model
from effovpr_ros.recognition.map_null import measure_map_null
from effovpr_ros.recognition.presets import config_for_map, map_settings
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

Baseline = Callable[[MapReader, int], Method]
"""Makes a method of a map and the most places in an answer."""
BASELINES: dict[str, Baseline] = {"vlad": VladMethod, "orb-bow": OrbBowMethod}


def add_method_options(parser: argparse.ArgumentParser, *, builds_map: bool) -> None:
    """Add `--methods` and what they share, with `--ablate` and `--calibrate` where the form builds a map of its own."""
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        "--methods",
        nargs="+",
        default=["effovpr", "global"],
        help="effovpr (all stages), global (stage 1 only), vlad (of the same model's local descriptors), orb-bow "
        "(classical SLAM), or NAME:key=value,... with settings of recognition, as seq:sequence_length=10 "
        "or two:verify=off; variants of "
        "the network: zs (frozen, both stages), g and r (a trained tail, stage 1 and both), pca (frozen), as "
        "g-128:weights=tail.safetensors,dim=128 and pca:dim=128",
    )
    if builds_map:
        wanted.add_argument(
            "--ablate",
            metavar="FACTOR,...",
            help=f"instead of --methods: vary some of {','.join(FACTORS)}, one at a time, around the settings given",
        )
        parser.add_argument(
            "--calibrate",
            action="store_true",
            help="fit the confidence to the database, instead of taking the one that comes with this package",
        )
    else:
        parser.set_defaults(ablate=None, calibrate=False)
    add_preset_option(parser)
    parser.add_argument("--top-k", type=int, help="candidates to re-rank; without it, as the preset or the map says")


def base_config(options: argparse.Namespace, map_path: Path | None) -> RecognizerConfig:
    """What methods and ablations change: the map's settings, or those of `--preset`, with `--top-k`.

    Without a budget of time, which would let the figures depend on what else the machine does.

    Args:
        options: of the command.
        map_path: of the map that is evaluated, if it was not made for the evaluation.
    """
    top_k = {} if options.top_k is None else {"top_k": options.top_k}
    if map_path is None:
        return replace(preset(options)[1], **top_k, verify_budget_ms=0.0)
    given = {} if options.preset == AUTO_PRESET else map_settings(preset(options)[1])
    with open_map(map_path) as place_map:
        return config_for_map(place_map, {**given, **top_k}, RecognizerConfig(verify_budget_ms=0.0))


def verifies(made: RecognizerConfig | Baseline) -> bool:
    """Whether a method may ask for points."""
    return isinstance(made, RecognizerConfig) and made.verify != "off"


def parse_methods(texts: Sequence[str], base: RecognizerConfig) -> dict[str, RecognizerConfig | Baseline]:
    """Methods by name.

    Args:
        texts: effovpr, global, a baseline, or NAME:key=value,... with fields of `RecognizerConfig`.
        base: what the settings change.

    Raises:
        ConfigError: an unknown method, field or value, settings of a baseline, or a name that comes twice.
    """
    methods: dict[str, RecognizerConfig | Baseline] = {}
    for text in texts:
        name, _, settings = text.partition(":")
        if name in methods:
            raise ConfigError(f"method {name!r} comes twice; give one of them another name")
        if name in BASELINES:
            if settings:
                raise ConfigError(f"method {text!r}: {name} has no settings; give settings of effovpr another name")
            methods[name] = BASELINES[name]
        elif settings:
            methods[name] = replace(base, **_parse_settings(text, settings))
        elif name in ("effovpr", "global"):
            methods[name] = base if name == "effovpr" else replace(base, rerank=False, verify="off")
        else:
            known = ", ".join(("effovpr", "global", *BASELINES))
            raise ConfigError(f"method {name!r} is unknown; use {known} or NAME:key=value,...")
    return methods


def fit_methods(
    settings: Mapping[str, RecognizerConfig | Baseline], extractor: FeatureExtractor, place_map: MapReader
) -> list[str]:
    """Fit the confidence of every setting to the map, whose places alone are used.

    Returns:
        One note for each setting that could not be fitted.
    """
    notes, config = [], ConfidenceFitConfig()
    wanted = {setting_name(place_map.fingerprint, made): made for made in settings.values() if not callable(made)}
    total = len(wanted) * num_queries(place_map, config)
    with tqdm(total=total, unit="place", desc="calibrate", disable=None) as bar:
        for name, made in wanted.items():
            recognizer = PlaceRecognizer(extractor, place_map, made)
            try:
                fitted = fit_confidence(place_map, extractor, recognizer, config, lambda done: bar.update(done))
                store_confidence_model(place_map, fitted)
            except EvaluationError as error:
                notes.append(f"the confidence of {name} is not fitted to the database: {error}")
    return notes


def make_methods(
    settings: Mapping[str, RecognizerConfig | Baseline],
    extractor: FeatureExtractor,
    place_map: MapReader,
    top_k: int,
    *,
    asks_map: bool,
) -> dict[str, Method]:
    """Methods that answer on one map.

    Args:
        settings: from `parse_methods`.
        extractor: of the map's model.
        place_map: open.
        top_k: most places in an answer of a baseline.
        asks_map: ask the map first what wrong answers reach, as `map build` does; not where its places are the queries.

    Raises:
        EvaluationError: the map's images have too little for a baseline's vocabulary.
    """
    return {
        name: EffoVPRMethod(
            place_map,
            PlaceRecognizer(
                extractor, place_map, made, null=measure_map_null(extractor, place_map, made) if asks_map else None
            ),
        )
        if isinstance(made, RecognizerConfig)
        else made(place_map, top_k)
        for name, made in tqdm(settings.items(), unit="method", desc="set up", disable=None)
    }


def _parse_settings(text: str, settings: str) -> dict[str, Any]:
    known = {entry.name: entry for entry in fields(RecognizerConfig)}
    values: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key not in known:
            raise ConfigError(f"method {text!r}: no setting {key!r}; use {', '.join(known)}")
        values[key] = convert_setting(value, known[key].default, text)
    return values


def convert_setting(value: str, default: object, text: str) -> object:
    """The value of a setting of a method, of the type of its default.

    Raises:
        ConfigError: it is not of that type.
    """
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"method {text!r}: {value!r} is neither true nor false")
        return value.lower() == "true"
    try:
        return type(default)(value)  # type: ignore[call-arg]
    except ValueError as error:
        raise ConfigError(f"method {text!r}: {value!r} is no {type(default).__name__}") from error
