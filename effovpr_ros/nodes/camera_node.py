"""What the nodes that look through a camera share: lifecycle, services, parameters, diagnostics."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from effovpr_ros.core.errors import ConfigError, NodeError
from effovpr_ros.nodes import parameters
from effovpr_ros.nodes.configured import Closable, Configured, Health
from effovpr_ros.nodes.diagnostics import Statistics, diagnostic_array
from effovpr_ros.nodes.executor import NodeExecutor, settled
from effovpr_ros.nodes.guarded_node import GuardedNode, describe
from effovpr_ros.nodes.outputs import RESULT_QOS
from effovpr_ros.nodes.parameters import CameraNodeConfig
from effovpr_ros.nodes.program import run_node
from effovpr_ros.nodes.worker import LatestWorker

_DIAGNOSTICS_PERIOD_S = 1.0
_ERROR_IS_RECENT_S = 5.0
# An image takes a second or so, and a launch process waits for five seconds until it is less polite.
_END_TIMEOUT_S = 4.0
_TRANSITIONS = {
    Transition.TRANSITION_CONFIGURE: "configure",
    Transition.TRANSITION_CLEANUP: "cleanup",
    Transition.TRANSITION_ACTIVATE: "activate",
    Transition.TRANSITION_DEACTIVATE: "deactivate",
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: "shutdown",
    Transition.TRANSITION_INACTIVE_SHUTDOWN: "shutdown",
    Transition.TRANSITION_ACTIVE_SHUTDOWN: "shutdown",
}


Settings = TypeVar("Settings")
Engine = TypeVar("Engine", bound=Closable)
State = TypeVar("State", bound=Configured[Any])


class _Loading(Generic[Settings, Engine]):
    """A configuration under way.

    Attributes:
        settings: that it is made for.
        worker: that loads.
        loaded: done when there is something to take or the error to raise; cancelled when it was abandoned.
        started_s: when it began.
    """

    def __init__(self, settings: Settings, load: Callable[[Settings], Engine], worker: LatestWorker) -> None:
        """Begin, in the worker's thread."""
        self.settings = settings
        self.worker = worker
        self.loaded: Future[Engine] = Future()
        self.started_s = time.monotonic()
        self._load = load
        self._is_abandoned = False
        worker.submit(self._run)

    def take(self) -> Engine:
        """Wait for what is loaded.

        Raises:
            CancelledError: it was abandoned.
            Exception: whatever loading raised.
        """
        engine = self.loaded.result()
        if self._is_abandoned:
            raise CancelledError
        return engine

    def abandon(self) -> None:
        """Wait for it no longer. What is being loaded cannot be interrupted; it is closed as soon as it is there."""
        self._is_abandoned = True
        self.loaded.cancel()
        self.worker.finish(self._close)

    def _run(self) -> None:
        try:
            engine = self._load(self.settings)
        except BaseException as error:  # handed to whoever takes it
            if self.loaded.set_running_or_notify_cancel():
                self.loaded.set_exception(error)
            return
        if self.loaded.set_running_or_notify_cancel():
            self.loaded.set_result(engine)
        else:
            engine.close()

    def _close(self) -> None:
        if not self.loaded.cancelled() and self.loaded.exception() is None:
            self.loaded.result().close()


