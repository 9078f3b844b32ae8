"""`effovpr evaluate --methods zs g r pca`: variants of the network beside each other (paper section 4)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from effovpr_ros.cli.evaluate_methods import Baseline, convert_setting, fit_methods, make_methods, parse_methods
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.tail_file import is_tail
from effovpr_ros.features.tails import find_tail
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Method
from effovpr_ros.lab.evaluation.runner import Run, run_methods
from effovpr_ros.lab.evaluation.variants import StoredAs, Variant, extract_all, num_steps, variant_map, variant_method
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

VARIANTS = ("zs", "g", "r", "pca")
"""Names, alone or before a dash: zero-shot; trained, stage 1; trained, both stages; frozen with PCA, stage 1."""
_FIELDS = {"weights": "weights", "tail": "tail", "dim": "global_dim", "global": "global_kind", "block": "local_block"}


def split_variants(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Methods of the evaluated network, and variants of it."""
    variants = [text for text in texts if _kind(text) in VARIANTS]
    return [text for text in texts if text not in variants], variants


def parse_variants(
    texts: Sequence[str], recognizer: RecognizerConfig, extractor: ExtractorConfig
) -> dict[str, Variant]:
    """Variants by name.

    Args:
        texts: NAME or NAME:key=value,... with a name as in `VARIANTS` and keys of `_FIELDS` or `RecognizerConfig`.
        recognizer: what the settings change.
        extractor: likewise.

    Raises:
        ConfigError: an unknown setting or value, a name that comes twice.
    """
    extractor = _with_tail_named(extractor)
    variants: dict[str, Variant] = {}
    for text in texts:
        name, _, settings = text.partition(":")
        if name in variants:
            raise ConfigError(f"method {name!r} comes twice; give one of them another name, as {name}-2")
        kind = _kind(text)
        given = dict(setting.partition("=")[::2] for setting in filter(None, settings.split(",")))
        own = {key: given.pop(key) for key in list(given) if key in _FIELDS}
        changes: dict[str, Any] = {
            _FIELDS[key]: convert_setting(value, getattr(extractor, _FIELDS[key]), text) for key, value in own.items()
        }
        pca, pca_images = 0, given.pop("images", "") if kind == "pca" else ""
        bases = [part for part in extractor.weights.split(",") if part and not is_tail(part)]
        if kind in ("zs", "pca"):
            changes |= {"tail": "none", "weights": ",".join(bases)}
        elif "weights" in own:
            changes["weights"] = ",".join((*bases, own["weights"]))
        if kind == "pca":
            pca, changes["global_dim"] = int(changes.pop("global_dim", 0)), 0
            if pca < 1:
                raise ConfigError(f"method {text!r}: name the number of principal components, as {name}:dim=128")
        config = replace(extractor, **changes)
        rest = ",".join(f"{key}={value}" for key, value in given.items())
        base = replace(recognizer, rerank=kind in ("zs", "r"))
        made = parse_methods([f"{name}:{rest}"], base)[name] if rest else base
        if not isinstance(made, RecognizerConfig):
            raise ConfigError(f"method {text!r} has no settings of recognition")
        variants[name] = Variant(config, made, pca, pca_images)
    return variants


def run_variants(
    options: argparse.Namespace,
    dataset: Dataset,
    extractor: ExtractorConfig,
    settings: Mapping[str, RecognizerConfig | Baseline],
    variants: Mapping[str, Variant],
    finish: Callable[[argparse.Namespace, Run], int],
    *,
    top_k: int,
) -> int:
    """Answer by all methods, in the order in which they were named.

    Args:
        options: `methods`, `calibrate` and `command_line`.
        dataset: to evaluate on.
        extractor: of the network that is evaluated.
        settings: methods of that network; may be none.
        variants: of the network.
        finish: reports the run, whose maps are open, and gives the exit code.
        top_k: most places in an answer of a baseline.

    Raises:
        ConfigError: the data set is a map, whose descriptors are what they are.
    """
    if dataset.map_path is not None:
        raise ConfigError("variants of the network need images to build maps of; use `effovpr evaluate folders`")
    extractor = _with_tail_named(extractor)
    first = extractor if settings else next(iter(variants.values())).extractor
    configs = [first, *(variant.extractor for variant in variants.values())]
    with ExitStack() as stack, tqdm(unit="image", desc="networks", disable=None) as bar:
        bar.total = num_steps(dataset, variants, configs) + (len(dataset.database) if settings else 0)
        extracted = extract_all(dataset, configs, lambda done: bar.update(done))
        queries = extracted[first].queries
        maps: dict[StoredAs, MapReader] = {}
        wanted = [variant.stored for variant in variants.values()]
        for stored in dict.fromkeys([StoredAs(first), *wanted] if settings else wanted):
            opened = variant_map(dataset, extracted[stored.extractor], stored, lambda done: bar.update(done))
            maps[stored] = stack.enter_context(opened)
        methods: dict[str, Method] = {}
        if settings:
            base = maps[StoredAs(first)]
            _calibrate(options, settings, extracted[first].extractor, base)
            methods |= make_methods(settings, extracted[first].extractor, base, top_k, asks_map=False)
        for name, variant in variants.items():
            place_map, own = maps[variant.stored], extracted[variant.extractor]
            _calibrate(options, {name: variant.recognizer}, own.extractor, place_map)
            methods[name] = variant_method(place_map, own, variant, queries)
        order = [text.partition(":")[0] for text in options.methods]
        methods = {name: methods[name] for name in order}
        with tqdm(total=len(methods) * len(queries), unit="query", desc="methods", disable=None) as asked:
            results = run_methods(queries, methods, lambda done: asked.update(done))
        configs_used = {name: made for name, made in settings.items() if isinstance(made, RecognizerConfig)}
        configs_used |= {name: variant.recognizer for name, variant in variants.items()}
        fingerprint = extracted[first].extractor.fingerprint
        return finish(options, Run(dataset, results, options.command_line, queries, methods, configs_used, fingerprint))


def _with_tail_named(config: ExtractorConfig) -> ExtractorConfig:
    """The same network; that `auto` means no tail is said, so that it is known for the frozen one."""
    _, tail = find_tail(config.model, config.weights, config.tail)
    return config if tail is not None else replace(config, tail="none")


def _kind(text: str) -> str:
    return text.partition(":")[0].partition("-")[0]


def _calibrate(
    options: argparse.Namespace,
    settings: Mapping[str, RecognizerConfig | Baseline],
    extractor: FeatureExtractor,
    place_map: MapReader,
) -> None:
    if options.calibrate:
        for note in fit_methods(settings, extractor, place_map):
            print(f"note: {note}", file=sys.stderr)
