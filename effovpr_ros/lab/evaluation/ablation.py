"""Ablation: one factor varied at a time around a base setting, sharing forward passes, features and maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.backbone import Layout
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.names import FACETS
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import EffoVPRMethod
from effovpr_ros.lab.evaluation.runner import database_map, run_methods
from effovpr_ros.lab.evaluation.summary import method_figures
from effovpr_ros.lab.evaluation.summary_records import MethodFigures
from effovpr_ros.lab.evaluation.variants import database_variants, query_variants
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.quantisation_sources import frames_quantisation_images
from effovpr_ros.matching.rerank_config import SCORES
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

Value = int | float | str

_LAST_BLOCKS = 6
_SIDES = (224, 322, 448)
# Features of one pass are held in memory; more settings than fit take another pass.
_PASS_BYTES = 2**30


@dataclass(frozen=True)
class Factor:
    """Something that an ablation varies.

    Attributes:
        config: which configuration it belongs to.
        field: its field there.
        values: to try, for a network; the base setting's own value is tried too.
    """

    config: type[ExtractorConfig] | type[RecognizerConfig]
    field: str
    values: Callable[[Layout], Sequence[Value]]


FACTORS: dict[str, Factor] = {
    "block": Factor(ExtractorConfig, "local_block", lambda network: _last_blocks(network.depth)),
    "facet": Factor(ExtractorConfig, "facet", lambda _: FACETS),
    "T1": Factor(ExtractorConfig, "min_attention", lambda _: (0.0, 0.02, 0.05, 0.1)),
    "T2": Factor(RecognizerConfig, "min_similarity", lambda _: (0.4, 0.5, 0.6, 0.65, 0.7, 0.75)),
    "K": Factor(RecognizerConfig, "top_k", lambda _: (10, 25, 50, 100)),
    "score": Factor(RecognizerConfig, "score", lambda _: SCORES),
    "resolution": Factor(ExtractorConfig, "image_size", lambda network: _sides(network.patch_size)),
}


@dataclass(frozen=True)
class Setting:
    """One row to be measured.

    Attributes:
        factor: name of what differs from the base setting.
        value: of the factor.
        is_base: whether this is the base setting's own value.
        extractor: configuration.
        recognizer: configuration.
    """

    factor: str
    value: Value
    is_base: bool
    extractor: ExtractorConfig
    recognizer: RecognizerConfig


@dataclass(frozen=True)
class AblationRow:
    """What a setting reached.

    Attributes:
        setting: that was measured.
        keypoints_per_place: mean of the database images.
        figures: of both stages.
    """

    setting: Setting
    keypoints_per_place: float
    figures: MethodFigures


def parse_factors(text: str) -> tuple[str, ...]:
    """Names from a comma-separated list.

    Raises:
        ConfigError: an unknown factor, one that comes twice, or none.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in FACTORS:
            raise ConfigError(f"factor {name!r} is unknown; use some of {','.join(FACTORS)}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{text!r} names a factor twice")
    return names


def plan_settings(
    factors: Sequence[str], extractor: FeatureExtractor, recognizer: RecognizerConfig
) -> tuple[Setting, ...]:
    """All values of each factor, ascending where they are numbers, with the base setting's own among them.

    Args:
        factors: names in `FACTORS`.
        extractor: of the base setting.
        recognizer: of the base setting; it re-ranks.

    Raises:
        ConfigError: a value that the base setting does not allow.
    """
    # Counted from 0, so that the block of the base setting is recognised among the others.
    base = replace(extractor.config, local_block=extractor.block)
    settings = []
    for name in factors:
        factor = FACTORS[name]
        varies_extractor = factor.config is ExtractorConfig
        own: Value = getattr(base if varies_extractor else recognizer, factor.field)
        values = list(factor.values(extractor.layout))
        if own not in values:
            values = sorted([*values, own])
        for value in values:
            change: dict[str, Any] = {factor.field: value}
            changed = (
                (replace(base, **change), recognizer) if varies_extractor else (base, replace(recognizer, **change))
            )
            settings.append(Setting(name, value, value == own, *changed))
    return tuple(settings)