class CameraNode(GuardedNode, ABC, Generic[Settings, Engine, State]):
    """One thread, that which spins, owns the lifecycle state; what takes long runs in a worker and is awaited.

    Services and `/diagnostics` are there for as long as the node is, whatever its state.
    """

    def __init__(self, name: str, *defaults: Any, live: Sequence[type] = (), **options: Any) -> None:
        """Declare the parameters; everything that needs a model or a map waits for `configure`.

        Args:
            name: of the node.
            defaults: instances of configuration dataclasses, whose fields become parameters.
            live: those of them whose parameters count while the node runs; the others when it is configured.
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        super().__init__(name, **options)
        self._configured: State | None = None
        self._loading: _Loading[Settings, Engine] | None = None
        self._worker: LatestWorker | None = None
        self._resources = ExitStack()
        self._transition: Future[None] | None = None
        self._failure = ""
        self._live = tuple(live)
        self._fixed = parameters.names_of(CameraNodeConfig, *defaults) - parameters.names_of(*live)
        self._sets_itself = ""
        parameters.declare(self, CameraNodeConfig(), *defaults)
        self._fixed |= self._declare_others()
        parameters.warn_of_unknown(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._change_now = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RESULT_QOS)
        self.after(_DIAGNOSTICS_PERIOD_S, self._on_diagnostics)

    # What a node gives

    def _declare_others(self) -> set[str]:
        """Declare parameters whose names follow from others; gives their names."""
        return set()

    @abstractmethod
    def _read_settings(self, changed: Sequence[Parameter[Any]] = ()) -> Settings:
        """All parameters, with those that are about to change; raises ConfigError for impossible ones."""

    @abstractmethod
    def _load(self, settings: Settings) -> Engine:
        """Load what the node works with, in the worker's thread; raises EffoVPRError where that fails."""

    @abstractmethod
    def _make_configured(self, settings: Settings, engine: Engine, worker: LatestWorker, resources: ExitStack) -> State:
        """Advertise and subscribe."""

    @abstractmethod
    def _take_over(self, state: State, settings: Settings) -> None:
        """Use live parameters from the next image on."""

    # Lifecycle

    @property
    def configured(self) -> State:
        """What the node works with.

        Raises:
            NodeError: it is not configured.
        """
        if self._configured is None:
            raise NodeError("the node is not configured; configure and activate it first")
        return self._configured

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """A transition; what takes long of it is awaited before, so that everything else goes on meanwhile."""
        wanted = request.transition.label or _TRANSITIONS.get(request.transition.id, "")
        while self._transition is not None:
            if self._loading is None or wanted not in ("cleanup", "shutdown"):
                self.get_logger().error(f"{wanted} is refused: another transition is under way")
                return response
            self.get_logger().info(f"{wanted} cancels the configuration")
            self._loading.abandon()
            await settled(self._transition, self)
            if wanted == "cleanup":
                response.success = True
                return response
        available = {label for _, label, *_ in self._state_machine.available_transitions}
        self._transition = Future()
        try:
            if wanted in available and wanted == "configure":
                await self._await_loading()
            elif wanted in available and wanted in ("cleanup", "shutdown"):
                await self._await_end(wanted)
            return self._change_now(request, response)
        finally:
            transition, self._transition = self._transition, None
            transition.set_result(None)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and advertise; a failure leaves the node unconfigured and alive."""
        loading, self._loading = self._loading, None
        self._failure = ""
        try:
            loading = loading or self._begin_loading()
            self._adopt(loading)
        except CancelledError:
            self.get_logger().info("the configuration was cancelled")
        except Exception as error:  # torch, drivers and engines raise what they like
            self._failure = f"configure failed: {describe(error)}"
            self.get_logger().error(self._failure)
            if loading is not None:
                loading.abandon()
        else:
            return TransitionCallbackReturn.SUCCESS
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start answering."""
        result = super().on_activate(state)
        self.configured.activate()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop answering; what was loaded stays."""
        self.configured.deactivate("the node was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self._release("the node was cleaned up", None)
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self._release("the node was shut down", None)
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after an unexpected error in a transition."""
        self._release("the node had an error", None)
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop working, as far as that does not take long, then withdraw everything."""
        if self._loading is not None:
            self._loading.abandon()
        self._release("the node ends", _END_TIMEOUT_S)
        super().destroy_node()

    async def _await_loading(self) -> None:
        try:
            self._loading = loading = self._begin_loading()
        except Exception:  # on_configure meets it again, and says so
            return
        await settled(loading.loaded, self)

    async def _await_end(self, wanted: str) -> None:
        state, worker = self._configured, self._worker
        if state is not None and worker is not None:
            state.deactivate(f"the node is in {wanted}")
            await settled(worker.finish(state.close), self)

    def _begin_loading(self) -> _Loading[Settings, Engine]:
        settings = self._read_settings()
        self.statistics = Statistics()
        return _Loading(settings, self._load, LatestWorker(self._on_worker_error))

    def _adopt(self, loading: _Loading[Settings, Engine]) -> None:
        """Make what was loaded the node's state; nothing is left advertised where that fails."""
        engine, resources = loading.take(), ExitStack()
        try:
            state = self._make_configured(loading.settings, engine, loading.worker, resources)
        except BaseException:
            resources.close()
            raise
        self._configured, self._worker, self._resources = state, loading.worker, resources

    def _release(self, reason: str, timeout_s: float | None) -> None:
        """Close and withdraw everything; waits for the worker, for ever if there is no timeout."""
        state, worker = self._configured, self._worker
        self._configured = self._worker = None
        if state is None or worker is None:
            return
        state.deactivate(reason)
        # Done already where the transition was awaited.
        worker.finish(state.close)
        if not worker.join(timeout_s):
            self.get_logger().warning(
                f"the work under way takes longer than {timeout_s} s; the node does not wait for it"
            )
        self._resources.close()

    # Callbacks

    def _on_parameters(self, changed: list[Parameter[Any]]) -> SetParametersResult:
        """Refuse impossible values at once, those too that count when the node is configured next."""
        if self.map_parameters.is_showing:
            return SetParametersResult(successful=True)
        try:
            settings = self._read_settings(changed)
            self._refuse_fixed(changed)
            if self._configured is not None and parameters.touches(changed, *self._live):
                self._take_over(self._configured, settings)
        except Exception as error:  # a parameter must not end the node
            return SetParametersResult(successful=False, reason=describe(error))
        self.map_parameters.remember(changed)
        return SetParametersResult(successful=True)

    def _refuse_fixed(self, changed: list[Parameter[Any]]) -> None:
        """Refuse what would count only when the node is configured next, while it is configured."""
        if self._configured is None and self._loading is None:
            return
        for parameter in changed:
            is_fixed = parameter.name in self._fixed and parameter.name != self._sets_itself
            if is_fixed and not parameters.unchanged(self, parameter):
                raise ConfigError(
                    f"{parameter.name} counts when the node is configured; clean it up, set it, and configure it again"
                )

    def set_own(self, name: str, value: str) -> None:
        """Let a fixed parameter say what a service has changed."""
        self._sets_itself = name
        try:
            self.set_parameters([Parameter(name, value=value)])
        finally:
            self._sets_itself = ""

    def _on_worker_error(self, error: Exception) -> None:
        # An interrupt shuts ROS down while an image is on its way: what it would have published has no way out.
        if self.context.ok():
            self.report(describe(error))

    # Reports

    def _on_diagnostics(self) -> None:
        now_s = time.monotonic()
        health = self._health(now_s)
        level, text = health.level, health.text
        if self.statistics.last_error and now_s - self.statistics.last_error_s < _ERROR_IS_RECENT_S:
            level, text = DiagnosticStatus.ERROR, self.statistics.last_error
        values = {**self.statistics.values(now_s), "device": health.hardware_id, **health.values}
        message = diagnostic_array(self.get_fully_qualified_name(), health.hardware_id, level, text, values)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _health(self, now_s: float) -> Health:
        state, loading = self._configured, self._loading
        if state is not None:
            return state.health(now_s)
        if loading is not None:
            return Health(DiagnosticStatus.OK, f"loading for {now_s - loading.started_s:.0f} s", "", {})
        if self._failure:
            return Health(DiagnosticStatus.ERROR, self._failure, "", {})
        return Health(DiagnosticStatus.OK, "unconfigured", "", {})


def run_camera_node(make_node: Callable[[], CameraNode[Any, Any, Any]], name: str) -> None:
    """Run a node until it is interrupted."""

    def spin(node: CameraNode[Any, Any, Any]) -> None:
        executor = NodeExecutor()
        executor.add_node(node)
        node.get_logger().info("unconfigured: waits for its launch file, `ros2 lifecycle set`, or a lifecycle manager")
        executor.spin()

    run_node(name, make_node, spin)
