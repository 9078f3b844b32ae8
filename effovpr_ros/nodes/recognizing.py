"""What `place_recognizer` works with while it is configured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from effovpr_ros.core.errors import EffoVPRError, ImageError, NodeError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.nodes import conversions
from effovpr_ros.nodes.adapters.adapter_config import MatchAdapterConfig
from effovpr_ros.nodes.adapters.registry import make_adapters
from effovpr_ros.nodes.camera_config import CameraConfigs
from effovpr_ros.nodes.configured import Configured, Health, ImageMessage, engine_news
from effovpr_ros.nodes.guarded_node import GuardedNode, describe
from effovpr_ros.nodes.hints import Hints
from effovpr_ros.nodes.image_decoding import decode_message
from effovpr_ros.nodes.localize_request import LocalizeRequest
from effovpr_ros.nodes.map_engine import MapEngine, MapInUse
from effovpr_ros.nodes.outputs import RESULT_QOS, Outputs
from effovpr_ros.nodes.parameters import CameraNodeConfig, NodeConfig
from effovpr_ros.nodes.queries import Answer, Query
from effovpr_ros.nodes.robot_cameras import CameraImage, Images, RobotCameras
from effovpr_ros.nodes.robot_pose import RobotPose
from effovpr_ros.nodes.server_config import ServerConfig
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.recognizer import Hint
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.rig_query import RigPicture

_MOST_WAITING = 32
"""Calls of `~/localize` at a time."""

_LEAST_PERIOD_S = 0.005


@dataclass(frozen=True)
class RecognizerSettings:
    """All parameters of `place_recognizer`.

    Attributes:
        given: those of the recogniser that somebody gave though the map carries them too.
    """

    camera: CameraNodeConfig
    node: NodeConfig
    adapters: MatchAdapterConfig
    recognizer: RecognizerConfig
    cameras: CameraConfigs = field(default_factory=CameraConfigs)
    map_odom: MapOdomConfig = field(default_factory=MapOdomConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    given: Mapping[str, Any] = field(default_factory=dict)


class Recognizing(Configured[Query]):
    """Map, model, topics and the calls that wait."""

    def __init__(
        self,
        node: GuardedNode,
        settings: RecognizerSettings,
        engine: MapEngine,
        worker: LatestWorker,
        resources: ExitStack,
    ) -> None:
        """Advertise and subscribe.

        Args:
            node: that is configured.
            settings: its parameters.
            engine: that recognises, in the worker's thread alone.
            worker: of the images.
            resources: takes the undoing of what is advertised and subscribed.
        """
        self._cameras = RobotCameras(
            node, settings.cameras, settings.camera.image_transport, settings.adapters.body_frame, resources
        )
        super().__init__(node, settings.camera, worker, resources, self._cameras.sources)
        self._config = settings.node
        self.engine = engine
        self._offered = 0
        if not self._cameras.is_one:
            timer = node.after(max(settings.cameras.query.camera_wait_s / 2.0, _LEAST_PERIOD_S), self._on_waited)
            resources.callback(node.destroy_timer, timer)
        self._hints = Hints(node, settings.node)
        self.newest: Query | None = None
        self.asked = 0
        self._waiting: list[LocalizeRequest] = []
        self._for_an_image: list[LocalizeRequest] = []
        body_frame = settings.adapters.body_frame
        self.robot = RobotPose(node, settings.map_odom, body_frame, lambda: engine.map_in_use, resources)
        self.robot.listen_for_sequence(settings.recognizer.sequence_length > 0)
        adapters = make_adapters(node, settings.adapters.names, settings.adapters)
        self.outputs = Outputs(node, [*adapters, *self.robot.adapters], body_frame)
        resources.callback(self.outputs.destroy)
        self._subscribe(PoseWithCovarianceStamped, "~/hint", self._hints.on_hint, RESULT_QOS)
        if engine.map_in_use is None:
            node.get_logger().warning("map_path is empty: images are answered once ~/load_map has loaded a map")
        else:
            self._announce(engine.map_in_use)

    def activate(self) -> None:
        """Start answering."""
        super().activate()
        self.outputs.on_activate()
        self._worker.submit(self.engine.restart_sequence)
        self._publish_map_markers()

    def deactivate(self, reason: str) -> None:
        """Stop answering; calls that wait are told why."""
        super().deactivate(reason)
        for request in self._waiting:
            request.refuse(reason)
        self._waiting.clear()
        self._for_an_image.clear()
        self._cameras.moments.clear()
        self.newest = None

    def close(self) -> None:
        """Close the map."""
        self.engine.close()

    def use(self, settings: RecognizerSettings) -> None:
        """Use other thresholds from the next image on; a ConfigError where they cannot be followed."""
        self.engine.require(settings.recognizer)
        self._worker.submit(partial(self.engine.set_config, settings.recognizer, settings.given))
        self.robot.listen_for_sequence(settings.recognizer.sequence_length > 0)

    def load_map(self, folder: Path) -> Future[MapInUse]:
        """Open another map after the image at hand."""
        return self._worker.submit(partial(self.engine.load_map, folder))

    def show_map(self, map_in_use: MapInUse) -> None:
        """Log a map that was loaded, and publish its places."""
        self._announce(map_in_use)
        self._publish_map_markers()

    # Calls of ~/localize

    def localize(self, request: LocalizeRequest, image: Image) -> None:
        """Answer a call from its own image, or else from the topic's; returns at once.

        Raises:
            NodeError: the node is not active, or too many wait.
        """
        self.asked += 1
        if not self.is_active:
            raise NodeError("the node is not active; activate it first")
        self._waiting = [waiting for waiting in self._waiting if not waiting.is_settled]
        if len(self._waiting) >= _MOST_WAITING:
            raise NodeError(f"{_MOST_WAITING} calls of ~/localize wait already; call again later")
        self._waiting.append(request)
        now_s = time.monotonic()
        if len(image.data):
            camera = self._cameras.camera_of(image.header.frame_id)
            images = (CameraImage(image, camera),)
            self._ask(request, Query(images, now_s, self._hint_for(image.header), in_stream=False))
        elif self.newest is not None and self.newest.serves(request, now_s - self._config.localize_max_age_s):
            self._ask(request, self.newest)
        else:
            self._for_an_image.append(request)

    def expire(self, request: LocalizeRequest) -> None:
        """Tell a call why it has no answer by now."""
        if request in self._for_an_image:
            self._for_an_image.remove(request)
            request.refuse(self.silence(time.monotonic()))
        request.refuse(f"the image was not processed within {request.timeout_s:.1f} s")

    def _ask(self, request: LocalizeRequest, query: Query) -> None:
        self._worker.submit(partial(self._answer_call, request, query))

    def _answer_call(self, request: LocalizeRequest, query: Query) -> None:
        if request.is_settled:
            return
        try:
            answer = self._recognize(query)
            if query.in_stream:
                self._publish(query, answer)
            request.give(answer.match)
        except Exception as error:  # handed to the caller
            self._node.report(describe(error))
            request.refuse(describe(error))

    # Callbacks

    def _on_image(self, number: int, message: ImageMessage) -> None:
        now_s = time.monotonic()
        for images in self._cameras.joined(number, message, now_s):
            self._on_query(images, now_s)

    def _on_waited(self) -> None:
        now_s = time.monotonic()
        for images in self._cameras.due(now_s):
            self._on_query(images, now_s)

    def _on_query(self, images: Images, now_s: float) -> None:
        self.newest = query = Query(images, now_s, self._hint_for(images[0].message.header))
        waiting, self._for_an_image = self._for_an_image, []
        for request in waiting:
            self._ask(request, query)
        self._offered += self._offer(query)

    def _hint_for(self, header: Header) -> Hint | None:
        return self._hints.of(header, self.engine.map_in_use.frame_id if self.engine.map_in_use else "")

    # Worker

    def _process(self, query: Query) -> None:
        try:
            self._publish(query, self._recognize(query))
        except EffoVPRError as error:
            self._node.report(str(error))

    def _recognize(self, query: Query) -> Answer:
        decoded = self._decoded(query)
        if self.engine.take_over():
            self._node.get_logger().info(engine_news(self.engine.engine_state))
        stamp_ns = conversions.ns_from_time(query.header.stamp) if query.in_stream else None
        odometry = self.robot.odometry_of_sequence(stamp_ns) if stamp_ns is not None else None
        pictures = [RigPicture(image, item.camera, item.name) for item, image in decoded]
        doubtful = self.robot.weighs_doubtful_answers
        answer, map_in_use, recognizer = self.engine.recognize(pictures, query.hint, stamp_ns, odometry, doubtful)
        recognition, (item, image) = answer.recognition, decoded[answer.number]
        match = conversions.match_message(
            recognition,
            Header(stamp=item.message.header.stamp, frame_id=map_in_use.frame_id),
            map_name=map_in_use.name,
            num_candidates=self._config.num_candidates,
            total_ms=(time.monotonic() - query.received_s) * 1e3,
        )
        self._node.statistics.add_result(recognition.status.name, recognition.latency_ms, time.monotonic())
        return Answer(match, image, item.message.header, recognition, recognizer)

    def _decoded(self, query: Query) -> list[tuple[CameraImage, RgbImage]]:
        """The pictures of a query; of several cameras those that can be decoded.

        Raises:
            ImageError: none can.
        """
        decoded: list[tuple[CameraImage, RgbImage]] = []
        errors: list[ImageError] = []
        for item in query.images:
            try:
                decoded.append((item, decode_message(item.message, self._max_pixels)))
            except ImageError as error:
                errors.append(error)
                if len(query.images) > 1:
                    self._node.report(f"camera {item.name}: {error}")
        if not decoded:
            raise errors[0]
        return decoded

    def _publish(self, query: Query, answer: Answer) -> None:
        self.outputs.publish(answer.match, answer.recognition)
        self.outputs.publish_debug_image(answer.image, answer.recognition, answer.recognizer, answer.header)

    # Reports

    def _announce(self, map_in_use: MapInUse) -> None:
        self._node.map_parameters.show(self.engine.config)
        self._node.get_logger().info(
            f"map {map_in_use.name} ({map_in_use.where}): {self.engine.num_places} places, model "
            f"{map_in_use.architecture}, device {self.engine.device}"
        )

    def _publish_map_markers(self) -> None:
        if self.engine.map_in_use is not None and self.engine.map_in_use.place_map is not None:
            self.outputs.publish_map(self.engine.map_in_use.place_map)

    def _own_health(self, now_s: float) -> Health:
        map_in_use, (level, text) = self.engine.map_in_use, self.engine.trouble()
        text = text or ("recognising" if self.is_active else "inactive")
        if map_in_use is None:
            level, text = DiagnosticStatus.WARN, "no map is loaded; call ~/load_map"
        problem = self._cameras.problem(self.engine.measures_poses)
        if problem and level == DiagnosticStatus.OK and self.is_active:
            level, text = DiagnosticStatus.WARN, f"recognising; {problem}"
        values = {
            **self.engine.engine_state,
            **self._cameras.values(),
            "queries": str(self._offered),
            "localize_calls": str(self.asked),
            "map": map_in_use.where if map_in_use else "",
            "places": str(self.engine.num_places),
            **self.engine.values(),
        }
        return self.robot.joined(Health(level, text, self.engine.device, values))
