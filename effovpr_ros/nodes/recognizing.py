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

from effovpr_ros.core.errors import ConfigError, EffoVPRError, NodeError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes import conversions
from effovpr_ros.nodes.adapters.adapter_config import MatchAdapterConfig
from effovpr_ros.nodes.adapters.registry import make_adapters
from effovpr_ros.nodes.configured import Configured, Health, ImageMessage, engine_news
from effovpr_ros.nodes.guarded_node import GuardedNode, describe
from effovpr_ros.nodes.image_decoding import decode_message
from effovpr_ros.nodes.localize_request import LocalizeRequest
from effovpr_ros.nodes.odometry import OdometryListener
from effovpr_ros.nodes.outputs import RESULT_QOS, Outputs
from effovpr_ros.nodes.parameters import CameraNodeConfig, NodeConfig
from effovpr_ros.nodes.recognition_engine import RecognitionEngine
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer, Recognition
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

_MOST_WAITING = 32
"""Calls of `~/localize` at a time."""


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
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Answer:
    """What was recognised, and what with."""

    match: PlaceMatch
    image: RgbImage
    recognition: Recognition
    place_map: PlaceMap
    recognizer: PlaceRecognizer


@dataclass(frozen=True)
class _Query:
    """An image on its way through the worker.

    Attributes:
        message: the image.
        received_s: when it came.
        hint: that counts for it.
        in_stream: it is of the topic, so its answer is published; else it answers its caller alone.
    """

    message: ImageMessage
    received_s: float
    hint: Hint | None
    in_stream: bool = True


