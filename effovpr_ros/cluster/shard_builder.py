"""What a worker does: images of a part to a shard, written aside and then put in its place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from effovpr_ros.cluster.fetching import local_bag
from effovpr_ros.cluster.parts import PartReport, publish
from effovpr_ros.cluster.storage import Storage
from effovpr_ros.cluster.versions import this_version
from effovpr_ros.cluster.work import Part, ShardJob, WorkItem, WorkSource
from effovpr_ros.core.errors import ConfigError, EffoVPRError, ImageError, ModelMismatchError, SourceError
from effovpr_ros.core.images import RgbImage, decode_image, largest_file, read_file
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.builder import BuildReport, build_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import set_session_camera
from effovpr_ros.mapping.session_origins import join_session
from effovpr_ros.mapping.shard_joining import (
    SHARDS_FOLDER,
    ShardDescription,
    describe_shard,
    shard_flat_limit,
    shard_name,
)
from effovpr_ros.recognition.third_stage import describe_points
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.frame import Frame, content_digest
from effovpr_ros.sources.kinds import NO_POSES


@dataclass
class _Picture:
    """A file of a folder, read once for its digest and its image."""

    source: Storage
    name: str
    max_pixels: int
    _data: bytes | None = field(default=None)

    def digest(self) -> str:
        self._data = self._read()
        return content_digest(self._data)

    def load(self) -> RgbImage:
        data, self._data = self._data, None
        return decode_image(self._read() if data is None else data, self.name, max_pixels=self.max_pixels)

    def _read(self) -> bytes:
        largest = largest_file(self.max_pixels)
        if self.source.is_local:
            return read_file(self.source.path / self.name, largest)
        try:
            data = self.source.read(self.name)
        except FileNotFoundError as error:
            raise ImageError(f"{self.source.url}/{self.name} is not there any more; was it removed?") from error
        if len(data) > largest:
            raise ImageError(f"{self.name} has {len(data)} bytes, too many for a picture; replace or remove it")
        return data


class ShardBuilder:
    """Builds shards of one job, one after the other, with a model that is loaded once."""

    def __init__(self, job: ShardJob) -> None:
        """Load the model.

        Raises:
            ConfigError: this machine has another version of the package.
            WeightsError: no usable weights.
            EngineError: the engine is not installed here.
            ModelMismatchError: the weights here are other ones.
        """
        if this_version() != job.version:
            raise ConfigError(
                f"a worker has effovpr_ros {this_version()}, the command {job.version}; install one version on all "
                "machines of the cluster"
            )
        self._job = job
        self._out = Storage(job.out)
        self._extractor = FeatureExtractor(job.extractor)
        differences = job.fingerprint.differences(self._extractor.fingerprint)
        if differences:
            raise ModelMismatchError(
                f"a worker has another model than the command (command != worker): {'; '.join(differences)}; give all "
                "machines of the cluster the same weights"
            )
        self._extractor.seek_faster_engine(job.total)
        self._points_of = describe_points(str(self._extractor.device)) if job.with_points else None
        self._bag: BagSource | None = None
        self._bag_of: WorkSource | None = None

    def build(self, part: Part) -> PartReport:
        """Make the shard of a part, and put it where it belongs.

        What is wrong with the part itself is said in the report.
        """
        started = time.perf_counter()
        try:
            with self._out.below(SHARDS_FOLDER).work_folder() as work:
                folder = work / shard_name(part.number)
                built, shard = self._build(folder, part)
                report = PartReport(
                    part.number,
                    len(part.items),
                    built.unreadable,
                    time.perf_counter() - started,
                    built.extract_seconds,
                    self._extractor.engine.name,
                    shard,
                )
                folder.mkdir(exist_ok=True)
                return publish(self._out, folder, report)
        except EffoVPRError as error:
            seconds = time.perf_counter() - started
            engine = self._extractor.engine.name
            return PartReport(part.number, len(part.items), (), seconds, 0.0, engine, error=str(error))

    def _build(self, folder: Path, part: Part) -> tuple[BuildReport, ShardDescription | None]:
        job, source = self._job, self._job.sources[part.source]
        with PlaceMap.create(
            folder,
            fingerprint=self._extractor.fingerprint,
            name=f"{job.name}/{folder.name}",
            frame_id=job.frame_id,
            datum=job.datum,
            recognition=job.recognition,
        ) as shard:
            join_session(shard, source.session, source.origin, source.session_frame)
            if source.camera is not None:
                set_session_camera(shard, source.session, source.camera)
            # Spacing was applied to the whole drive.
            build = replace(job.build, spacing_m=0.0, spacing_deg=0.0)
            report = build_map(shard, self._extractor, self._frames(part), build, points_of=self._points_of)
            if not report.added:
                return report, None
            limit = shard_flat_limit(job.total, shard.global_dim)
            if len(shard) > limit:
                shard.reindex(limit)
                shard.flush()
            return report, describe_shard(shard, f"{SHARDS_FOLDER}/{folder.name}")

    def _frames(self, part: Part) -> Iterator[Frame]:
        source, max_pixels = self._job.sources[part.source], self._job.max_pixels
        if not source.image_topic:
            for item in part.items:
                picture = _Picture(Storage(source.url), item.name, max_pixels)
                where = (item.stamp_ns, item.pose, item.geo)
                yield Frame(item.name, source.session, *where, picture.load, picture.digest)
            return
        bag = self._open_bag(source)
        wanted: dict[int, WorkItem] = {item.position.number: item for item in part.items if item.position is not None}
        for position, frame in bag.numbered_frames(since=part.items[0].position):
            if position is not None and position.number in wanted:
                item = wanted.pop(position.number)
                yield replace(frame, pose=item.pose, geo=item.geo)
            if not wanted:
                return
        raise SourceError(f"bag {source.url} has lost {len(wanted)} images since it was listed; was it replaced?")

    def _open_bag(self, source: WorkSource) -> BagSource:
        """The bag of a source; that of the last part is kept."""
        if self._bag is None or self._bag_of != source:
            self._bag, self._bag_of = (
                BagSource(
                    local_bag(Storage(source.url)),
                    image_topic=source.image_topic,
                    pose_topic=NO_POSES,
                    session=source.session,
                    max_pixels=self._job.max_pixels,
                ),
                source,
            )
        return self._bag


def load_builder(job: ShardJob) -> partial[PartReport]:
    """What builds a part in this process."""
    return partial(ShardBuilder(job).build)
