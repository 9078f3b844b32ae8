"""Who else places the odometry's frame: two parents of one frame tear a tree of transforms apart."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from functools import partial
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.client import Client

from effovpr_ros.nodes.guarded_node import GuardedNode

_TF = "/tf"
_ASK_EVERY_S = 2.0
_LISTEN_S = 2.0
_OWN = 200


class OtherBroadcasters:
    """Listens on /tf before anything is sent, and asks AMCL whether it means to (its parameter `tf_broadcast`).

    Attributes:
        refusal: why nothing may be broadcast, for people; empty while nothing speaks against it.
    """

    def __init__(self, node: GuardedNode, odom_frame: str, resources: ExitStack) -> None:
        """Begin to listen.

        Args:
            node: that wants to broadcast.
            odom_frame: the child of what it wants to broadcast.
            resources: takes the undoing.
        """
        self._node = node
        self._odom = odom_frame
        self._own: deque[int] = deque(maxlen=_OWN)
        self._clients: dict[str, Client[Any, Any]] = {}
        self._answered: set[str] = set()
        self._begun_s = time.monotonic()
        self.refusal = ""
        resources.callback(self._destroy)
        timer = node.after(_ASK_EVERY_S, self._ask)
        resources.callback(node.destroy_timer, timer)

    def restart(self) -> None:
        """Listen anew: what spoke against it may have been stopped."""
        self._begun_s, self.refusal = time.monotonic(), ""
        self._answered.clear()
        self._ask()

    @property
    def has_listened(self) -> bool:
        """Whether another one would have been heard by now."""
        return time.monotonic() - self._begun_s >= _LISTEN_S

    def sent(self, stamp_ns: int) -> None:
        """Know an own transform when it is heard."""
        self._own.append(stamp_ns)

    def heard(self, parent: str, child: str, stamp_ns: int) -> None:
        """A transform that places the odometry's frame; one of another node stops this one."""
        if stamp_ns in self._own or self.refusal:
            return
        others = ", ".join(sorted(self._publishers())) or "a node that has gone since"
        self._refuse(
            f"{parent} -> {child} is broadcast already, by one of the nodes that publish {_TF}: {others}; stop it "
            "(AMCL: tf_broadcast false), or set publish_tf to false, and activate this node again"
        )

    def _refuse(self, text: str) -> None:
        self.refusal = f"map -> odom is not published: {text}"
        self._node.get_logger().error(self.refusal)

    def _publishers(self) -> set[str]:
        own = self._node.get_fully_qualified_name()
        names = {
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self._node.get_publishers_info_by_topic(_TF)
        }
        return names - {own}

    def _ask(self) -> None:
        """Ask those that publish on /tf whether they are AMCL and broadcast; it waits for a first pose to do so."""
        for name in self._publishers() - self._answered:
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = self._node.create_client(GetParameters, f"{name}/get_parameters")
            if client.service_is_ready():
                self._answered.add(name)
                future = client.call_async(GetParameters.Request(names=["tf_broadcast", "odom_frame_id"]))
                future.add_done_callback(partial(self._on_answer, name))

    def _on_answer(self, name: str, done: Any) -> None:
        answer = done.result() if done.exception() is None else None
        if answer is None or len(answer.values) != 2 or self.refusal:
            return
        broadcasts, frame = answer.values
        if broadcasts.bool_value and frame.string_value.lstrip("/") in ("", self._odom):
            self._refuse(
                f"{name} has tf_broadcast true, so it broadcasts the same frame; set its tf_broadcast to false, or "
                "publish_tf of this node, and activate this node again"
            )

    def _destroy(self) -> None:
        for client in self._clients.values():
            self._node.destroy_client(client)
        self._clients.clear()
