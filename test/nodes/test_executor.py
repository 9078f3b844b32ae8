"""The nodes' executor: everything in one thread, which nothing holds up and nothing ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

rclpy = pytest.importorskip("rclpy")
from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.impl.rcutils_logger import RcutilsLogger  # noqa: E402
from rclpy.node import Node  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from effovpr_ros.core.errors import NodeError  # noqa: E402
from effovpr_ros.nodes.executor import NodeExecutor, settled  # noqa: E402


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    rclpy.init(context=made)
    yield made
    rclpy.try_shutdown(context=made)


def test_messages_arrive_while_services_wait_and_all_in_the_thread_that_spins(context: Context):
    node, client = Node("served", context=context), Node("asking", context=context)
    executor, other = NodeExecutor(context=context), SingleThreadedExecutor(context=context)
    executor.add_node(node)
    other.add_node(client)
    arrived: Future[str] = Future()
    threads: dict[str, int] = {}
    waiting: list[int] = []

    def on_message(message: String) -> None:
        threads["message"] = threading.get_ident()
        if not arrived.done():
            # As a worker does.
            threading.Thread(target=arrived.set_result, args=[message.data]).start()

    async def on_call(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        waiting.append(1)
        await settled(arrived, node)
        threads["service"] = threading.get_ident()
        response.success, response.message = True, arrived.result()
        return response

    node.create_subscription(String, "words", on_message, 10)
    node.create_service(Trigger, "await_word", on_call, callback_group=ReentrantCallbackGroup())
    publisher, asked = client.create_publisher(String, "words", 10), client.create_client(Trigger, "await_word")
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    try:
        assert asked.wait_for_service(30.0)
        answers = [asked.call_async(Trigger.Request()) for _ in range(8)]
        for _ in range(600):
            if len(waiting) == 8:
                publisher.publish(String(data="now"))
            other.spin_once(timeout_sec=0.05)
            if all(answer.done() for answer in answers):
                break
        assert [answer.result().message for answer in answers] == ["now"] * 8
        assert threads["message"] == spinning.ident == threads["service"]
    finally:
        executor.shutdown()
        spinning.join(10.0)
        assert not spinning.is_alive()
        node.destroy_node()
        client.destroy_node()


def test_what_a_callback_raises_is_logged_and_the_others_go_on(context: Context, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(RcutilsLogger, "error", lambda self, text, **options: said.append(text))
    node = Node("failing", context=context)
    executor = NodeExecutor(context=context)
    executor.add_node(node)
    beats: list[int] = []

    def fail() -> None:
        raise ValueError("broken")

    node.create_timer(0.01, fail)
    node.create_timer(0.01, lambda: beats.append(1))
    for _ in range(600):
        executor.spin_once(timeout_sec=0.05)
        if said and len(beats) > 3:
            break
    assert said[0] == "Timer: unexpected ValueError: broken"
    assert len(beats) > 3
    executor.shutdown()
    node.destroy_node()


def test_a_callback_of_a_node_that_does_not_spin_cannot_wait(context: Context):
    node = Node("alone", context=context)
    with pytest.raises(NodeError, match="alone is in no executor"):
        settled(Future(), node).send(None)
    node.destroy_node()


def test_a_wait_ends_with_its_timeout(context: Context):
    executor = NodeExecutor(context=context)
    executor.spin_once(timeout_sec=0.01)
    assert executor.shutdown()
    executor.spin_once(timeout_sec=0.01)
