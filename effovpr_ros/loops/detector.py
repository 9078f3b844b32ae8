"""The loop closure detector: a map that grows while the robot drives, searched by each new keyframe."""

from __future__ import annotations

from pathlib import Path

from effovpr_ros.features.extractor import FeatureExtractor, Features
from effovpr_ros.features.preprocessing import RgbImage
from effovpr_ros.loops.config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.loops.keyframes import Progress
from effovpr_ros.loops.results import LoopResult
from effovpr_ros.mapping.place import Pose
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.config import RecognizerConfig


class LoopClosureDetector:
    """Keyframes of one run of one session, and the loops among them and with what the map held before.

    Not thread-safe but for `save_map`, which another thread may call.

    Attributes:
        place_map: that grows; see `loops.session.open_session_map`.
        session: of the new keyframes.
        config: of loop closure.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        place_map: PlaceMap,
        recognizer_config: RecognizerConfig = LOOP_RECOGNIZER,
        loop_config: LoopConfig = LoopConfig(),  # noqa: B008
        session: str = "session",
    ) -> None:
        """Begin a run: a new track of a new or of an earlier session.

        Raises:
            MapError: the map is open read-only.
            ModelMismatchError: the map was built with another model.
        """
        raise NotImplementedError

    @property
    def progress(self) -> Progress:
        """Of the run: time, distance, track."""
        raise NotImplementedError

    def set_configs(self, recognizer_config: RecognizerConfig, loop_config: LoopConfig) -> None:
        """Go on with other settings from the next image on."""
        raise NotImplementedError

    def wants(self, stamp_ns: int, odometry: Pose | None) -> bool:
        """Whether an image should become a keyframe; cheap, so ask before decoding it. Ask for every image once.

        Args:
            stamp_ns: of the image.
            odometry: pose of the robot at that time in the odometry frame; None if unknown.
        """
        raise NotImplementedError

    def process(self, image: RgbImage, stamp_ns: int, odometry: Pose | None) -> LoopResult:
        """Search for the place of an image among the keyframes that may close a loop, then make it a keyframe.

        The image becomes a keyframe whether `wants` asked for it or not, unless it is the last one again or out of
        order. When this returns, the keyframe is committed.

        Args:
            image: (H, W, 3) uint8 RGB.
            stamp_ns: of the image.
            odometry: as told to `wants`.

        Raises:
            ImageError: an image of another type or shape.
            MapError: the disk is full or the map is damaged; the image is no keyframe then.
        """
        raise NotImplementedError

    def process_features(
        self, features: Features, thumbnail: bytes, image_size_wh: tuple[int, int], stamp_ns: int, odometry: Pose | None
    ) -> LoopResult:
        """Like `process`, with features and JPEG known already; images are not compared with the last one."""
        raise NotImplementedError

    def save_map(self, path: str | Path, name: str = "") -> None:
        """Save a copy of the map that `PlaceMap.open` and the place recogniser read; the session goes on meanwhile.

        Args:
            path: a folder that does not exist or is empty.
            name: of the copy; the folder's name if empty.

        Raises:
            MapError: the folder is in use, or the disk is full.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Write index and manifest and close the map, so that the next opening is fast."""
        raise NotImplementedError
