"""Variants of the network side by side: frozen, trained, and in several lengths, each network run once an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import READING_FIELDS, ExtractorConfig
from effovpr_ros.features.image_features import Features
from effovpr_ros.features.names import NONE
from effovpr_ros.features.tails import find_tail
from effovpr_ros.features.variants import extract_variants
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer, EffoVPRMethod, Query
from effovpr_ros.lab.evaluation.runner import database_map
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.quantisation_sources import frames_quantisation_images
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.sources.images import open_image_folder

_BATCH = 8


class StoredAs(NamedTuple):
    """What a map of a variant depends on; fields as in `Variant`."""

    extractor: ExtractorConfig
    pca: int = 0
    pca_images: str = ""


@dataclass(frozen=True)
class Variant:
    """A network with a way to use it.

    Attributes:
        extractor: of its features.
        recognizer: of its answers.
        pca: principal components that replace the global descriptor; 0: none.
        pca_images: folder of images whose descriptors they are fitted to; the database's if empty.
    """

    extractor: ExtractorConfig
    recognizer: RecognizerConfig
    pca: int = 0
    pca_images: str = ""

    @property
    def stored(self) -> StoredAs:
        """What its map depends on; variants with the same share one."""
        return StoredAs(self.extractor, self.pca, self.pca_images)


@dataclass(frozen=True)
class Extracted:
    """Features of one configuration.

    Attributes:
        extractor: that made them.
        queries: with their features.
        database: of every database image, in order; None where the queries are the database.
    """

    extractor: FeatureExtractor
    queries: tuple[Query, ...]
    database: tuple[Features, ...] | None


class VariantMethod:
    """Answers queries by features of its own, whatever network made those that it is asked with."""

    def __init__(self, method: EffoVPRMethod, asked: Sequence[Query], own: Sequence[Query]) -> None:
        """Pair queries.

        Args:
            method: on a map of the variant.
            asked: queries as they will be asked.
            own: the same ones with features of the variant.
        """
        self._method = method
        # Features do not hash; the queries live as long as the run.
        self._own = {id(query): mine for query, mine in zip(asked, own, strict=True)}
        self.bytes_per_place, self.calibrated = method.bytes_per_place, method.calibrated

    def answer(self, query: Query) -> Answer:
        """See `Method`."""
        return self._method.answer(self._own[id(query)])

    def matched_cells(self, query: Query, place_id: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """See `MatchesPatches`."""
        return self._method.matched_cells(self._own[id(query)], place_id)


def extract_all(
    dataset: Dataset, configs: Sequence[ExtractorConfig], progress: Callable[[int], object]
) -> dict[ExtractorConfig, Extracted]:
    """Features of every configuration, by one forward pass an image and network.

    Raises:
        ImageError: an image cannot be read.
    """
    networks: dict[ExtractorConfig, list[ExtractorConfig]] = {}
    for config in dict.fromkeys(configs):
        networks.setdefault(_network(config), []).append(config)
    found: dict[ExtractorConfig, Extracted] = {}
    for readings in networks.values():
        loaded = FeatureExtractor(readings[0], frames_quantisation_images(dataset.database))
        extractors = [loaded.reading(config) for config in readings]
        queries = query_variants(dataset, extractors, progress)
        shared = dataset.database is dataset.queries
        database = None if shared else database_variants(dataset, extractors, progress)
        for number, (config, extractor) in enumerate(zip(readings, extractors, strict=True)):
            known = None if database is None else tuple(database[number])
            found[config] = Extracted(extractor, tuple(queries[number]), known)
    return found


@contextmanager
def variant_map(
    dataset: Dataset, extracted: Extracted, stored: StoredAs, progress: Callable[[int], object]
) -> Iterator[MapReader]:
    """The map that a variant answers on, open.

    Raises:
        ConfigError: fewer images than principal components.
        SourceError: there are no images to fit them to.
    """
    made = database_map(dataset, extracted.queries, extracted.extractor, progress, known=extracted.database)
    with made as place_map:
        if stored.pca:
            if not isinstance(place_map, PlaceMap):
                raise ConfigError(
                    f"map {place_map.path} lies in shards and gets no principal components; merge it first"
                )
            examples = _descriptors(extracted.extractor, stored.pca_images) if stored.pca_images else None
            place_map.fit_pca(stored.pca, examples)
        yield place_map


def _descriptors(extractor: FeatureExtractor, folder: str) -> NDArray[np.float32]:
    """(N, D) global descriptors of the images of a folder."""
    frames = open_image_folder(folder, kind="plain").frames
    found = [
        features.global_descriptor
        for start in range(0, len(frames), _BATCH)
        for features in extractor.extract([frame.load() for frame in frames[start : start + _BATCH]])
    ]
    return np.stack(found)


def variant_method(
    place_map: MapReader, extracted: Extracted, variant: Variant, asked: Sequence[Query]
) -> VariantMethod:
    """A variant's method on its map, for queries as they will be asked."""
    recognizer = PlaceRecognizer(extracted.extractor, place_map, variant.recognizer)
    return VariantMethod(EffoVPRMethod(place_map, recognizer), asked, extracted.queries)


def query_variants(
    dataset: Dataset, extractors: Sequence[FeatureExtractor], progress: Callable[[int], object]
) -> list[list[Query]]:
    """Queries of each extractor of one network, one image a forward pass, as a robot asks."""
    queries: list[list[Query]] = [[] for _ in extractors]
    for frame, among in zip(dataset.queries, dataset.limits, strict=True):
        for found, variant in zip(queries, extract_variants(extractors, [frame.load()]), strict=True):
            found.append(Query(frame, variant.features[0], variant.extract_ms, among))
        progress(1)
    return queries


def database_variants(
    dataset: Dataset, extractors: Sequence[FeatureExtractor], progress: Callable[[int], object]
) -> list[list[Features]]:
    """Features of the database images of each extractor of one network."""
    database: list[list[Features]] = [[] for _ in extractors]
    for start in range(0, len(dataset.database), _BATCH):
        images = [frame.load() for frame in dataset.database[start : start + _BATCH]]
        for found, variant in zip(database, extract_variants(extractors, images), strict=True):
            found.extend(variant.features)
        progress(len(images))
    return database


def num_steps(dataset: Dataset, variants: Mapping[str, Variant], configs: Sequence[ExtractorConfig]) -> int:
    """What progress of `extract_all` and the variants' maps counts up to."""
    networks = len({_network(config) for config in configs})
    shared = dataset.database is dataset.queries
    images = len(dataset.queries) + (0 if shared else len(dataset.database))
    maps = len({variant.stored for variant in variants.values()})
    return networks * images + maps * len(dataset.database)


def _network(config: ExtractorConfig) -> ExtractorConfig:
    """What a configuration shares with others that read the same network."""
    same = ExtractorConfig()
    _, tail = find_tail(config.model, config.weights, config.tail)
    # A tail of heads alone is read of the frozen network.
    own = config.tail if tail is not None and tail.weights else NONE
    read = {name: getattr(same, name) for name in (*READING_FIELDS, "global_dim", "local_codes")}
    return replace(config, tail=own, **read)
