"""Images that 8-bit engines are calibrated with: a map's own, or those that are about to be mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.engines.quantisation_images import QuantisationImages, readable
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.sources.frame import Frame


def map_quantisation_images(path: Path) -> QuantisationImages:
    """The thumbnails of a map."""

    def images() -> list[RgbImage]:
        with open_map(path) as place_map:

            def load(place_id: int) -> RgbImage:
                return decode_image(place_map.thumbnail(place_id), f"thumbnail {place_id}")

            return readable((partial(load, place_id) for place_id in range(len(place_map))), len(place_map))

    return QuantisationImages(_name(path), images)


def source_quantisation_images(path: Path, frames: Callable[[], Iterable[Frame]], total: int) -> QuantisationImages:
    """Images that a map is about to be built from; what is calibrated with them serves the finished map too.

    Args:
        path: of the map.
        frames: opens the source; read from its beginning to its end.
        total: about how many there are.
    """
    return QuantisationImages(_name(path), lambda: readable((frame.load for frame in frames()), total))


def frames_quantisation_images(frames: Sequence[Frame]) -> QuantisationImages:
    """Images that belong to no map, known by their sessions, names and times."""
    known = repr([(frame.session, frame.name, frame.stamp_ns) for frame in frames])
    name = f"images {hashlib.sha256(known.encode()).hexdigest()[:16]}"
    return QuantisationImages(name, lambda: readable((frame.load for frame in frames), len(frames)))


def _name(path: Path) -> str:
    return f"map {path.resolve()}"
