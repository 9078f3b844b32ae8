"""The loop closure detector: a map that grows while the robot drives, searched by each new keyframe."""

from __future__ import annotations

import functools
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.point_codec import encode_points
from effovpr_ros.geometry.points import Points
from effovpr_ros.loop_closure.closing import Closing, Picture, SessionCamera
from effovpr_ros.loop_closure.closure_pose import DepthImage
from effovpr_ros.loop_closure.history import RunHistory
from effovpr_ros.loop_closure.keyframe_map import keyframes_to_forget
from effovpr_ros.loop_closure.keyframes import Condition, Observation, OdometrySample, Progress, observe, take
from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.loop_closure.results import LoopResult
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.recognition.decision import Status
from effovpr_ros.recognition.recognizer import PlaceRecognizer, Recognition
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.temporal import SequenceFilter
from effovpr_ros.recognition.third_stage import ThirdStage


class LoopClosureDetector:
    """Keyframes of one run of one session, and the loops among them and with what the map held before.

    For one thread; `save_map` may be called from another.

    Attributes:
        place_map: that grows; see `loops.session.open_session_map`.
        session: of the new keyframes.
        config: of loop closure.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        place_map: GrowingMap,
        recognizer_config: RecognizerConfig = LOOP_RECOGNIZER,
        loop_config: LoopConfig | None = None,
        session: str = "session",
    ) -> None:
        """Begin a run of a new session or of one that the map has already.

        Poses of keyframes that the map has already do not relate to those of the run, whose odometry is another.

        Raises:
            MapError: the map is open read-only.
            ModelMismatchError: the map was built with another model.
        """
        self.place_map = place_map
        self.session = session
        self.config = loop_config or LoopConfig()
        self._extractor = extractor
        self._history = RunHistory()
        self._camera = SessionCamera(place_map, session)
        self._use(recognizer_config)
        self._sequence = SequenceFilter(self._recognizer)
        self._progress = Progress()
        self._observation: Observation | None = None
        self._condition = Condition.NORMAL
        self._track = 0
        self._last_image: int | None = None
        place_map.begin_pose_frame(session)

    @property
    def progress(self) -> Progress:
        """Of the run: time, distance, track."""
        return self._progress

    @property
    def third_stage(self) -> ThirdStage:
        """That verifies candidates."""
        return self._recognizer.third_stage

    @property
    def condition(self) -> Condition:
        """Of the inputs at the last image that was asked for or processed."""
        return self._condition

    def load(self) -> None:
        """See `PlaceRecognizer.load`."""
        self._recognizer.load()

    def set_configs(self, recognizer_config: RecognizerConfig, loop_config: LoopConfig) -> None:
        """Go on with other settings from the next image on."""
        self.config = loop_config
        self._use(recognizer_config)
        self._sequence.use(self._recognizer)

    def _use(self, recognizer_config: RecognizerConfig) -> None:
        # A closure is measured against the match's neighbours by odometry, not against whatever the map has near.
        self._measure = recognizer_config.measure_pose
        self._recognizer = PlaceRecognizer(
            self._extractor, self.place_map, replace(recognizer_config, measure_pose=False)
        )
        self._closing = Closing(self._recognizer, self._history, self.config)

    def wants(self, stamp_ns: int, odometry: Pose | None) -> bool:
        """Whether an image should become a keyframe; cheap, so ask before decoding it.

        Ask for every image in the order of arrival, and process one before asking for the next: between keyframes
        too, a jump of the odometry shows.

        Args:
            stamp_ns: of the image.
            odometry: pose of the robot at that time in the odometry frame; None if unknown.
        """
        return self._observe(OdometrySample(stamp_ns, odometry)).wanted

    def process(
        self,
        image: RgbImage,
        stamp_ns: int,
        odometry: Pose | None,
        *,
        camera: MountedCamera | None = None,
        depth: Callable[[], DepthImage | None] | None = None,
    ) -> LoopResult:
        """Search for the place of an image among the keyframes that may close a loop, then make it a keyframe.

        The image becomes a keyframe whether `wants` asked for it or not, unless it is the last one again or out of
        order. When this returns, the keyframe is committed.

        Args:
            image: (H, W, 3) uint8 RGB.
            stamp_ns: of the image.
            odometry: as told to `wants`.
            camera: that took the image, with its mounting; by it the relative pose of a closure is measured.
            depth: gives the depth image registered to it, (h, w) float32 metres, NaN where not known; asked for
                closures alone.

        Raises:
            ImageError: an image of another type or shape.
            MapError: the disk is full or the map is damaged; the image is no keyframe then.
        """
        observation = self._observation_of(OdometrySample(stamp_ns, odometry))
        if observation.condition is Condition.IMAGE_OUT_OF_ORDER:
            return LoopResult(observation.condition)
        checksum = zlib.crc32(np.ascontiguousarray(image).data)
        if checksum == self._last_image:
            self._condition = Condition.CAMERA_FROZEN if observation.moved else Condition.IMAGE_REPEATED
            return LoopResult(self._condition)
        self._last_image = checksum
        started = time.perf_counter()
        features = self._extractor.extract([image])[0]
        extract_ms = (time.perf_counter() - started) * 1e3
        started = time.perf_counter()
        thumbnail = make_thumbnail(image, self.config.thumbnail_side)
        thumbnail_ms = (time.perf_counter() - started) * 1e3
        size_wh = (image.shape[1], image.shape[0])
        find_points = functools.cache(lambda: self._recognizer.third_stage.extractor.extract(image))
        picture = Picture(find_points, camera, depth)
        result = self.process_features(features, thumbnail, size_wh, stamp_ns, odometry, picture)
        return _with_times(result, extract_ms, thumbnail_ms)

    def process_features(
        self,
        features: Features,
        thumbnail: bytes,
        image_size_wh: tuple[int, int],
        stamp_ns: int,
        odometry: Pose | None,
        picture: Picture | None = None,
    ) -> LoopResult:
        """Like `process`, with features and JPEG known already; images are not compared with the last one.

        Args:
            features: of the image.
            thumbnail: JPEG.
            image_size_wh: pixels of the image.
            stamp_ns: of the image.
            odometry: as told to `wants`.
            picture: what else is known of the image; without its points nothing is verified or measured, and the
                keyframe has none.
        """
        sample = OdometrySample(stamp_ns, odometry)
        observation = self._observation_of(sample)
        if observation.condition is Condition.IMAGE_OUT_OF_ORDER:
            return LoopResult(observation.condition)
        if observation.progress.track != self._track:
            self._begin_track(observation.progress.track)
        picture = picture or Picture()
        picture = replace(picture, camera=self._camera.keep(picture.camera))
        recognition = self._recognize(features, picture.points, observation.progress, sample)

        started = time.perf_counter()
        place_id = self.place_map.next_id
        self.place_map.add(
            [
                NewPlace(
                    self.session,
                    stamp_ns,
                    f"keyframe {place_id}",
                    odometry,
                    None,
                    image_size_wh,
                    thumbnail,
                    features,
                    self._points_to_keep(picture.points),
                )
            ]
        )
        self._progress, self._observation = take(observation.progress, sample), None
        self._history.append(place_id, self._progress)
        place = self.place_map.place(place_id)
        insert_ms = (time.perf_counter() - started) * 1e3
        closure, refused = None, None
        if recognition.status is Status.MATCH:
            closure, refused = self._closing.judge(recognition, place, picture, measure=self._measure)
        started = time.perf_counter()
        self._forget([candidate.place.place_id for candidate in recognition.candidates])
        insert_ms += (time.perf_counter() - started) * 1e3
        keyframe = self._closing.keyframe(place, place.own_frame)
        return LoopResult(observation.condition, keyframe, closure, recognition, features, insert_ms, refused)

    def save_map(self, path: str | Path, name: str = "") -> None:
        """Save a copy of the map that `PlaceMap.open` and the place recogniser read; the session goes on meanwhile.

        Args:
            path: a folder that does not exist or is empty.
            name: of the copy; the folder's name if empty.

        Raises:
            MapError: the folder is in use, or the disk is full.
        """
        self.place_map.save_copy(path, name)

    def close(self) -> None:
        """Write index and manifest and close the map, so that the next opening is fast."""
        try:
            self.place_map.flush()
        finally:
            self.place_map.close()

    def _observe(self, sample: OdometrySample) -> Observation:
        self._observation = observe(self._progress, sample, self.config)
        self._progress, self._condition = self._observation.progress, self._observation.condition
        return self._observation

    def _observation_of(self, sample: OdometrySample) -> Observation:
        """What `wants` found out about an image, or where it was not asked, what it would."""
        known = self._observation
        return known if known is not None and known.progress.last == sample else self._observe(sample)

    def _begin_track(self, track: int) -> None:
        self._track = track
        self.place_map.begin_pose_frame(self.session)
        self._sequence.reset()

    def _points_to_keep(self, points: Callable[[], Points] | None) -> bytes | None:
        """Encoded points for the map; None where they are not to be kept, or nothing will ask for them."""
        if points is None or self.config.points == "none" or self._recognizer.config.verify == "off":
            return None
        return encode_points(points()) if self._recognizer.third_stage.load() else None

    def _recognize(
        self, features: Features, points: Callable[[], Points] | None, progress: Progress, sample: OdometrySample
    ) -> Recognition:
        below = self._history.candidates_below(self.place_map.next_id, progress, self.config)
        recognition = self._recognizer.recognize_features(features, points=points, before=below)
        # With odometry a robot that stands is no gap in its track, however long.
        stamp_ns = sample.stamp_ns if sample.odometry is None else None
        return self._sequence.update(recognition, stamp_ns=stamp_ns, odometry=sample.odometry)

    def _forget(self, keep: Sequence[int]) -> None:
        if forgotten := keyframes_to_forget(self.place_map, self.config.max_keyframes, keep):
            self.place_map.forget(forgotten)
            self._history.forget(set(forgotten))
            self._sequence.forget(forgotten)


def _with_times(result: LoopResult, extract_ms: float, thumbnail_ms: float) -> LoopResult:
    """A result with what its image cost before its features were known."""
    if result.recognition is None:
        return result
    latency = result.recognition.latency_ms
    latency = replace(latency, extract=extract_ms, total=latency.total + extract_ms)
    return replace(
        result,
        recognition=replace(result.recognition, latency_ms=latency),
        insert_ms=result.insert_ms + thumbnail_ms,
    )
