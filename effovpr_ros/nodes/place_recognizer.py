"""Lifecycle node `place_recognizer`: answers each camera image with the place of a prior map that it shows."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes import conversions, parameters
from effovpr_ros.nodes.adapters.adapter_config import MatchAdapterConfig
from effovpr_ros.nodes.adapters.registry import make_adapters
from effovpr_ros.nodes.camera_node import CameraNode, Health, ImageMessage, run_camera_node
from effovpr_ros.nodes.image_decoding import decode_message
from effovpr_ros.nodes.odometry import OdometryListener
from effovpr_ros.nodes.outputs import RESULT_QOS, Outputs
from effovpr_ros.nodes.parameters import NodeConfig
from effovpr_ros.nodes.recognition_engine import RecognitionEngine
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.recognizer import Hint
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.srv import LoadMap, Localize

_DEFAULT_TIMEOUT_S = 5.0


@dataclass
class _Query:
    """An image on its way through the worker; `answered` is set when `match` or `error` is there."""

    message: ImageMessage
    received_s: float
    in_stream: bool = True
    answered: threading.Event = field(default_factory=threading.Event)
    match: PlaceMatch | None = None
    error: str = ""


class PlaceRecognizerNode(CameraNode[_Query]):
    """Callbacks store the newest image; a worker recognises and publishes."""

    _engine: RecognitionEngine | None = None

    def __init__(self, **options: object) -> None:
        """Declare the parameters; everything else waits for `configure`.

        Args:
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        super().__init__("place_recognizer", NodeConfig(), RecognizerConfig(), MatchAdapterConfig(), **options)

    def _open(self, worker: LatestWorker[_Query]) -> None:
        self._config = parameters.read(self, NodeConfig)
        self._adapter_config = parameters.read(self, MatchAdapterConfig)
        self._engine = engine = RecognitionEngine(self._camera_config, parameters.read(self, RecognizerConfig))
        self._hint: PoseWithCovarianceStamped | None = None
        self._newest: ImageMessage | None = None
        self._image_arrived = threading.Condition()
        if self._config.map_path:
            self._announce(worker.call(lambda: engine.load_map(self._config.map_path)))
        else:
            self.get_logger().warning("map_path is empty: images are answered once ~/load_map has loaded a map")

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _create_interfaces(self) -> None:
        adapters = make_adapters(self, self._adapter_config.names, self._adapter_config)
        self._outputs = Outputs(self, adapters, self._adapter_config.body_frame)
        self._resources.callback(self._outputs.destroy)
        self._odometry = OdometryListener(self, self._sensor_group)
        self._resources.callback(self._odometry.listen, False)
        self._odometry.listen(self._engine.config.sequence_length > 0)
        self._subscribe(PoseWithCovarianceStamped, "~/hint", self._on_hint, RESULT_QOS)
        self._serve(Localize, "~/localize", self._on_localize)
        self._serve(LoadMap, "~/load_map", self._on_load_map)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start answering."""
        result = super().on_activate(state)
        self._outputs.on_activate()
        self._engine.restart_sequence()
        self._publish_map_markers()
        return result

    # Callbacks

    def _on_image(self, message: ImageMessage) -> None:
        with self._image_arrived:
            self._newest = message
            self._image_arrived.notify_all()
        super()._on_image(message)

    def _make_item(self, message: ImageMessage, received_s: float) -> _Query:
        return _Query(message, received_s)

    def _on_hint(self, message: PoseWithCovarianceStamped) -> None:
        self._hint = message

    def _check_parameters(self, changed: list[Parameter]) -> None:
        """Thresholds of recognition count from the next image on."""
        parameters.read(self, NodeConfig, changed)
        parameters.read(self, MatchAdapterConfig, changed)
        config = parameters.read(self, RecognizerConfig, changed)
        if self._engine is not None and parameters.touches(changed, RecognizerConfig):
            self._engine.set_config(config)
            if self._worker is not None:
                self._odometry.listen(config.sequence_length > 0)

    def _on_localize(self, request: Localize.Request, response: Localize.Response) -> Localize.Response:
        deadline_s = time.monotonic() + (request.timeout_s if request.timeout_s > 0.0 else _DEFAULT_TIMEOUT_S)
        if not self._is_active:
            response.message = "the node is not active; activate it first"
            return response
        message = request.image if len(request.image.data) else self._wait_for_image(deadline_s)
        if message is None:
            response.message = "no image arrived within the timeout; check the image topic, its QoS and image_transport"
            return response
        query = _Query(message, time.monotonic(), in_stream=not len(request.image.data))
        self._worker.request(query)
        if not query.answered.wait(max(deadline_s - time.monotonic(), 0.0)):
            response.message = "the image was not processed within the timeout"
        elif query.match is None:
            response.message = query.error
        else:
            response.success, response.match = True, query.match
        return response

    def _wait_for_image(self, deadline_s: float) -> ImageMessage | None:
        with self._image_arrived:
            self._image_arrived.wait_for(lambda: self._newest is not None, deadline_s - time.monotonic())
            return self._newest

    def _on_load_map(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        try:
            engine = self._engine
            place_map = self._worker.call(lambda: engine.load_map(request.path))
        except EffoVPRError as error:
            self.get_logger().error(f"load_map: {error}")
            response.message = str(error)
            return response
        except CancelledError:
            response.message = "the node is shutting down"
            return response
        self._announce(place_map)
        self._publish_map_markers()
        response.success, response.message = True, f"map {place_map.name} with {len(place_map)} places"
        return response

    # Worker

    def _process(self, query: _Query) -> None:
        try:
            image = decode_message(query.message, round(self._camera_config.max_megapixels * 1e6))
            hint = self._current_hint(query.message.header)
            stamp_ns = conversions.ns_from_time(query.message.header.stamp) if query.in_stream else None
            odometry = self._odometry.at(stamp_ns) if stamp_ns is not None else None
            recognition, place_map, recognizer = self._engine.recognize(image, hint, stamp_ns, odometry)
            header = Header(stamp=query.message.header.stamp, frame_id=place_map.frame_id)
            query.match = conversions.match_message(
                recognition,
                header,
                map_name=place_map.name,
                num_candidates=self._config.num_candidates,
                total_ms=(time.monotonic() - query.received_s) * 1e3,
            )
            self._outputs.publish(query.match, recognition)
            self._statistics.add_result(recognition.status.name, recognition.latency_ms, time.monotonic())
            self._outputs.publish_debug_image(image, recognition, place_map, recognizer, query.message.header)
        except EffoVPRError as error:
            query.error = str(error)
            self._report(query.error)
        finally:
            query.answered.set()

    def _current_hint(self, header: Header) -> Hint | None:
        """The last hint, if it is in the map's frame and not older than `hint_timeout_s` beside the image."""
        message = self._hint
        if message is None:
            return None
        age_s = (conversions.ns_from_time(header.stamp) - conversions.ns_from_time(message.header.stamp)) * 1e-9
        if abs(age_s) > self._config.hint_timeout_s:
            return None
        frame_id = self._engine.place_map.frame_id if self._engine.place_map else ""
        if message.header.frame_id != frame_id:
            self._report(f"a hint in frame {message.header.frame_id!r} is ignored; the map's frame is {frame_id!r}")
            return None
        return conversions.hint_from_message(message, self._config.hint_radius_m)

    # Reports

    def _announce(self, place_map: PlaceMap) -> None:
        self.get_logger().info(
            f"map {place_map.name} ({place_map.path}): {len(place_map)} places, model "
            f"{place_map.fingerprint.architecture}, device {self._engine.device}"
        )

    def _publish_map_markers(self) -> None:
        place_map = self._engine.place_map if self._engine else None
        if place_map is not None:
            self._outputs.publish_map(place_map)

    def _health(self, now_s: float) -> Health:
        place_map = self._engine.place_map
        level, text = DiagnosticStatus.OK, "recognising" if self._is_active else "inactive"
        if place_map is None:
            level, text = DiagnosticStatus.WARN, "no map is loaded; call ~/load_map"
        values = {
            "map": str(place_map.path) if place_map else "",
            "places": str(len(place_map)) if place_map else "0",
        }
        return Health(level, text, self._engine.device, values)


def main() -> None:
    """Run the node until it is interrupted."""
    run_camera_node(PlaceRecognizerNode, "place_recognizer")


if __name__ == "__main__":
    main()
