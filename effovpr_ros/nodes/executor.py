"""The executor of this package's nodes, and how its callbacks wait."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ShutdownException, TimeoutException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.task import Future as RosFuture

from effovpr_ros.core.errors import NodeError


class NodeExecutor(Executor):
    """Runs every callback in the thread that spins; what one raises is logged, and the node lives on.

    So one thread owns all state of a node. What takes long runs elsewhere, and a callback awaits it by `settled`.
    rclpy's MultiThreadedExecutor hands each message to another thread. Until that has taken it, waiting returns at
    once again and again, since the events of the subscription are woken by it too, and beside such a loop a thread of
    Python seldom gets its turn: an image that came while another was published waited for up to two seconds.
    """

    def __init__(self, *, context: Context | None = None) -> None:
        """Start without a node.

        Args:
            context: of ROS; the default one if None.
        """
        super().__init__(context=context)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run the next callback until it is done or awaits something.

        Args:
            timeout_sec: longest wait; None for ever.
        """
        try:
            handler, entity, node = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException):
            return
        except InvalidHandle:
            # Something was withdrawn while this looked at it. The next look does not find it any more.
            self._cb_iter = None
            return
        handler()
        error = handler.exception() if handler.done() else None
        # Once ROS is shut down nothing can be sent any more, which is no fault.
        if error is not None and self.context.ok():
            logger = node.get_logger() if node is not None else get_logger("executor")
            name = getattr(entity, "srv_name", getattr(entity, "topic_name", type(entity).__name__))
            logger.error(f"{name}: unexpected {type(error).__name__}: {error}", throttle_duration_sec=1.0)


async def settled(future: Future[Any], node: Node) -> None:
    """Wait in a callback of a node until a future of another thread is done or cancelled; holds no thread.

    Args:
        future: whose result is asked for afterwards.
        node: that spins in an executor.

    Raises:
        NodeError: the node is in no executor.
    """
    executor = node.executor
    if executor is None:
        raise NodeError(f"{node.get_name()} is in no executor; add it to one")
    done: RosFuture[None] = RosFuture(executor=executor)

    def wake(_: Future[Any]) -> None:
        done.set_result(None)
        # An executor that was shut down needs no waking.
        with suppress(InvalidHandle):
            executor.wake()

    future.add_done_callback(wake)
    await done
