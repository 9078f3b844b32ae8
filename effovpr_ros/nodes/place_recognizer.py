"""Lifecycle node `place_recognizer`: answers each camera image with the place of a prior map that it shows."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from effovpr_ros.errors import EffoVPRError
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes import conversions, parameters
from effovpr_ros.nodes.adapters.config import MatchAdapterConfig
from effovpr_ros.nodes.adapters.registry import make_adapters
from effovpr_ros.nodes.diagnostics import Statistics, diagnostic_array
from effovpr_ros.nodes.image_decoding import decode_message, make_decoder
from effovpr_ros.nodes.odometry import OdometryListener
from effovpr_ros.nodes.outputs import RELIABLE_SENSOR_QOS, RESULT_QOS, SENSOR_QOS, Outputs
from effovpr_ros.nodes.parameters import NodeConfig
from effovpr_ros.nodes.program import run_node
from effovpr_ros.nodes.recognition_engine import RecognitionEngine
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.config import RecognizerConfig
from effovpr_ros.recognition.recognizer import Hint
from effovpr_ros.srv import LoadMap, Localize

_DIAGNOSTICS_PERIOD_S = 1.0
_DEFAULT_TIMEOUT_S = 5.0
_ERROR_IS_RECENT_S = 5.0
_LOG_PERIOD_S = 5.0


@dataclass
class _Query:
    """An image on its way through the worker; `answered` is set when `match` or `error` is there."""

    message: Image | CompressedImage
    received_s: float
    in_stream: bool = True
    answered: threading.Event = field(default_factory=threading.Event)
    match: PlaceMatch | None = None
    error: str = ""


class PlaceRecognizerNode(LifecycleNode):
    """Callbacks store the newest image; a worker recognises and publishes."""

    # A node whose parameters are refused is destroyed before its constructor comes to an end.
    _worker: LatestWorker[_Query] | None = None
    _engine: RecognitionEngine | None = None
    _is_active = False

    def __init__(self, **options: object) -> None:
        """Declare the parameters; everything else waits for `configure`.

        Args:
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        super().__init__("place_recognizer", **options)
        parameters.declare(self, NodeConfig, RecognizerConfig, MatchAdapterConfig)
        self.add_on_set_parameters_callback(self._on_parameters)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load map and model, advertise; a failure leaves the node unconfigured and alive."""
        worker: LatestWorker[_Query] = LatestWorker(self._process, self._on_worker_error)
        try:
            self._config = parameters.read_node_config(self)
            self._adapter_config = parameters.read(self, MatchAdapterConfig)
            self._engine = engine = RecognitionEngine(self._config, parameters.read_recognizer_config(self))
            if self._config.map_path:
                self._announce(worker.call(lambda: engine.load_map(self._config.map_path)))
            else:
                self.get_logger().warning("map_path is empty: images are answered once ~/load_map has loaded a map")
        except EffoVPRError as error:
            self.get_logger().error(f"configure failed: {error}")
            worker.stop()
            self._engine = None
            return TransitionCallbackReturn.FAILURE
        decoder_name, self._decode = make_decoder()
        self.get_logger().info(f"raw images are decoded by {decoder_name}")
        self._statistics = Statistics()
        self._hint: PoseWithCovarianceStamped | None = None
        self._newest: Image | CompressedImage | None = None
        self._image_arrived = threading.Condition()
        self._last_offer_s = 0.0
        self._worker = worker
        self._create_interfaces()
        self._odometry.listen(self._engine.config.sequence_length > 0)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start answering."""
        result = super().on_activate(state)
        self._outputs.on_activate()
        self._is_active = True
        self._engine.restart_sequence()
        self._publish_map_markers()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop answering; the map stays loaded."""
        self._is_active = False
        if self._worker:
            self._worker.clear()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release map and model."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after an unexpected error in a transition."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _create_interfaces(self) -> None:
        sensors = MutuallyExclusiveCallbackGroup()
        # ~/localize waits for the worker, so it must not hold up anything else.
        services = ReentrantCallbackGroup()
        compressed = self._config.image_transport == "compressed"
        adapters = make_adapters(self, self._adapter_config.names, self._adapter_config)
        self._outputs = Outputs(self, adapters, self._adapter_config.body_frame)
        self._odometry = OdometryListener(self, sensors)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RESULT_QOS)
        image_qos = RELIABLE_SENSOR_QOS if self._config.image_reliability == "reliable" else SENSOR_QOS
        topic, kind = ("image/compressed", CompressedImage) if compressed else ("image", Image)
        self._entities = (
            self.create_subscription(kind, topic, self._on_image, image_qos, callback_group=sensors),
            self.create_subscription(
                PoseWithCovarianceStamped, "~/hint", self._on_hint, RESULT_QOS, callback_group=sensors
            ),
            self.create_service(Localize, "~/localize", self._on_localize, callback_group=services),
            self.create_service(LoadMap, "~/load_map", self._on_load_map, callback_group=services),
            self.create_timer(_DIAGNOSTICS_PERIOD_S, self._on_diagnostics, callback_group=sensors),
        )

    def destroy_node(self) -> None:
        """Stop recognising, then withdraw everything."""
        if self._worker is not None:
            # A thread that is still inside torch when the interpreter ends would abort the process.
            self._worker.stop()
        super().destroy_node()

    def _release(self) -> None:
        self._is_active = False
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
            self._outputs.destroy()
            self._odometry.listen(False)
            self.destroy_publisher(self._diagnostics)
            *subscriptions, localize, load_map, timer = self._entities
            for subscription in subscriptions:
                self.destroy_subscription(subscription)
            self.destroy_service(localize)
            self.destroy_service(load_map)
            self.destroy_timer(timer)
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    # Callbacks

    def _on_image(self, message: Image | CompressedImage) -> None:
        now_s = time.monotonic()
        with self._image_arrived:
            self._newest = message
            self._image_arrived.notify_all()
        period_s = 1.0 / self._config.max_rate_hz if self._config.max_rate_hz else 0.0
        if self._is_active and now_s - self._last_offer_s >= period_s:
            self._last_offer_s = now_s
            self._worker.offer(_Query(message, now_s))

    def _on_hint(self, message: PoseWithCovarianceStamped) -> None:
        self._hint = message

    def _on_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        """Refuse impossible values; thresholds of recognition count from the next image on."""
        try:
            parameters.read_node_config(self, changed)
            parameters.read(self, MatchAdapterConfig, changed)
            config = parameters.read_recognizer_config(self, changed)
        except EffoVPRError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._engine is not None and parameters.touches(changed, RecognizerConfig):
            self._engine.set_config(config)
            if self._worker is not None:
                self._odometry.listen(config.sequence_length > 0)
        return SetParametersResult(successful=True)

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

    def _wait_for_image(self, deadline_s: float) -> Image | CompressedImage | None:
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
            image = decode_message(query.message, self._decode)
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

    def _on_worker_error(self, error: Exception) -> None:
        self._report(f"unexpected {type(error).__name__}: {error}")

    def _report(self, text: str) -> None:
        self._statistics.add_error(text, time.monotonic())
        self.get_logger().error(text, throttle_duration_sec=_LOG_PERIOD_S)

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

    def _on_diagnostics(self) -> None:
        now_s = time.monotonic()
        place_map = self._engine.place_map
        values = self._statistics.values(now_s)
        values["dropped_frames"] = str(self._worker.dropped)
        values["map"] = str(place_map.path) if place_map else ""
        values["places"] = str(len(place_map)) if place_map else "0"
        values["device"] = self._engine.device
        level, text = DiagnosticStatus.OK, "recognising" if self._is_active else "inactive"
        if place_map is None:
            level, text = DiagnosticStatus.WARN, "no map is loaded; call ~/load_map"
        if self._statistics.last_error and now_s - self._statistics.last_error_s < _ERROR_IS_RECENT_S:
            level, text = DiagnosticStatus.ERROR, self._statistics.last_error
        message = diagnostic_array(self.get_fully_qualified_name(), self._engine.device, level, text, values)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> None:
    """Run the node until it is interrupted."""

    def spin(node: PlaceRecognizerNode) -> None:
        executor = MultiThreadedExecutor(num_threads=4)
        executor.add_node(node)
        executor.spin()

    run_node("place_recognizer", PlaceRecognizerNode, spin)


if __name__ == "__main__":
    main()
