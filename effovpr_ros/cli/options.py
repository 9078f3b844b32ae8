"""Options that several commands share; defaults come from the configuration dataclasses."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from effovpr_ros.engines.catalogue import ENGINE_NAMES
from effovpr_ros.features.extractor_config import GLOBAL_KINDS, ExtractorConfig
from effovpr_ros.matching.rerank_config import SCORES
from effovpr_ros.recognition.presets import PRESETS, config_for_map, preset_for
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

if TYPE_CHECKING:
    from effovpr_ros.mapping.map_reading import MapReader

AUTO_PRESET = "auto"
_EXTRACTOR = PRESETS["default"][0]
_MODEL_FIELDS = {
    "model": "model",
    "size": "image_size",
    "block": "local_block",
    "facet": "facet",
    "global": "global_kind",
    "dim": "global_dim",
    "tail": "tail",
    "t1": "min_attention",
    "max-keypoints": "max_keypoints",
    "local-codes": "local_codes",
}
"""Option to field of `ExtractorConfig`."""
Subparsers = Any


def has_default(action: argparse.Action) -> bool:
    """Whether an option has a default that tells a reader something: not a switch, and not empty."""
    default = action.default
    return default is not None and default is not False and default not in ("", [], [""], argparse.SUPPRESS)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if has_default(action) else action.help


def command(commands: Subparsers, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A sub-command whose help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example: {example}",
        formatter_class=HelpFormatter,
    )
    return parser


def add_device_options(parser: argparse.ArgumentParser, *, precision_option: str = "--precision") -> None:
    """Where the model runs and where its weights lie; a command with another `--precision` names that of numbers."""
    parser.add_argument(
        "--weights",
        default=_EXTRACTOR.weights,
        help="weights file, tail that `effovpr train` made, or BASE,TAIL; without it, the model's own source",
    )
    parser.add_argument("--device", default=_EXTRACTOR.device, help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        precision_option, dest="number_precision", default=_EXTRACTOR.precision, help="auto, fp32, fp16 or bf16"
    )
    parser.add_argument(
        "--engine",
        choices=ENGINE_NAMES,
        default=_EXTRACTOR.engine,
        help="what runs the network; auto: the fastest on this machine that gives PyTorch's descriptors",
    )


def add_model_options(parser: argparse.ArgumentParser, *, of_a_map: bool = False) -> None:
    """What a new map's descriptors are; or, with `of_a_map`, what those of an existing map are expected to be."""
    helps = {
        "model": "offline, small, base, large, giant or a timm ViT name",
        "size": "side of the network's input in pixels",
        "block": "block of the local descriptors; negative counts from the last",
        "facet": "query, key or value",
        "global": f"kind of the global descriptor: {' or '.join(GLOBAL_KINDS)}",
        "dim": "length of the global descriptor, one of a trained tail's; 0: its default",
        "tail": "trained tail, if --weights names none: auto, none or the name of a shipped one",
        "t1": "patches with less attention to [CLS] are not used (T1); 0: all patches",
        "max-keypoints": "most patches that are used of an image; 0: all",
        "local-codes": "length of the local descriptors: auto, full, or the name of a projection",
    }
    for name, text in helps.items():
        kind = type(getattr(_EXTRACTOR, _MODEL_FIELDS[name]))
        if of_a_map:
            text = f"refuse a map that was made with another value: {text}"
        # None where an option was not given: the preset's or the map's value holds.
        parser.add_argument(f"--{name}", type=kind, help=text)


def add_preset_option(parser: argparse.ArgumentParser) -> None:
    """Add `--preset`, whose settings other options change."""
    parser.add_argument(
        "--preset",
        choices=(AUTO_PRESET, *PRESETS),
        default=AUTO_PRESET,
        help="settings to start from; auto: default for the offline model, paper for any other network",
    )


def preset(options: argparse.Namespace) -> tuple[ExtractorConfig, RecognizerConfig]:
    """The settings that `--preset` names, or those of the model where it names none."""
    name: str = options.preset
    if name == AUTO_PRESET:
        name = preset_for(getattr(options, "model", None) or _EXTRACTOR.model)
    return PRESETS[name]


def given_model_options(options: argparse.Namespace) -> list[tuple[str, str, object]]:
    """Model options that were given: the option, the field of `ExtractorConfig` and the value."""
    values = {name: getattr(options, name.replace("-", "_")) for name in _MODEL_FIELDS}
    return [(f"--{name}", _MODEL_FIELDS[name], value) for name, value in values.items() if value is not None]


def extractor_config(options: argparse.Namespace) -> ExtractorConfig:
    """The preset with the options of the model and the device."""
    given: dict[str, Any] = {field: value for _, field, value in given_model_options(options)}
    return replace(preset(options)[0], **given, **device_settings(options))


def device_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_device_options` asks for, by field of `ExtractorConfig`."""
    return {
        "weights": options.weights,
        "device": options.device,
        "precision": options.number_precision,
        "engine": options.engine,
    }


def add_recognizer_options(parser: argparse.ArgumentParser) -> None:
    """How a query is answered; what is not given is as the map was made for."""
    parser.add_argument("--top-k", type=int, help="candidates to re-rank; without it, as the map says")
    parser.add_argument("--score", choices=SCORES, help="re-ranking score; without it, as the map says")
    parser.add_argument(
        "--t2", type=float, help="mutual matches at or below this cosine do not count; without it, as the map says"
    )
    parser.add_argument("--no-rerank", action="store_true", help="decide on global similarity alone")


def given_recognizer_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of `add_recognizer_options`, by field of `RecognizerConfig`."""
    values = {"top_k": options.top_k, "score": options.score, "min_similarity": options.t2}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return {**given, "rerank": False} if options.no_rerank else given


def recognizer_config(options: argparse.Namespace, place_map: MapReader) -> RecognizerConfig:
    """The recogniser that the options describe, for a map."""
    return config_for_map(place_map, given_recognizer_settings(options))


def print_json(value: Any) -> None:
    """One JSON object on stdout: a mapping, or a dataclass, whose schema the reference has (see `cli.outputs`)."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    print(json.dumps(plain, indent=2, ensure_ascii=False))
