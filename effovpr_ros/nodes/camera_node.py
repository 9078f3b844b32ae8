"""What the nodes that look through a camera share: lifecycle, image input, worker, diagnostics."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.nodes import parameters
from effovpr_ros.nodes.diagnostics import Statistics, diagnostic_array
from effovpr_ros.nodes.executor import NodeExecutor
from effovpr_ros.nodes.outputs import RELIABLE_SENSOR_QOS, RESULT_QOS, SENSOR_QOS
from effovpr_ros.nodes.parameters import CameraNodeConfig
from effovpr_ros.nodes.program import run_node
from effovpr_ros.nodes.worker import LatestWorker

_DIAGNOSTICS_PERIOD_S = 1.0
_ERROR_IS_RECENT_S = 5.0
_LOG_PERIOD_S = 5.0

ImageMessage = Image | CompressedImage
Item = TypeVar("Item")


@dataclass(frozen=True)
class Health:
    """How a node is.

    Attributes:
        level: of diagnostic_msgs/DiagnosticStatus.
        text: one line.
        hardware_id: the device that computes.
        values: figures by name.
    """

    level: bytes
    text: str
    hardware_id: str
    values: dict[str, str]


class CameraNode(LifecycleNode, Generic[Item]):
    """Callbacks store the newest image; a worker turns it into results.

    A node gives `_open`, `_close`, `_create_interfaces`, `_check_parameters`, `_make_item`, `_process` and `_health`.
    """

    # A node whose parameters are refused is destroyed before its constructor comes to an end.
    _worker: LatestWorker[Item] | None = None
    _is_active = False

    def __init__(self, name: str, *defaults: Any, **options: object) -> None:
        """Declare the parameters; everything else waits for `configure`.

        Args:
            name: of the node.
            defaults: instances of configuration dataclasses, whose fields become parameters.
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        super().__init__(name, **options)
        self._resources = ExitStack()
        parameters.declare(self, CameraNodeConfig(), *defaults)
        self.add_on_set_parameters_callback(self._on_parameters)

    # What a node gives

    def _open(self, worker: LatestWorker[Item]) -> None:
        """Read the parameters and load what the node works with; raises EffoVPRError where that fails."""
        raise NotImplementedError

    def _close(self) -> None:
        """Release what `_open` loaded, all or some of it."""
        raise NotImplementedError

    def _create_interfaces(self) -> None:
        """Advertise and subscribe, by the methods below or with the undoing registered in `_resources`."""
        raise NotImplementedError

    def _check_parameters(self, changed: list[Parameter]) -> None:
        """Take over parameters that are about to change; raises EffoVPRError for impossible ones."""
        raise NotImplementedError

    def _make_item(self, message: ImageMessage, received_s: float) -> Item:
        """What goes to the worker for an image."""
        raise NotImplementedError

    def _process(self, item: Item) -> None:
        """Work on an item, in the worker's thread."""
        raise NotImplementedError

    def _health(self, now_s: float) -> Health:
        """What `/diagnostics` says where no error is recent."""
        raise NotImplementedError

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and advertise; a failure leaves the node unconfigured and alive."""
        worker: LatestWorker[Item] = LatestWorker(self._process, self._on_worker_error)
        self._statistics = Statistics()
        self._last_offer_s = 0.0
        self._sensor_group = MutuallyExclusiveCallbackGroup()
        # A service may wait for the worker, so it must not hold up anything else.
        self._service_group = ReentrantCallbackGroup()
        try:
            self._camera_config = parameters.read(self, CameraNodeConfig)
            self._open(worker)
            self._create_interfaces()
        except EffoVPRError as error:
            self.get_logger().error(f"configure failed: {error}")
            worker.stop()
            self._resources.close()
            self._close()
            return TransitionCallbackReturn.FAILURE
        self._worker = worker
        self._create_shared_interfaces()
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start answering."""
        result = super().on_activate(state)
        self._is_active = True
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop answering; what was loaded stays."""
        self._is_active = False
        if self._worker:
            self._worker.clear()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
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

    def destroy_node(self) -> None:
        """Stop working, then withdraw everything."""
        if self._worker is not None:
            # A thread that is still inside torch when the interpreter ends would abort the process.
            self._worker.stop()
            self._close()
        super().destroy_node()

    def _create_shared_interfaces(self) -> None:
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RESULT_QOS)
        self._resources.callback(self.destroy_publisher, self._diagnostics)
        qos = self._image_qos()
        if self._camera_config.image_transport == "compressed":
            self._subscribe(CompressedImage, "image/compressed", self._on_image, qos)
        else:
            self._subscribe(Image, "image", self._on_image, qos)
        timer = self.create_timer(_DIAGNOSTICS_PERIOD_S, self._on_diagnostics, callback_group=self._sensor_group)
        self._resources.callback(self.destroy_timer, timer)

    def _image_qos(self) -> QoSProfile:
        return RELIABLE_SENSOR_QOS if self._camera_config.image_reliability == "reliable" else SENSOR_QOS

    def _subscribe(self, kind: type, topic: str, callback: Any, qos: QoSProfile) -> None:
        subscription = self.create_subscription(kind, topic, callback, qos, callback_group=self._sensor_group)
        self._resources.callback(self.destroy_subscription, subscription)

    def _serve(self, kind: type, name: str, callback: Any) -> None:
        service = self.create_service(kind, name, callback, callback_group=self._service_group)
        self._resources.callback(self.destroy_service, service)

    def _release(self) -> None:
        self._is_active = False
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        self._resources.close()
        self._close()

    # Callbacks

    def _on_image(self, message: ImageMessage) -> None:
        now_s = time.monotonic()
        max_rate_hz = self._camera_config.max_rate_hz
        period_s = 1.0 / max_rate_hz if max_rate_hz else 0.0
        if self._is_active and now_s - self._last_offer_s >= period_s:
            self._last_offer_s = now_s
            self._worker.offer(self._make_item(message, now_s))

    def _on_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        """Refuse impossible values at once, those too that count when the node is configured next."""
        try:
            parameters.read(self, CameraNodeConfig, changed)
            self._check_parameters(changed)
        except EffoVPRError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_worker_error(self, error: Exception) -> None:
        # An interrupt shuts ROS down while an image is on its way: what it would have published has no way out.
        if self.context.ok():
            self._report(f"unexpected {type(error).__name__}: {error}")

    def _report(self, text: str) -> None:
        self._statistics.add_error(text, time.monotonic())
        self.get_logger().error(text, throttle_duration_sec=_LOG_PERIOD_S)

    def _on_diagnostics(self) -> None:
        now_s = time.monotonic()
        health = self._health(now_s)
        level, text = health.level, health.text
        if self._statistics.last_error and now_s - self._statistics.last_error_s < _ERROR_IS_RECENT_S:
            level, text = DiagnosticStatus.ERROR, self._statistics.last_error
        values = {
            **self._statistics.values(now_s),
            "dropped_frames": str(self._worker.dropped),
            "device": health.hardware_id,
            **health.values,
        }
        message = diagnostic_array(self.get_fully_qualified_name(), health.hardware_id, level, text, values)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def run_camera_node(kind: type[CameraNode[Any]], name: str) -> None:
    """Run a node until it is interrupted."""

    def spin(node: CameraNode[Any]) -> None:
        executor = NodeExecutor(num_threads=3)
        executor.add_node(node)
        executor.spin()

    run_node(name, kind, spin)
