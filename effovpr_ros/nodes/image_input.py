"""Subscriptions to images whose QoS fits what is published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription

from effovpr_ros.nodes.guarded_node import GuardedNode

_RELIABLE, _BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
_NAMES = {_RELIABLE: "reliable", _BEST_EFFORT: "best effort"}
# The callback takes microseconds, but other threads may hold Python's lock for some images; one would be too few.
_DEPTH = 5


class ImageInput:
    """Hears a topic of images as reliably as all of its publishers offer it, or as it is told to."""

    def __init__(
        self, node: GuardedNode, kind: Any, topic: str, callback: Callable[[Any], None], reliability: str
    ) -> None:
        """Subscribe.

        Args:
            node: that listens.
            kind: of message.
            topic: name of the topic before remapping.
            callback: called with each message.
            reliability: auto, best_effort or reliable.
        """
        self._node = node
        self._kind = kind
        self._topic = topic
        self._callback = callback
        self._reliability = reliability
        self._subscription = self._subscribe()

    @property
    def reliability(self) -> str:
        """What is asked for now."""
        return _NAMES[self._subscription.qos_profile.reliability]

    def match(self) -> None:
        """Follow publishers that came or went."""
        if self._wanted() is not self._subscription.qos_profile.reliability:
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribe()

    def destroy(self) -> None:
        """Hear nothing any more."""
        self._node.destroy_subscription(self._subscription)

    def why_silent(self) -> str:
        """What may be wrong where nothing arrives."""
        topic = self._node.resolve_topic_name(self._topic)
        publishers = self._node.get_publishers_info_by_topic(topic)
        own = f"{self._kind.__module__.split('.')[0]}/msg/{self._kind.__name__}"
        others = sorted({info.topic_type for info in publishers} - {own})
        if not publishers:
            return f"nobody publishes {topic}; start the camera, or remap {self._topic} to its topic"
        if len(others) == len({info.topic_type for info in publishers}):
            return f"{topic} carries {others[0]}, and {own} is asked for; set image_transport, or remap {self._topic}"
        if self._subscription.qos_profile.reliability is _RELIABLE and any(
            info.qos_profile.reliability is _BEST_EFFORT for info in publishers
        ):
            return f"{topic} is published best effort, and reliable is asked for; set image_reliability to auto"
        return f"{topic} has a publisher, but nothing of it arrives; check the camera driver and the network"

    def _wanted(self) -> QoSReliabilityPolicy:
        if self._reliability != "auto":
            return _RELIABLE if self._reliability == "reliable" else _BEST_EFFORT
        publishers = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(self._topic))
        if not publishers:
            # Whatever comes is heard, and its publisher is looked at then.
            return _BEST_EFFORT
        reliable = all(info.qos_profile.reliability is _RELIABLE for info in publishers)
        return _RELIABLE if reliable else _BEST_EFFORT

    def _subscribe(self) -> Subscription[Any]:
        qos = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=_DEPTH, reliability=self._wanted())
        return self._node.subscribe(self._kind, self._topic, self._callback, qos)
