"""Everything that makes a map of frames ready to be asked: places, their points, and what its wrong answers reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import BuildReport, build_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.map_null import keep_map_null
from effovpr_ros.recognition.presets import config_for_map
from effovpr_ros.recognition.third_stage import describe_points
from effovpr_ros.sources.frame import Frame


def fill_map(
    place_map: PlaceMap,
    extractor: FeatureExtractor,
    frames: Iterable[Frame],
    config: BuildConfig,
    progress: Callable[[int], object] | None = None,
    *,
    with_points: bool = True,
    principal_components: int = 0,
) -> BuildReport:
    """Append frames to a map and ask it about its own places (`measure_map_null`).

    Args:
        place_map: open for writing.
        extractor: of the map's model.
        frames: in driving order.
        config: spacing, batch and thumbnail size.
        progress: see `mapping.builder.build_map`.
        with_points: whether each place keeps points, by which doubtful answers are verified.
        principal_components: of the global descriptors that the index holds; 0: all.

    Raises:
        ModelMismatchError: the extractor is another model than the map's.
        MapError: the map cannot be written.
        SourceError: the source failed midway; what came before it is kept.
        WeightsError: the weights of the points' network cannot be used.
    """
    points_of = describe_points(str(extractor.device)) if with_points else None
    report = build_map(place_map, extractor, frames, config, progress, points_of=points_of)
    if report.interrupted:
        return report
    if principal_components:
        place_map.fit_pca(principal_components)
    # Asks only where places were added, or where nothing is known yet.
    keep_map_null(extractor, place_map, config_for_map(place_map, {} if with_points else {"verify": "off"}))
    return report
