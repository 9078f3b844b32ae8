"""Data sets from bags: a drive against a map, and a drive against its own past."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.images import RgbImage, decode_image
from effovpr_ros.core.mounted_cameras import MountedCamera, camera_names
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.evaluation.ground_truth import Dataset, among, past_frames, require_positives
from effovpr_ros.lab.evaluation.positions import positives_by_pose
from effovpr_ros.lab.evaluation.rig_queries import CameraFrame, Moment, cameras_of, looking, moments_of
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.session_cameras import read_cameras
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.mapping.store import PlaceStore
from effovpr_ros.sources.bag_cameras import camera_of_bag
from effovpr_ros.sources.bag_files import POSE_TYPES, bag_topics
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.pose_origin import origin_of_bag


@dataclass(frozen=True)
class PoseTruth:
    """Where the truth is in a bag, and what is near by it.

    Attributes:
        pose_topic: Odometry, PoseStamped, PoseWithCovarianceStamped, Path or NavSatFix; empty for the only one.
        radius_m: two images at most so far apart, horizontally, show one place.
        max_heading_deg: and turned by at most so much, where both headings are known; None: any heading.
        max_gap_s: images between poses further apart than this have no pose.
    """

    pose_topic: str = ""
    radius_m: float = 5.0
    max_heading_deg: float | None = None
    max_gap_s: float = 0.5

    def positives(self, database: Sequence[Frame], queries: Sequence[Frame]) -> list[frozenset[int]]:
        """For each query, numbers of the database frames that show its place.

        Raises:
            EvaluationError: a frame without a pose, or an impossible limit.
        """
        return positives_by_pose(database, queries, radius_m=self.radius_m, max_heading_deg=self.max_heading_deg)

    @property
    def limits(self) -> str:
        """For messages."""
        turned = "" if self.max_heading_deg is None else f" and {self.max_heading_deg:g} degrees"
        return f"within {self.radius_m:g} m{turned}"


def from_bag(map_path: Path, bag: Path, truth: PoseTruth, *, image_topics: Sequence[str] = ("",)) -> Dataset:
    """Images of a bag against the places of a map.

    Of several cameras the images of one moment are one query. Where all mountings are known, here and in the map, a
    heading is where a camera looks: a place that one camera saw is right where another one looks the same way.

    Args:
        map_path: with poses in the frame of the bag's pose topic, or with a datum where that gives fixes.
        bag: rosbag2 directory or .mcap file.
        truth: its poses.
        image_topics: one a camera of one body; empty for the only one.

    Raises:
        EvaluationError: a map without poses, no image with a pose, a topic twice, or no query on mapped ground.
        MapError: the map cannot be opened.
        SourceError: the bag cannot be read or lacks a topic.
    """
    with open_map(map_path) as place_map:
        places, datum = map_frames(place_map), place_map.datum
        mounted = cameras_of(places, read_cameras(place_map))
    twice = sorted({topic for topic in image_topics if image_topics.count(topic) > 1})
    if twice:
        raise EvaluationError(f"--image-topic names {', '.join(twice)} twice; name each camera once")
    sources = [open_drive(bag, truth, datum, map_path, image_topic=topic) for topic in image_topics]
    source, names = sources[0], camera_names([source.image_topic for source in sources])
    moments = moments_of([_camera_frames(source, name) for source, name in zip(sources, names, strict=True)])
    queries = [moment[0].frame for moment in moments]
    everything = [range(len(places))] * len(queries)
    right = _positives(truth, places, mounted, moments)
    name = f"{source.session} in {map_path.resolve().name}"
    notes = [note for source in sources for note in _left_out(source)]
    if len(sources) > 1:
        alone = sum(len(moment) < len(sources) for moment in moments)
        notes.append(f"{len(moments)} queries of {' and '.join(names)}, {alone} of them without the image of a camera")
    dataset = Dataset(
        name,
        places,
        queries,
        right,
        everything,
        map_path=map_path,
        notes=notes,
        moments=moments if len(sources) > 1 else (),
    )
    return require_positives(
        dataset,
        f"check --radius, and whether {source.pose_topic} and the map share one frame (none is {truth.limits} of a "
        "place of the map)",
    )


def _camera_frames(source: BagSource, name: str) -> list[CameraFrame]:
    camera, _ = camera_of_bag(source, origin_of_bag(source).child_frame_id)
    return [CameraFrame(name, frame, camera) for frame in drive_frames(source)]


def _positives(
    truth: PoseTruth, places: Sequence[Frame], mounted: Sequence[MountedCamera | None], moments: Sequence[Moment]
) -> list[frozenset[int]]:
    """For each moment, the places that show what one of its cameras sees."""
    items = [item for moment in moments for item in moment]
    asked, stored = looking([item.frame for item in items], [item.camera for item in items]), looking(places, mounted)
    if asked is None or stored is None:
        asked, stored = [item.frame for item in items], list(places)
    found = iter(truth.positives(stored, asked))
    return [frozenset[int]().union(*(next(found) for _ in moment)) for moment in moments]


def from_bag_loops(
    bag: Path, truth: PoseTruth, *, image_topic: str = "", min_gap: int = 10, spacing_m: float = 0.0
) -> Dataset:
    """A drive against its own past.

    Args:
        bag: rosbag2 directory or .mcap file.
        truth: its poses.
        image_topic: empty for the only one.
        min_gap: a frame may be answered with frames at least so many before it.
        spacing_m: a frame counts if it is at least this far from the last one that does; 0: every frame.

    Raises:
        EvaluationError: see `from_bag`.
        SourceError: the bag cannot be read or lacks a topic.
    """
    if not spacing_m >= 0.0:
        raise EvaluationError(f"spacing {spacing_m} m must not be negative; 0 keeps every frame")
    source = BagSource(bag, image_topic=image_topic, pose_topic=truth.pose_topic, max_gap_s=truth.max_gap_s)
    frames = _spaced(drive_frames(source), spacing_m)
    allowed = past_frames(len(frames), min_gap)
    right = among(truth.positives(frames, frames), allowed)
    dataset = Dataset(source.session, frames, frames, right, allowed, notes=_left_out(source))
    return require_positives(
        dataset,
        f"check --radius and --min-gap, and whether the drive closes a loop at all (no frame comes {truth.limits} of "
        f"one at least {min_gap} frames earlier)",
    )


def open_drive(
    bag: Path, truth: PoseTruth, datum: Datum | None, map_path: Path | None, *, image_topic: str | None = ""
) -> BagSource:
    """A bag whose poses are in the frame of a map.

    Args:
        bag: rosbag2 directory or .mcap file.
        truth: its poses.
        datum: of the map.
        map_path: for messages; None where the map is not known.
        image_topic: empty for the only one, None for poses alone.

    Raises:
        EvaluationError: fixes, and the map has no datum.
        SourceError: the bag cannot be read or lacks a topic.
    """
    source = BagSource(
        bag, image_topic=image_topic, pose_topic=truth.pose_topic, max_gap_s=truth.max_gap_s, datum=datum
    )
    if datum is None and source.datum is not None:
        others = [topic for topic, kind in bag_topics(bag).items() if kind in POSE_TYPES and topic != source.pose_topic]
        lacking = f"the map {map_path} has no datum" if map_path else "without --map no datum is known"
        raise EvaluationError(
            f"pose topic {source.pose_topic} of {bag} gives fixes, and {lacking} to place them by; name a topic in the "
            f"map's frame with --pose ({', '.join(others) or 'the bag has none'}), or a map that was built with a datum"
        )
    return source


def drive_frames(source: BagSource) -> list[Frame]:
    """Images of a bag that have a pose, named by their stamp; each is read again when it is needed.

    Raises:
        EvaluationError: none has.
    """
    frames = [replace(frame, name=stamp_name(frame.known_stamp_ns)) for frame in source.frames(reread=True)]
    if not frames:
        refused = ", ".join(f"{count} {reason}" for reason, count in source.refused.items())
        raise EvaluationError(
            f"bag {source.path}: no image of {source.image_topic} has a pose of {source.pose_topic} at its stamp "
            f"({refused or 'the topic has no message'}); check that both use one clock, or raise --max-gap-s"
        )
    return frames


def map_frames(place_map: MapReader) -> list[Frame]:
    """Places of a map as frames, with their thumbnails as images and poses in the map frame.

    Raises:
        EvaluationError: a place has no pose, there is no place, or places were forgotten.
    """
    if not len(place_map):
        raise EvaluationError(f"map {place_map.path} has no place; add some with `effovpr map build`")
    if place_map.next_id != len(place_map):
        forgotten = place_map.next_id - len(place_map)
        raise EvaluationError(
            f"map {place_map.path} has forgotten {forgotten} of {place_map.next_id} places, and an evaluation counts "
            "places without gaps; record the drive again with a larger max_keyframes"
        )
    without = sum(_pose(place, place_map.datum) is None for place in place_map.places())
    if without:
        raise EvaluationError(
            f"map {place_map.path} has no pose for {without} of its {len(place_map)} places in the frame "
            f"{place_map.frame_id}, so that nothing can be said of what is near them; build it from a bag with "
            "a pose topic, a table, or geo-tagged images"
        )
    return [
        Frame(
            name=place_name(place),
            session=place.session,
            stamp_ns=place.stamp_ns,
            pose=_pose(place, place_map.datum),
            geo=place.geo,
            load=partial(_thumbnail, *place_map.folder_of(place.place_id)),
        )
        for place in place_map.places()
    ]


def place_name(place: Place) -> str:
    """File name of a place's image, or session and stamp where it came from a topic."""
    return f"{place.session}/{stamp_name(place.stamp_ns)}" if place.source.startswith("/") else place.source


def stamp_name(stamp_ns: int | None) -> str:
    """Seconds with nine digits behind the point: what images of a topic are called; zeros where unknown."""
    seconds, nanoseconds = divmod(stamp_ns or 0, 10**9)
    return f"{seconds}.{nanoseconds:09d}"


def _pose(place: Place, datum: Datum | None) -> Pose | None:
    if place.map_pose is None and place.geo is not None and datum is not None:
        return Pose(datum.to_enu(place.geo), None)
    return place.map_pose


def _thumbnail(map_path: Path, place_id: int) -> RgbImage:
    with closing(PlaceStore(map_path, writable=False)) as store:
        return decode_image(store.thumbnail(place_id), f"thumbnail of place {place_id} of {map_path}")


def _spaced(frames: Sequence[Frame], spacing_m: float) -> list[Frame]:
    kept: list[Frame] = []
    last: Pose | None = None
    for frame in frames:
        if last is None or frame.pose is None or last.distance_m(frame.pose) >= spacing_m:
            kept.append(frame)
            last = frame.pose
    return kept


def _left_out(source: BagSource) -> list[str]:
    return [f"{source.path}: {count} left out: {reason}" for reason, count in source.refused.items()]
