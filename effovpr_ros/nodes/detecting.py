"""What `loop_closure_detector` works with while it is configured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image

from effovpr_ros.core.cameras import CameraModel, bearing_rad
from effovpr_ros.core.errors import ConfigError, EffoVPRError, ImageError
from effovpr_ros.core.mounted_cameras import MountedCamera, parse_pose
from effovpr_ros.core.poses import Pose
from effovpr_ros.loop_closure.keyframes import Condition
from effovpr_ros.loop_closure.loop_config import LoopConfig
from effovpr_ros.loop_closure.results import Keyframe, LoopClosure, LoopResult, RefusedClosure
from effovpr_ros.nodes import conversions
from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig
from effovpr_ros.nodes.adapters.registry import make_adapters
from effovpr_ros.nodes.camera_geometry import CameraGeometry
from effovpr_ros.nodes.configured import Configured, Health, ImageMessage, engine_news, gpu_values
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.image_decoding import decode_message
from effovpr_ros.nodes.loop_conversions import closure_message, keyframe_message
from effovpr_ros.nodes.loop_engine import LoopEngine
from effovpr_ros.nodes.loop_health import CAMERA_UNKNOWN, ODOMETRY_MISSING, STATES, InputHealth
from effovpr_ros.nodes.loop_outputs import LoopOutputs
from effovpr_ros.nodes.odometry import OdometryListener
from effovpr_ros.nodes.outputs import SENSOR_QOS
from effovpr_ros.nodes.parameters import CameraNodeConfig, LoopNodeConfig
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


@dataclass(frozen=True)
class DetectorSettings:
    """All parameters of `loop_closure_detector`.

    Attributes:
        given: parameters of the recogniser that somebody gave though the map carries them too.
    """

    camera: CameraNodeConfig
    node: LoopNodeConfig
    adapters: LoopAdapterConfig
    loops: LoopConfig
    recognizer: RecognizerConfig
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def body_from_camera(self) -> Pose | None:
        """The camera's mounting; None where it is not given.

        Raises:
            ConfigError: no pose, or settings that do not go together.
        """
        text = self.node.camera_pose.strip()
        if not text and self.loops.closures == "measured":
            raise ConfigError(
                "closures measured needs camera_pose: x y z roll pitch yaw of the camera's optical frame in the "
                "odometry's child frame, e.g. '0.2 0 0.5 -1.5708 0 -1.5708' for one that looks ahead"
            )
        return parse_pose(text) if text else None


@dataclass(frozen=True)
class _Arrival:
    """An image on its way through the worker."""

    message: ImageMessage
    received_s: float


class Detecting(Configured[_Arrival]):
    """The session, its detector and topics."""

    def __init__(
        self,
        node: GuardedNode,
        settings: DetectorSettings,
        engine: LoopEngine,
        worker: LatestWorker,
        resources: ExitStack,
    ) -> None:
        """Advertise and subscribe.

        Args:
            node: that is configured.
            settings: its parameters.
            engine: the session, for the worker's thread alone.
            worker: of the images.
            resources: takes the undoing of what is advertised and subscribed.
        """
        super().__init__(node, settings.camera, worker, resources)
        self._config = settings.node
        node.map_parameters.show(engine.config)
        self._recognizer = engine.config
        self._body_from_camera = settings.body_from_camera
        self.engine = engine
        self._health_of_inputs = InputHealth()
        self._last_refusal = ""
        # A copy of the map holds no keyframe up.
        self._saving = ThreadPoolExecutor(1, "save_map")
        resources.callback(self._saving.shutdown, False)
        self.outputs = LoopOutputs(node, make_adapters(node, settings.adapters.names, settings.adapters))
        resources.callback(self.outputs.destroy)
        self.odometry = OdometryListener(node, self.outputs.on_odometry)
        resources.callback(self.odometry.listen, False)
        self.odometry.listen(True)
        self.geometry = CameraGeometry(node.report)
        self._subscribe(CameraInfo, "camera_info", self.geometry.on_camera_info, SENSOR_QOS)
        if settings.node.use_depth:
            self._hear_images(Image, "depth", self.geometry.on_depth)
        self._announce()

    def activate(self) -> None:
        """Start making keyframes."""
        self._health_of_inputs = InputHealth()
        super().activate()
        self.outputs.on_activate()

    def close(self) -> None:
        """Close the session."""
        try:
            self.engine.close()
        except EffoVPRError as error:
            self._node.get_logger().error(f"the session was not closed properly: {error}")

    def use(self, recognizer: RecognizerConfig, loops: LoopConfig) -> None:
        """Use other rules and thresholds from the next image on."""
        self._worker.submit(partial(self._set_configs, recognizer, loops))

    def save_map(self, folder: Path, name: str) -> Future[int]:
        """Copy the map as it is; gives the number of its keyframes."""
        return self._saving.submit(self._save_map, folder, name)

    def _save_map(self, folder: Path, name: str) -> int:
        self.engine.save_map(folder, name)
        return len(self.engine.place_map)

    def _on_image(self, number: int, message: ImageMessage) -> None:
        self._offer(_Arrival(message, time.monotonic()))

    # Worker

    def _set_configs(self, recognizer: RecognizerConfig, loops: LoopConfig) -> None:
        self._recognizer = recognizer
        self.engine.detector.set_configs(recognizer, loops)

    def _process(self, arrival: _Arrival) -> None:
        try:
            self._take(arrival)
        except EffoVPRError as error:
            self._node.statistics.count("undecodable" if isinstance(error, ImageError) else "failed")
            self._node.report(str(error))

    def _take(self, arrival: _Arrival) -> None:
        """Make an image a keyframe if it should be one, look for the loop that it closes, and publish both."""
        stamp_ns = conversions.ns_from_time(arrival.message.header.stamp)
        if not stamp_ns:
            raise ImageError("the image has no stamp, so its age and odometry are unknown; check the camera driver")
        odometry = self.odometry.interpolated(stamp_ns, self._config.odom_wait_s)
        if odometry is None and self._config.odometry_required:
            self._node.statistics.count("odometry_missing")
            self._health_of_inputs.saw(ODOMETRY_MISSING, time.monotonic())
            return
        detector = self.engine.detector
        if not detector.wants(stamp_ns, odometry):
            self._note(detector.condition)
            return
        image = decode_message(arrival.message, self._max_pixels)
        if self.engine.take_over():
            self._node.get_logger().info(engine_news(self.engine.engine_state))
        camera = self.geometry.camera()
        mounted = None if camera is None else MountedCamera(camera, self._body_from_camera)
        depth = partial(self.geometry.depth_m, stamp_ns) if self._config.use_depth else None
        result = detector.process(image, stamp_ns, odometry, camera=mounted, depth=depth)
        self._note(result.condition)
        frame_id = self.odometry.frame_id or self.engine.place_map.frame_id
        if result.keyframe is not None:
            self._publish_keyframe(result, result.keyframe, frame_id, arrival.received_s)
        if result.refused is not None:
            self._note_refused(result.refused)
        if result.closure is not None:
            self._publish_closure(result.closure, camera, frame_id)

    def _note(self, condition: Condition) -> None:
        self._node.statistics.count(condition.name)
        self._health_of_inputs.saw(STATES.get(condition), time.monotonic())

    def _note_refused(self, refused: RefusedClosure) -> None:
        self._node.statistics.count("refused_closures")
        self._last_refusal = refused.reason
        self._node.get_logger().info(f"closure refused: {refused.reason}")

    def _publish_keyframe(self, result: LoopResult, keyframe: Keyframe, frame_id: str, received_s: float) -> None:
        now_s = time.monotonic()
        message = keyframe_message(keyframe, frame_id, insert_ms=result.insert_ms, total_ms=(now_s - received_s) * 1e3)
        self.outputs.publish_keyframe(message)
        self._node.statistics.count("keyframes")
        if result.recognition is not None:
            self._node.statistics.add_result(result.recognition.status.name, result.recognition.latency_ms, now_s)

    def _publish_closure(self, closure: LoopClosure, camera: CameraModel | None, frame_id: str) -> None:
        if self._body_from_camera is not None:
            if camera is None:
                self._health_of_inputs.saw(CAMERA_UNKNOWN, time.monotonic())
            self._node.get_logger().debug(f"closure {closure.query.keyframe_id}: {closure.pose.reason}")
            self._node.statistics.count(f"poses_by_{closure.pose.measured_by.name.lower()}")
        offset = closure.bearing_offset
        turned_rad = None if camera is None or offset is None else bearing_rad(offset, camera)
        self.outputs.publish_closure(closure_message(closure, frame_id, self._recognizer, bearing_rad=turned_rad))
        self._node.statistics.count("closures")

    # Reports

    def _announce(self) -> None:
        engine, place_map = self.engine, self.engine.place_map
        self._node.get_logger().info(
            f"session {engine.detector.session} in {place_map.path}, which holds {len(place_map)} keyframes of "
            f"{len(place_map.sessions)} sessions; model {place_map.fingerprint.architecture}, device {engine.device}"
        )
        if engine.is_temporary:
            self._node.get_logger().warning(
                f"session_path is empty: {place_map.path} is deleted at the end; keep the map by ~/save_map"
            )

    def _own_health(self, now_s: float) -> Health:
        self.outputs.publish_markers()
        engine = self.engine
        progress = engine.detector.progress
        values = {
            **engine.engine_state,
            **gpu_values(engine.place_map),
            "map": str(engine.place_map.path),
            "session": engine.detector.session,
            "keyframes_in_map": str(len(engine.place_map)),
            "distance_m": f"{progress.distance_m:.1f}",
            "track": str(progress.track),
            "odometry_frame": self.odometry.frame_id,
            "last_refusal": self._last_refusal,
        }
        state = self._health_of_inputs.worst(now_s) if self.is_active else None
        if state is not None:
            return Health(state.level, state.text, engine.device, values)
        text = "looking for loops" if self.is_active else "inactive"
        return Health(DiagnosticStatus.OK, text, engine.device, values)
