"""Lifecycle node `loop_closure_detector`: a map that grows while the robot drives, and the loops that it closes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from effovpr_ros.core.cameras import bearing_rad
from effovpr_ros.core.errors import EffoVPRError, ImageError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.geometry.verification_config import VerificationConfig
from effovpr_ros.loop_closure.closure_check import ClosureCheck
from effovpr_ros.loop_closure.keyframes import Condition
from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.loop_closure.results import LoopResult, RefusedClosure
from effovpr_ros.nodes import conversions, parameters
from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig
from effovpr_ros.nodes.adapters.registry import make_adapters
from effovpr_ros.nodes.camera_geometry import CameraGeometry
from effovpr_ros.nodes.camera_node import CameraNode, Health, ImageMessage, run_camera_node
from effovpr_ros.nodes.image_decoding import decode_message
from effovpr_ros.nodes.loop_conversions import UNVERIFIED, closure_message, keyframe_message
from effovpr_ros.nodes.loop_engine import LoopEngine
from effovpr_ros.nodes.loop_health import CAMERA_UNKNOWN, ODOMETRY_MISSING, STATES, InputHealth
from effovpr_ros.nodes.loop_outputs import LoopOutputs
from effovpr_ros.nodes.odometry import OdometryListener
from effovpr_ros.nodes.outputs import SENSOR_QOS
from effovpr_ros.nodes.parameters import LoopNodeConfig
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.srv import SaveMap


@dataclass(frozen=True)
class _Arrival:
    """An image on its way through the worker."""

    message: ImageMessage
    received_s: float


@dataclass(frozen=True)
class _Rules:
    """What may change while the node runs."""

    loops: LoopConfig
    recognizer: RecognizerConfig


class LoopClosureDetectorNode(CameraNode[_Arrival]):
    """Callbacks store the newest image and the odometry; a worker makes keyframes and looks for loops."""

    _engine: LoopEngine | None = None

    def __init__(self, **options: object) -> None:
        """Declare the parameters; everything else waits for `configure`.

        Args:
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        defaults = (LoopNodeConfig(), LoopAdapterConfig(), VerificationConfig(), LoopConfig(), LOOP_RECOGNIZER)
        super().__init__("loop_closure_detector", *defaults, **options)

    def _open(self, worker: LatestWorker[_Arrival]) -> None:
        self._config = config = parameters.read(self, LoopNodeConfig)
        self._adapter_config = parameters.read(self, LoopAdapterConfig)
        self._check = ClosureCheck(parameters.read(self, VerificationConfig), config.camera_pose)
        self._rules = self._new_rules = rules = self._read_rules()
        self._engine = engine = worker.call(
            lambda: LoopEngine(self._camera_config, config, rules.recognizer, rules.loops)
        )
        self._health_of_inputs = InputHealth(time.monotonic())
        self._last_contradiction = ""
        place_map = engine.place_map
        self.get_logger().info(
            f"session {engine.detector.session} in {place_map.path}, which holds {len(place_map)} keyframes of "
            f"{len(place_map.sessions)} sessions; model {place_map.fingerprint.architecture}, device {engine.device}"
        )
        if engine.is_temporary:
            self.get_logger().warning(
                f"session_path is empty: {place_map.path} is deleted at the end; keep the map by ~/save_map"
            )

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            try:
                engine.close()
            except EffoVPRError as error:
                self.get_logger().error(f"closing the session: {error}")

    def _create_interfaces(self) -> None:
        self._outputs = LoopOutputs(self, make_adapters(self, self._adapter_config.names, self._adapter_config))
        self._resources.callback(self._outputs.destroy)
        self._odometry = OdometryListener(self, self._sensor_group, self._outputs.on_odometry)
        self._resources.callback(self._odometry.listen, False)
        self._odometry.listen(True)
        self._geometry = CameraGeometry(self._report)
        self._subscribe(CameraInfo, "camera_info", self._geometry.on_camera_info, SENSOR_QOS)
        if self._check.config.verification == "metric":
            self._subscribe(Image, "depth", self._geometry.on_depth, self._image_qos())
        self._serve(SaveMap, "~/save_map", self._on_save_map)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start making keyframes."""
        self._health_of_inputs = InputHealth(time.monotonic())
        result = super().on_activate(state)
        self._outputs.on_activate()
        return result

    # Callbacks

    def _make_item(self, message: ImageMessage, received_s: float) -> _Arrival:
        self._health_of_inputs.image_arrived(received_s)
        return _Arrival(message, received_s)

    def _check_parameters(self, changed: list[Parameter]) -> None:
        """Rules of keyframes and thresholds of recognition count from the next image on."""
        config = parameters.read(self, LoopNodeConfig, changed)
        parameters.read(self, LoopAdapterConfig, changed)
        ClosureCheck(parameters.read(self, VerificationConfig, changed), config.camera_pose)
        rules = self._read_rules(changed)
        if parameters.touches(changed, LoopConfig, RecognizerConfig):
            self._new_rules = rules

    def _read_rules(self, changed: Sequence[Parameter] = ()) -> _Rules:
        return _Rules(parameters.read(self, LoopConfig, changed), parameters.read(self, RecognizerConfig, changed))

    def _on_save_map(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        engine = self._engine
        try:
            engine.save_map(request.path, request.name)
        except EffoVPRError as error:
            self.get_logger().error(f"save_map: {error}")
            response.message = str(error)
            return response
        response.success, response.message = True, f"{len(engine.place_map)} keyframes in {request.path}"
        return response

    # Worker

    def _process(self, arrival: _Arrival) -> None:
        try:
            self._take(arrival)
        except EffoVPRError as error:
            self._statistics.count("undecodable" if isinstance(error, ImageError) else "failed")
            self._report(str(error))

    def _take(self, arrival: _Arrival) -> None:
        """Make an image a keyframe if it should be one, look for the loop that it closes, and publish both."""
        stamp_ns = conversions.ns_from_time(arrival.message.header.stamp)
        if not stamp_ns:
            raise ImageError("the image has no stamp, so its age and odometry are unknown; check the camera driver")
        odometry = self._odometry.interpolated(stamp_ns, self._config.odom_wait_s)
        if odometry is None and self._config.odometry_required:
            self._statistics.count("odometry_missing")
            self._health_of_inputs.saw(ODOMETRY_MISSING, time.monotonic())
            return
        detector = self._engine.detector
        if self._rules is not self._new_rules:
            self._rules = self._new_rules
            detector.set_configs(self._rules.recognizer, self._rules.loops)
        if not detector.wants(stamp_ns, odometry):
            self._note(detector.condition)
            return
        image = decode_message(arrival.message, round(self._camera_config.max_megapixels * 1e6))
        result = detector.process(image, stamp_ns, odometry)
        self._note(result.condition)
        frame_id = self._odometry.frame_id or self._engine.place_map.frame_id
        if result.keyframe is not None:
            self._publish_keyframe(result, frame_id, arrival.received_s)
        if result.refused is not None:
            self._note_refused(result.refused)
        if result.closure is not None:
            self._publish_closure(result, image, frame_id)

    def _note(self, condition: Condition) -> None:
        self._statistics.count(condition.name)
        self._health_of_inputs.saw(STATES.get(condition), time.monotonic())

    def _note_refused(self, refused: RefusedClosure) -> None:
        self._statistics.count("contradicted_closures")
        self._last_contradiction = refused.reason
        self.get_logger().info(f"closure refused: {refused.reason}")

    def _publish_keyframe(self, result: LoopResult, frame_id: str, received_s: float) -> None:
        now_s = time.monotonic()
        message = keyframe_message(
            result.keyframe, frame_id, insert_ms=result.insert_ms, total_ms=(now_s - received_s) * 1e3
        )
        self._outputs.publish_keyframe(message)
        self._statistics.count("keyframes")
        self._statistics.add_result(result.recognition.status.name, result.recognition.latency_ms, now_s)

    def _publish_closure(self, result: LoopResult, image: RgbImage, frame_id: str) -> None:
        """Publish a closure that no check refuses."""
        closure, camera, verification = result.closure, self._geometry.camera(), UNVERIFIED
        if self._check.config.verification != "off":
            if camera is None:
                self._health_of_inputs.saw(CAMERA_UNKNOWN, time.monotonic())
            depth_m = self._geometry.depth_m(closure.query.stamp_ns)
            verification = self._check.verify(closure, image, result.features, self._engine.place_map, camera, depth_m)
            self.get_logger().debug(f"closure {closure.query.keyframe_id}: {verification.reason}")
        if not verification.accepted:
            self._statistics.count("refused_closures")
            return
        turned_rad = None if camera is None else bearing_rad(closure.bearing_offset, camera)
        message = closure_message(
            closure, frame_id, self._rules.recognizer, bearing_rad=turned_rad, verification=verification
        )
        self._outputs.publish_closure(message)
        self._statistics.count("closures")

    # Reports

    def _health(self, now_s: float) -> Health:
        self._outputs.publish_markers()
        engine = self._engine
        progress = engine.detector.progress
        values = {
            "map": str(engine.place_map.path),
            "session": engine.detector.session,
            "keyframes_in_map": str(len(engine.place_map)),
            "distance_m": f"{progress.distance_m:.1f}",
            "track": str(progress.track),
            "odometry_frame": self._odometry.frame_id,
            "last_contradiction": self._last_contradiction,
        }
        state = self._health_of_inputs.worst(now_s) if self._is_active else None
        if state is not None:
            return Health(state.level, state.text, engine.device, values)
        text = "looking for loops" if self._is_active else "inactive"
        return Health(DiagnosticStatus.OK, text, engine.device, values)


def main() -> None:
    """Run the node until it is interrupted."""
    run_camera_node(LoopClosureDetectorNode, "loop_closure_detector")


if __name__ == "__main__":
    main()
