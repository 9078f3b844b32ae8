"""The executor of this package's nodes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from rclpy.context import Context
from rclpy.executors import Executor, ShutdownException, TimeoutException
from rclpy.service import Service
from rclpy.task import Future


class NodeExecutor(Executor):
    """Runs callbacks in the thread that spins, and those of services, which may wait for the worker, in others.

    rclpy's MultiThreadedExecutor hands each message to another thread. Until that has taken it, waiting returns at
    once again and again, since the events of the subscription are woken by it too, and beside such a loop a thread of
    Python seldom gets its turn: an image that came while another was published waited for up to two seconds.
    """

    def __init__(self, num_threads: int, *, context: Context | None = None) -> None:
        """Start without a node.

        Args:
            num_threads: services that run at a time.
            context: of ROS; the default one if None.
        """
        super().__init__(context=context)
        self._services = ThreadPoolExecutor(num_threads, "service")
        self._running: list[Future] = []

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run the next callback, or hand it over; raises what a callback raised.

        Args:
            timeout_sec: longest wait; None for ever.
        """
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException):
            return
        if isinstance(entity, Service):
            self._services.submit(handler)
            self._running.append(handler)
        else:
            handler()
            handler.result()
        for future in [future for future in self._running if future.done()]:
            self._running.remove(future)
            future.result()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop; whether all callbacks ended within the timeout."""
        ended: bool = super().shutdown(timeout_sec)
        self._services.shutdown()
        return ended
