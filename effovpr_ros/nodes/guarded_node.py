"""A lifecycle node that no callback can end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rclpy.callback_groups import CallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.nodes.diagnostics import Statistics
from effovpr_ros.nodes.map_parameters import MapParameters

_LOG_PERIOD_S = 5.0

Request = TypeVar("Request")
Response = TypeVar("Response")


class GuardedNode(LifecycleNode):
    """Whatever a callback of a message, service or timer raises is reported, and the node lives on.

    Attributes:
        statistics: counts and errors since the node was configured.
        map_parameters: those that a map carries too.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Make the node.

        Args:
            name: of the node.
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        # One thread runs everything; what awaits something must not hold up the others of its group.
        self._reentrant = ReentrantCallbackGroup()
        super().__init__(name, **options)
        self.statistics = Statistics()
        self.map_parameters = MapParameters(self)
        # Time that a person or robot waits for does not stand still with /clock.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)

    @property
    def default_callback_group(self) -> CallbackGroup:
        """The group of all callbacks, those of the lifecycle and the parameters too."""
        return self._reentrant

    def report(self, text: str) -> None:
        """Log an error and tell it in `/diagnostics`."""
        self.statistics.add_error(one_line(text), time.monotonic())
        self.get_logger().error(one_line(text), throttle_duration_sec=_LOG_PERIOD_S)

    def serve(self, kind: Any, name: str, answer: Callable[[Request, Response], Awaitable[Response]]) -> None:
        """Offer a service, whose answer has `success` and `message`, for as long as the node lives.

        Args:
            kind: of service.
            name: of it.
            answer: fills and returns the answer; what it raises is the answer's message, with `success` false.
        """

        async def guarded(request: Any, response: Any) -> Any:
            try:
                return await answer(request, response)
            except Exception as error:  # a request must not end the node, whatever is wrong with it
                text = describe(error)
            self.get_logger().error(f"{name}: {text}")
            return kind.Response(success=False, message=text)

        self.create_service(kind, name, guarded)

    def subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> Subscription[Any]:
        """Hear a topic; what the callback raises is reported."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except Exception as error:  # a message must not end the node, whatever is wrong with it
                self.report(f"{topic}: {describe(error)}")

        return self.create_subscription(kind, topic, guarded, qos)

    def after(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """Call a function every so often, by a clock that always runs; what it raises is reported."""

        def guarded() -> None:
            try:
                callback()
            except Exception as error:  # a timer must not end the node
                self.report(describe(error))

        return self.create_timer(period_s, guarded, clock=self._steady_clock)


def describe(error: BaseException) -> str:
    """An error on one line, for people; one that is not the package's own under its type."""
    if isinstance(error, EffoVPRError):
        return one_line(str(error))
    return one_line(f"unexpected {type(error).__name__}: {error}")


def one_line(text: str) -> str:
    """Text that any message may hold: on one line, and UTF-8."""
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