class Ablation:
    """Measures settings: one forward pass an image for all settings of one input size that fit into memory."""

    def __init__(self, dataset: Dataset, settings: Sequence[Setting], extractor: FeatureExtractor) -> None:
        """Arrange the work.

        Args:
            dataset: to measure on.
            settings: from `plan_settings`.
            extractor: of the base setting; its network is used for all settings of its size.
        """
        self._dataset = dataset
        self._settings = settings
        self._extractor = extractor
        self._recognizers: dict[ExtractorConfig, dict[RecognizerConfig, None]] = {}
        for setting in settings:
            self._recognizers.setdefault(setting.extractor, {})[setting.recognizer] = None
        self._shares_images = dataset.database is dataset.queries
        self._passes = list(self._arranged())

    @property
    def num_steps(self) -> int:
        """Images to extract, places to store and queries to answer: what progress counts up to."""
        queries, database = len(self._dataset.queries), len(self._dataset.database)
        images = queries + (0 if self._shares_images else database)
        runs = sum(len(found) for found in self._recognizers.values())
        return len(self._passes) * images + len(self._recognizers) * database + runs * queries

    def run(self, progress: Callable[[int], object]) -> list[AblationRow]:
        """Measure; one row a setting, in order.

        Raises:
            ImageError: an image cannot be read.
        """
        measured: dict[tuple[ExtractorConfig, RecognizerConfig], tuple[float, MethodFigures]] = {}
        for configs in self._passes:
            extractors = self._load(configs)
            queries = query_variants(self._dataset, extractors, progress)
            database = None if self._shares_images else database_variants(self._dataset, extractors, progress)
            for number, (config, extractor) in enumerate(zip(configs, extractors, strict=True)):
                known = None if database is None else database[number]
                with database_map(self._dataset, queries[number], extractor, progress, known=known) as place_map:
                    keypoints = _keypoints_per_place(place_map)
                    for recognizer in self._recognizers[config]:
                        method = EffoVPRMethod(place_map, PlaceRecognizer(extractor, place_map, recognizer))
                        results = run_methods(queries[number], {"effovpr": method}, progress)
                        figures = method_figures(self._dataset, results["effovpr"])
                        measured[config, recognizer] = (keypoints, figures)
        return [AblationRow(item, *measured[item.extractor, item.recognizer]) for item in self._settings]

    def _arranged(self) -> Iterator[list[ExtractorConfig]]:
        """Settings of one input size, as many at a time as their features fit into memory."""
        patch, width = self._extractor.layout.patch_size, self._extractor.layout.width
        images = len(self._dataset.queries) + len(self._dataset.database)
        for side in sorted({config.image_size for config in self._recognizers}):
            configs = [config for config in self._recognizers if config.image_size == side]
            most = max(1, _PASS_BYTES // (images * (side // patch) ** 2 * width))
            yield from (configs[start : start + most] for start in range(0, len(configs), most))

    def _load(self, configs: Sequence[ExtractorConfig]) -> list[FeatureExtractor]:
        same_size = configs[0].image_size == self._extractor.config.image_size
        quantisation_images = frames_quantisation_images(self._dataset.database)
        network = self._extractor if same_size else FeatureExtractor(configs[0], quantisation_images)
        return [network.reading(config) for config in configs]


def _keypoints_per_place(place_map: MapReader) -> float:
    return sum(len(place_map.local_features([number])[0]) for number in range(len(place_map))) / len(place_map)


def _last_blocks(depth: int) -> tuple[int, ...]:
    return tuple(range(max(0, depth - _LAST_BLOCKS), depth))


def _sides(patch_size: int) -> tuple[int, ...]:
    return tuple(round(side / patch_size) * patch_size for side in _SIDES)
