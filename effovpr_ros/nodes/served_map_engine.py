"""Recognises in a map that a server has: features or pictures go there, answers come back, late ones do not count."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from effovpr_ros.core.errors import ConfigError, MapError, ServerError
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.geometry.points import WORKING_SIDE
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.nodes.map_engine import MapEngine, MapInUse
from effovpr_ros.nodes.parameters import CameraNodeConfig
from effovpr_ros.nodes.recognition_engine import load_model_of
from effovpr_ros.nodes.served_features import Seen, look
from effovpr_ros.nodes.server_config import FEATURES, ServerConfig, connect
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer, Recognition, Status
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.rig_query import RigAnswer, RigPicture
from effovpr_ros.recognition.temporal import SequenceFilter
from effovpr_ros.recognition.third_stage import point_extractor
from effovpr_ros.remote.answers import Answers, recognition_of
from effovpr_ros.remote.client import QuestionOptions, Reach, RefusedError
from effovpr_ros.remote.kept_map import KeptMap
from effovpr_ros.remote.map_info import MapInfo
from effovpr_ros.remote.queries import FeatureQuery, encode_query
from effovpr_ros.remote.served_judge import CANDIDATES, ServedJudge
from effovpr_ros.remote.shard_cache import ShardCache

_CONFLICT = 409
_OUT_OF_REACH = (Reach.LATE, Reach.GONE)
# While shards are kept, a server that is out of reach is asked so often.
_AGAIN_S = 5.0
_LEVELS = {
    Reach.UNKNOWN: DiagnosticStatus.OK,
    Reach.OK: DiagnosticStatus.OK,
    Reach.LATE: DiagnosticStatus.WARN,
    Reach.GONE: DiagnosticStatus.ERROR,
    Reach.REFUSES: DiagnosticStatus.ERROR,
}


class ServedMapEngine(MapEngine):
    """Asks one server; an image that it does not answer in time has no answer, unless shards near by are kept."""

    def __init__(
        self,
        url: str,
        node_config: CameraNodeConfig,
        server_config: ServerConfig,
        config: RecognizerConfig,
        num_candidates: int,
    ) -> None:
        """Ask the server what it has, and load the model that its map names where features are to be sent.

        Args:
            url: of the server.
            node_config: of the node.
            server_config: how the server is asked.
            config: of the recogniser; the server has its own, of this one counts whether candidates are verified.
            num_candidates: that are asked for.

        Raises:
            ServerError: out of reach, late, or refuses.
            ConfigError: no such address, no token in the file, or settings that a server cannot follow.
            WeightsError: no usable weights of the map's model.
            EngineError: the engine is not installed, or its descriptors are not PyTorch's.
        """
        self._node_config, self._server_config, self._config = node_config, server_config, config
        self.require(config)
        self._num_candidates = num_candidates
        if server_config.server_cache and server_config.server_query != FEATURES:
            raise ConfigError("server_cache needs the map's model: set server_query to features")
        self._extractor: FeatureExtractor | None = None
        self._kept: KeptMap | None = None
        self._sequence: SequenceFilter | None = None
        self._last_ms, self._asked_s = 0.0, -math.inf
        self._server = connect(url, server_config)
        try:
            if server_config.server_cache:
                bound = server_config.server_cache_megabytes * 10**6
                folder, radius_m = Path(server_config.server_cache), server_config.server_cache_radius_m
                self._kept = KeptMap(ShardCache(folder, connect(url, server_config), radius_m, bound), config)
            self._use(self._first_info())
        except BaseException:
            self.close()
            raise

    def _first_info(self) -> MapInfo:
        """What the server has; what it had the last time where it does not answer and shards are kept."""
        try:
            return self._server.info()
        except ServerError:
            current = self._kept.cache.current if self._kept is not None else None
            if current is None or self._server.reach not in _OUT_OF_REACH:
                raise
            return current[1]

    @property
    def config(self) -> RecognizerConfig:
        """As given; the server has its own."""
        return self._config

    @property
    def device(self) -> str:
        """Where the model runs and by which engine; the server's name where it extracts."""
        return f"{self._extractor.device}, {self._extractor.engine.name}" if self._extractor else self._server.url

    @property
    def engine_state(self) -> dict[str, str]:
        """The engine in use and how it came to be that, for people; empty without a model."""
        return self._extractor.engine_state if self._extractor else {}

    @property
    def measures_poses(self) -> bool:
        """Whether the server does."""
        return self._info.measures_poses

    @property
    def num_places(self) -> int:
        """As the server said last."""
        return self._info.places

    def take_over(self) -> bool:
        """Go on with a faster engine if one was found since the last image; whether that is so."""
        return self._extractor is not None and self._extractor.take_over()

    def load_map(self, path: Path) -> MapInUse:
        """Refuse: what was set up is for a server."""
        raise MapError(
            f"maps come from {self._server.url}; clean the node up and set map_path to {path} to use that one"
        )

    def require(self, config: RecognizerConfig) -> None:
        """Refuse a sequence of pictures in which the server alone sees anything."""
        if config.sequence_length and self._server_config.server_query != FEATURES:
            raise ConfigError(
                f"sequence_length {config.sequence_length} needs the map's model, which tells whether the robot "
                "stands: set server_query to features, or sequence_length to 0"
            )

    def set_config(self, config: RecognizerConfig, given: Mapping[str, Any] | None = None) -> None:
        """Keep them, for sequences and what is verified; the server has its own."""
        self._config = config
        self._follow_sequence()

    def restart_sequence(self) -> None:
        """Forget the images so far, where a stream of images begins anew."""
        if self._sequence is not None:
            self._sequence.reset()

    def recognize(
        self,
        pictures: Sequence[RigPicture],
        hint: Hint | None,
        stamp_ns: int | None = None,
        odometry: Pose | None = None,
        doubtful: bool = False,
    ) -> tuple[RigAnswer, MapInUse, PlaceRecognizer | None]:
        """Ask the server; see `MapEngine`.

        Raises:
            ServerError: no answer in time, or none at all.
            ConfigError: pictures of several cameras.
        """
        if len(pictures) != 1:
            raise ConfigError("a server is asked with one camera's images; use a map of this machine for several")
        (picture,) = pictures
        started_s = time.perf_counter()
        seen = self._look(picture)
        try:
            recognition = self._ask(picture, seen, hint, doubtful)
        except ServerError:
            found = self._answer_alone(picture, seen, hint)
            if found is None:
                raise
            recognition = found
        assert self.map_in_use is not None and self._sequence is not None
        if stamp_ns is not None:
            recognition = self._sequence.update(recognition, stamp_ns=stamp_ns or None, odometry=odometry)
        self._last_ms = (time.perf_counter() - started_s) * 1e3
        extract_ms = recognition.latency_ms.extract + seen.extract_ms
        latency = replace(recognition.latency_ms, extract=extract_ms, total=self._last_ms)
        recognition = replace(recognition, latency_ms=latency, camera=picture.camera)
        return RigAnswer(recognition, 0, (recognition,), (0,)), self.map_in_use, None

    def _ask(self, picture: RigPicture, seen: Seen, hint: Hint | None, doubtful: bool) -> Recognition:
        """What the server answers.

        Raises:
            ServerError: no answer in time, or none at all; or it was out of reach a moment ago, and shards are kept.
        """
        now_s = time.monotonic()
        is_kept = self._kept is not None and self._kept.cache.current is not None
        if is_kept and self._server.reach in _OUT_OF_REACH and now_s - self._asked_s < _AGAIN_S:
            raise ServerError(f"server {self._server.url} {self._server.reach.value}")
        self._asked_s = now_s
        wanted = max(self._num_candidates, CANDIDATES if self._config.sequence_length else 0)
        options = QuestionOptions(hint, picture.camera, wanted, doubtful)
        try:
            answers = self._send(picture, seen, options)
        except RefusedError as error:
            if error.status != _CONFLICT:
                raise
            # The map was replaced by one of another model.
            self._use(self._server.info())
            seen = self._look(picture)
            answers = self._send(picture, seen, options)
        if len(answers.results) != 1:
            raise ServerError(f"{self._server.url}: {len(answers.results)} answers to one image")
        if answers.revision != self._info.revision:
            self._use(self._server.info())
        recognition = recognition_of(answers.results[0], seen.features, self._server.url)
        if self._kept is not None and recognition.status is Status.MATCH and recognition.pose is not None:
            x, y, _ = recognition.pose.position_xyz
            self._kept.cache.near(x, y)
        return recognition

    def _send(self, picture: RigPicture, seen: Seen, options: QuestionOptions) -> Answers:
        if self._extractor is None:
            return self._server.localize_image(make_thumbnail(picture.image, WORKING_SIDE), options)
        height, width = picture.image.shape[:2]
        query = FeatureQuery(seen.features, (width, height), seen.points)
        return self._server.localize_features(encode_query(query, self._extractor.fingerprint), options)

    def _answer_alone(self, picture: RigPicture, seen: Seen, hint: Hint | None) -> Recognition | None:
        """What the shards that are kept answer; None where the server refuses, or none are."""
        if self._kept is None or self._extractor is None or self._server.reach not in _OUT_OF_REACH:
            return None
        return self._kept.recognize(self._extractor, seen.features, seen.points, hint, picture.camera)

    def trouble(self) -> tuple[bytes, str]:
        """Whether the server answers."""
        reach = self._server.reach
        if _LEVELS[reach] == DiagnosticStatus.OK:
            return DiagnosticStatus.OK, ""
        said = f"server {self._server.url} {reach.value} for {time.monotonic() - self._server.since_s:.1f} s"
        if self._kept is not None and self._kept.num_places and reach in _OUT_OF_REACH:
            return DiagnosticStatus.WARN, f"{said}: answered alone, by {self._kept.num_places} places that are kept"
        return _LEVELS[reach], f"{said}: images are not answered"

    def values(self) -> dict[str, str]:
        """For /diagnostics."""
        return {
            "server": self._server.reach.value,
            "server_late": str(self._server.late),
            "server_failures": str(self._server.failures),
            "server_last_ms": f"{self._last_ms:.1f}",
            "map_revision": self._info.revision,
            **(self._kept.values() if self._kept is not None else {}),
        }

    def close(self) -> None:
        """Hang up."""
        if self._extractor is not None:
            self._extractor.close()
        self._server.close()
        if self._kept is not None:
            self._kept.close()

    def _look(self, picture: RigPicture) -> Seen:
        return look(picture, self._extractor, self._info.points if self._config.verify != "off" else "")

    def _use(self, info: MapInfo) -> None:
        """Follow what the server says of its map."""
        if self._server_config.server_query == FEATURES:
            extractor = self._extractor
            if extractor is None or info.model.differences(extractor.fingerprint):
                self._extractor = load_model_of(info.model, self._node_config, None)
                self._extractor.seek_faster_engine()
                if extractor is not None:
                    extractor.close()
            if info.points and self._config.verify != "off":
                point_extractor(str(self._extractor.device if self._extractor else "cpu")).load()
        bodies, known = frozenset(info.bodies), self.map_in_use
        if known is None or (known.name, known.frame_id, known.bodies) != (info.name, info.frame_id, bodies):
            architecture = info.model.architecture
            self.map_in_use = MapInUse(info.name, self._server.url, info.frame_id, architecture, bodies)
        self._info = info
        self._follow_sequence()

    def _follow_sequence(self) -> None:
        """Judge sequences by what is known of the map now; another revision begins anew."""
        judge = ServedJudge(self._info, self._config)
        if self._sequence is None:
            self._sequence = SequenceFilter(judge)
        self._sequence.use(judge)
