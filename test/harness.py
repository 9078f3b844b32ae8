"""A node in this process and a client that speaks to it over DDS."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from effovpr_ros.nodes.executor import NodeExecutor
from effovpr_ros.nodes.outputs import RESULT_QOS

TIMEOUT_S = 60.0
"""For what takes a second or less where nothing else runs."""


class Harness:
    """The node under test and a client, each spinning in a thread; the client alone for a node elsewhere."""

    def __init__(self, kind: type[Node] | None, parameters: dict[str, Any], name: str = "") -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        # By PyTorch unless a test says otherwise, so that no other engine is sought beside it.
        overrides = [Parameter(key, value=value) for key, value in {"engine": "torch", **parameters}.items()]
        self.node: Any = kind(context=self.context, parameter_overrides=overrides) if kind else None
        self.name = self.node.get_fully_qualified_name() if self.node else name
        self.client = Node("client", context=self.context)
        self.received: dict[str, list[Any]] = {}
        self._threads = []
        self._executors = [
            NodeExecutor(context=self.context),
            SingleThreadedExecutor(context=self.context),
        ]
        for node, executor in zip((self.node, self.client), self._executors, strict=True):
            if node is not None:
                executor.add_node(node)
            thread = threading.Thread(target=executor.spin, daemon=True)
            thread.start()
            self._threads.append(thread)
        self.images = self.client.create_publisher(Image, "/image", qos_profile_sensor_data)

    def close(self) -> None:
        for executor in self._executors:
            executor.shutdown()
        for thread in self._threads:
            thread.join(5.0)
        if self.node is not None:
            self.node.destroy_node()
        self.client.destroy_node()
        rclpy.shutdown(context=self.context)
        # The lifecycle services are withdrawn when the node is collected.
        del self.node, self.client, self._executors
        gc.collect()

    def listen(self, kind: type, topic: str, qos: Any = RESULT_QOS) -> list[Any]:
        received: list[Any] = []
        self.client.create_subscription(kind, topic, received.append, qos)
        return received

    def call(self, kind: type, name: str, request: Any) -> Any:
        client = self.client.create_client(kind, name)
        assert client.wait_for_service(TIMEOUT_S), name
        future = client.call_async(request)
        self.wait(future.done, f"answer of {name}")
        return future.result()

    def await_node(self) -> None:
        """Wait for a node in a process of its own, which first loads torch."""
        client = self.client.create_client(GetState, f"{self.name}/get_state")
        assert client.wait_for_service(2.0 * TIMEOUT_S), f"{self.name} did not appear"
        assert self.state() == State.PRIMARY_STATE_UNCONFIGURED

    def change(self, transition: int) -> bool:
        return self.call(
            ChangeState, f"{self.name}/change_state", ChangeState.Request(transition=Transition(id=transition))
        ).success

    def state(self) -> int:
        return self.call(GetState, f"{self.name}/get_state", GetState.Request()).current_state.id

    def start(self) -> None:
        assert self.change(Transition.TRANSITION_CONFIGURE)
        assert self.change(Transition.TRANSITION_ACTIVATE)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.01)

    def publish_until(self, message: Any, condition: Callable[[], Any], what: str, publisher: Any = None) -> None:
        """Best effort may lose a message, so it is sent again until it shows an effect."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            (publisher or self.images).publish(message)
            time.sleep(0.1)


def image_message(pixels: np.ndarray, sec: int = 50) -> Image:
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=pixels.tobytes())
    message.header.stamp.sec = sec
    message.header.frame_id = "camera"
    return message