class Recognizing(Configured[_Query]):
    """Map, model, topics and the calls that wait."""

    def __init__(
        self,
        node: GuardedNode,
        settings: RecognizerSettings,
        engine: RecognitionEngine,
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
        super().__init__(node, settings.camera, worker, resources)
        self._config = settings.node
        self.engine = engine
        self._hint: PoseWithCovarianceStamped | None = None
        self.newest: _Query | None = None
        self.asked = 0
        self._waiting: list[LocalizeRequest] = []
        self._for_an_image: list[LocalizeRequest] = []
        self.outputs = Outputs(
            node, make_adapters(node, settings.adapters.names, settings.adapters), settings.adapters.body_frame
        )
        resources.callback(self.outputs.destroy)
        self.odometry = OdometryListener(node)
        resources.callback(self.odometry.listen, False)
        self.odometry.listen(settings.recognizer.sequence_length > 0)
        self._subscribe(PoseWithCovarianceStamped, "~/hint", self._on_hint, RESULT_QOS)
        place_map = engine.place_map
        if place_map is None:
            node.get_logger().warning("map_path is empty: images are answered once ~/load_map has loaded a map")
        else:
            self._announce(place_map)

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
        self.newest = None

    def close(self) -> None:
        """Close the map."""
        self.engine.close()

    def use(self, settings: RecognizerSettings) -> None:
        """Use other thresholds from the next image on."""
        self._worker.submit(partial(self.engine.set_config, settings.recognizer, settings.given))
        self.odometry.listen(settings.recognizer.sequence_length > 0)

    def load_map(self, folder: Path) -> Future[PlaceMap]:
        """Open another map after the image at hand."""
        return self._worker.submit(partial(self.engine.load_map, folder))

    def show_map(self, place_map: PlaceMap) -> None:
        """Log a map that was loaded, and publish its places."""
        self._announce(place_map)
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
            self._ask(request, _Query(image, now_s, self._hint_for(image.header), in_stream=False))
        elif self.newest is not None and now_s - self.newest.received_s <= self._config.localize_max_age_s:
            self._ask(request, self.newest)
        else:
            self._for_an_image.append(request)

    def expire(self, request: LocalizeRequest) -> None:
        """Tell a call why it has no answer by now."""
        if request in self._for_an_image:
            self._for_an_image.remove(request)
            request.refuse(self.silence(time.monotonic()))
        request.refuse(f"the image was not processed within {request.timeout_s:.1f} s")

    def _ask(self, request: LocalizeRequest, query: _Query) -> None:
        self._worker.submit(partial(self._answer_call, request, query))

    def _answer_call(self, request: LocalizeRequest, query: _Query) -> None:
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

    def _on_image(self, message: ImageMessage) -> None:
        self.newest = query = self._make_item(message, time.monotonic())
        waiting, self._for_an_image = self._for_an_image, []
        for request in waiting:
            self._ask(request, query)
        super()._on_image(message)

    def _make_item(self, message: ImageMessage, received_s: float) -> _Query:
        return _Query(message, received_s, self._hint_for(message.header))

    def _on_hint(self, message: PoseWithCovarianceStamped) -> None:
        try:
            conversions.hint_from_message(message, self._config.hint_radius_m)
        except ConfigError as error:
            self._node.report(f"a hint is ignored: {error}")
            return
        self._hint = message

    def _hint_for(self, header: Header) -> Hint | None:
        """The last hint, if it is in the map's frame and not older than `hint_timeout_s` beside the image."""
        message = self._hint
        if message is None:
            return None
        age_s = (conversions.ns_from_time(header.stamp) - conversions.ns_from_time(message.header.stamp)) * 1e-9
        if abs(age_s) > self._config.hint_timeout_s:
            return None
        frame_id = self.engine.place_map.frame_id if self.engine.place_map else ""
        if message.header.frame_id != frame_id:
            self._node.report(f"a hint in frame {message.header.frame_id!r} is ignored; the map's is {frame_id!r}")
            return None
        return conversions.hint_from_message(message, self._config.hint_radius_m)

    # Worker

    def _process(self, query: _Query) -> None:
        try:
            self._publish(query, self._recognize(query))
        except EffoVPRError as error:
            self._node.report(str(error))

    def _recognize(self, query: _Query) -> _Answer:
        image = decode_message(query.message, self._max_pixels)
        if self.engine.take_over():
            self._node.get_logger().info(engine_news(self.engine.engine_state))
        stamp_ns = conversions.ns_from_time(query.message.header.stamp) if query.in_stream else None
        odometry = self.odometry.at(stamp_ns) if stamp_ns is not None else None
        recognition, place_map, recognizer = self.engine.recognize(image, query.hint, stamp_ns, odometry)
        match = conversions.match_message(
            recognition,
            Header(stamp=query.message.header.stamp, frame_id=place_map.frame_id),
            map_name=place_map.name,
            num_candidates=self._config.num_candidates,
            total_ms=(time.monotonic() - query.received_s) * 1e3,
        )
        self._node.statistics.add_result(recognition.status.name, recognition.latency_ms, time.monotonic())
        return _Answer(match, image, recognition, place_map, recognizer)

    def _publish(self, query: _Query, answer: _Answer) -> None:
        self.outputs.publish(answer.match, answer.recognition)
        self.outputs.publish_debug_image(answer.image, answer.recognition, answer.recognizer, query.message.header)

    # Reports

    def _announce(self, place_map: PlaceMap) -> None:
        self._node.map_parameters.show(self.engine.config)
        self._node.get_logger().info(
            f"map {place_map.name} ({place_map.path}): {len(place_map)} places, model "
            f"{place_map.fingerprint.architecture}, device {self.engine.device}"
        )

    def _publish_map_markers(self) -> None:
        if self.engine.place_map is not None:
            self.outputs.publish_map(self.engine.place_map)

    def _own_health(self, now_s: float) -> Health:
        place_map = self.engine.place_map
        level, text = DiagnosticStatus.OK, "recognising" if self.is_active else "inactive"
        if place_map is None:
            level, text = DiagnosticStatus.WARN, "no map is loaded; call ~/load_map"
        values = {
            **self.engine.engine_state,
            "localize_calls": str(self.asked),
            "map": str(place_map.path) if place_map else "",
            "places": str(len(place_map)) if place_map else "0",
        }
        return Health(level, text, self.engine.device, values)
