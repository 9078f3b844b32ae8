"""`effovpr evaluate --methods`: from what the user names to what answers queries."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from tqdm import tqdm

from effovpr_ros.errors import ConfigError
from effovpr_ros.evaluation.ablation import FACTORS
from effovpr_ros.evaluation.method import EffoVPRMethod, Method
from effovpr_ros.evaluation.orb_bow import OrbBowMethod
from effovpr_ros.evaluation.vlad import VladMethod
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.config import RecognizerConfig
from effovpr_ros.recognition.recognizer import PlaceRecognizer

PRESETS = {"default": RecognizerConfig(), "paper": RecognizerConfig(score="count")}
"""What `--preset` names; they share T1, T2, block and K, and differ in the score."""

Baseline = Callable[[PlaceMap, int], Method]
"""Makes a method of a map and the most places in an answer."""
BASELINES: dict[str, Baseline] = {"vlad": VladMethod, "orb-bow": OrbBowMethod}


def add_method_options(parser: argparse.ArgumentParser, *, ablation: bool) -> None:
    """Add `--methods`, what they share, and `--ablate` where it is offered."""
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        "--methods",
        nargs="+",
        default=["effovpr", "global"],
        help="effovpr (both stages), global (stage 1 only), vlad (of the same model's local descriptors), orb-bow "
        "(classical SLAM), or NAME:key=value,... with settings of recognition, as seq:sequence_length=10",
    )
    if ablation:
        wanted.add_argument(
            "--ablate",
            metavar="FACTOR,...",
            help=f"instead of --methods: vary some of {','.join(FACTORS)}, one at a time, around the settings given",
        )
    else:
        parser.set_defaults(ablate=None)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="default", help="paper re-ranks by count")
    parser.add_argument("--top-k", type=int, default=PRESETS["default"].top_k, help="candidates to re-rank")


def base_config(options: argparse.Namespace) -> RecognizerConfig:
    """What methods and ablations change, from `--preset` and `--top-k`."""
    return replace(PRESETS[options.preset], top_k=options.top_k)


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
            methods[name] = replace(base, rerank=name == "effovpr")
        else:
            known = ", ".join(("effovpr", "global", *BASELINES))
            raise ConfigError(f"method {name!r} is unknown; use {known} or NAME:key=value,...")
    return methods


def make_methods(
    settings: Mapping[str, RecognizerConfig | Baseline], extractor: FeatureExtractor, place_map: PlaceMap, top_k: int
) -> dict[str, Method]:
    """Methods that answer on one map.

    Args:
        settings: from `parse_methods`.
        extractor: of the map's model.
        place_map: open.
        top_k: most places in an answer of a baseline.

    Raises:
        EvaluationError: the map's images have too little for a baseline's vocabulary.
    """
    return {
        name: EffoVPRMethod(place_map, PlaceRecognizer(extractor, place_map, made))
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
        values[key] = _convert(value, known[key].default, text)
    return values


def _convert(value: str, default: object, text: str) -> object:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"method {text!r}: {value!r} is neither true nor false")
        return value.lower() == "true"
    try:
        return type(default)(value)  # type: ignore[call-arg]
    except ValueError as error:
        raise ConfigError(f"method {text!r}: {value!r} is no {type(default).__name__}") from error
