"""What a server of maps says of its map."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.remote.answers import GeoRecord
from effovpr_ros.remote.reading import read_from_server


@dataclass(frozen=True)
class Extent:
    """Least and greatest coordinates of places in the map frame, in metres."""

    min_x: float
    min_y: float
    max_x: float
    max_y: float


@dataclass(frozen=True)
class MapInfo:
    """A map that is served.

    Attributes:
        name: of the map.
        revision: changes when the map does.
        version: of the package that serves.
        places: their number.
        sessions: their number.
        frame_id: frame of the poses.
        bodies: frames of the bodies whose poses they are, as far as they are known.
        datum: origin of that frame; null where it is not geo-referenced.
        extent: of the places; null where no position is known.
        model: that made the descriptors.
        points: kind of the points that the third stage matches; empty where it does not run.
        measures_poses: whether the map keeps cameras to measure poses by, and that is wanted.
        shards: parts that the map is served in.
        in_order: whether places that follow each other may be near each other, as far as is known.
    """

    name: str
    revision: str
    version: str
    places: int
    sessions: int
    frame_id: str
    bodies: tuple[str, ...]
    datum: GeoRecord | None
    extent: Extent | None
    model: ModelFingerprint
    points: str
    measures_poses: bool
    shards: int
    in_order: bool


def read_map_info(values: object, where: str) -> MapInfo:
    """A map of what JSON held.

    Raises:
        ServerError: another form.
    """
    return read_from_server(MapInfo, values, "what the server says of its map", where)
