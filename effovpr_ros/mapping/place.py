"""What a map entry knows: place, pose, geo-tag; and what a search returns."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.image_features import Features


@dataclass(frozen=True)
class Place:
    """One entry of a map, without its descriptors.

    Attributes:
        place_id: number in the map, from 0; without gaps unless places were forgotten.
        session: drive or collection that it came from.
        stamp_ns: time of its image in nanoseconds; None if unknown.
        source: image file name, or topic of a bag.
        pose: in the map frame, or in that of its session where it has one of its own, if known.
        geo: geo-tag, if known.
        image_size_wh: pixels of the original image.
        own_frame: frame of the pose where it is not the map's, as of a session or a track with an odometry of its own;
            else empty. Poses of different frames are never compared.
    """

    place_id: int
    session: str
    stamp_ns: int | None
    source: str
    pose: Pose | None
    geo: GeoPoint | None
    image_size_wh: tuple[int, int]
    own_frame: str = ""

    @property
    def map_pose(self) -> Pose | None:
        """The pose, where it is in the map frame."""
        return None if self.own_frame else self.pose


@dataclass(frozen=True)
class NewPlace:
    """A place about to join a map: `Place` without a number, with thumbnail (JPEG), features and encoded points.

    `digest` tells it from places of the same session, source and time, see `sources.frame.content_digest`.
    """

    session: str
    stamp_ns: int | None
    source: str
    pose: Pose | None
    geo: GeoPoint | None
    image_size_wh: tuple[int, int]
    thumbnail: bytes
    features: Features
    points: bytes | None = None
    digest: str = ""

    def placed(self, place_id: int, own_frame: str) -> Place:
        """The place that it becomes."""
        where = (self.pose, self.geo, self.image_size_wh, own_frame)
        return Place(place_id, self.session, self.stamp_ns, self.source, *where)


@dataclass(frozen=True)
class PointCounts:
    """Points that a query and a candidate share; see `geometry.verified_matches`.

    Attributes:
        matches: mutual nearest neighbours.
        homography: of them, those that agree with one homography.
        possible: points of the picture that has fewer, of which no more can match; None where unknown.
    """

    matches: int
    homography: int
    possible: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A place that a query may show.

    Attributes:
        place: the map entry.
        similarity: cosine of the global descriptors.
        num_matches: mutual matches above T2; 0 before re-ranking.
        num_consistent: of them, those that agree on one displacement; 0 before re-ranking.
        score: of re-ranking; 0 before it.
        displacement_xy_cells: see `matching.reranking.CandidateScore`.
        points: that it shares with the query; None where the third stage did not look.
    """

    place: Place
    similarity: float
    num_matches: int = 0
    num_consistent: int = 0
    score: float = 0.0
    displacement_xy_cells: tuple[float, float] = (0.0, 0.0)
    points: PointCounts | None = None
