"""Where the nodes' executor runs callbacks: messages where it spins, services beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

rclpy = pytest.importorskip("rclpy")
from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from effovpr_ros.nodes.executor import NodeExecutor  # noqa: E402


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    rclpy.init(context=made)
    yield made
    rclpy.try_shutdown(context=made)


def test_messages_arrive_where_it_spins_while_a_service_waits(context: Context):
    node, client = Node("served", context=context), Node("asking", context=context)
    executor, other = NodeExecutor(2, context=context), SingleThreadedExecutor(context=context)
    executor.add_node(node)
    other.add_node(client)
    arrived, threads = threading.Event(), {}

    def on_message(message: String) -> None:
        threads["message"] = threading.get_ident()
        arrived.set()

    def on_call(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        threads["service"] = threading.get_ident()
        # Were both in one thread, the message would never come.
        response.success = arrived.wait(30.0)
        return response

    node.create_subscription(String, "words", on_message, 10)
    node.create_service(Trigger, "await_word", on_call, callback_group=ReentrantCallbackGroup())
    publisher, asked = client.create_publisher(String, "words", 10), client.create_client(Trigger, "await_word")
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    try:
        assert asked.wait_for_service(30.0)
        answer = asked.call_async(Trigger.Request())
        for _ in range(600):
            if "service" in threads:
                publisher.publish(String(data="now"))
            other.spin_once(timeout_sec=0.05)
            if answer.done():
                break
        assert answer.done()
        assert answer.result().success
        assert threads["message"] == spinning.ident != threads["service"]
    finally:
        executor.shutdown()
        spinning.join(10.0)
        assert not spinning.is_alive()
        node.destroy_node()
        client.destroy_node()


def test_what_a_callback_raises_is_raised_by_spinning(context: Context):
    node = Node("failing", context=context)
    executor = NodeExecutor(1, context=context)
    executor.add_node(node)

    def fail() -> None:
        raise ValueError("broken")

    node.create_timer(0.01, fail)
    with pytest.raises(ValueError, match="broken"):
        executor.spin()
    executor.shutdown()
    node.destroy_node()


def test_a_wait_ends_with_its_timeout(context: Context):
    executor = NodeExecutor(1, context=context)
    executor.spin_once(timeout_sec=0.01)
    assert executor.shutdown()
    executor.spin_once(timeout_sec=0.01)
