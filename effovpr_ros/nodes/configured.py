"""What a node that looks through a camera works with from configure to cleanup."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.image_input import ImageInput
from effovpr_ros.nodes.image_stream import ImageStream
from effovpr_ros.nodes.parameters import CameraNodeConfig
from effovpr_ros.nodes.worker import LatestWorker

_WORRYING_SHARE = 0.2
"""Of lost images; a few are lost on any busy machine."""

ImageMessage: TypeAlias = Image | CompressedImage
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


def engine_news(state: Mapping[str, str]) -> str:
    """A line for the log on the engine that takes over, as `FeatureExtractor.engine_state` describes it."""
    return f"engine {state['engine']} runs the network from this image on: {state['engine_choice']}"


class Configured(ABC, Generic[Item]):
    """Callbacks hand the newest image over; a worker turns it into results.

    All but `_process` and `close` runs in the thread that spins.
    """

    def __init__(self, node: GuardedNode, camera: CameraNodeConfig, worker: LatestWorker, resources: ExitStack) -> None:
        """Subscribe to the images.

        Args:
            node: that is configured.
            camera: how it gets its images.
            worker: that runs `_process`.
            resources: takes the undoing of what is advertised and subscribed.
        """
        self._node = node
        self._camera = camera
        self._worker = worker
        self._resources = resources
        self._last_offer_s = -math.inf
        self.is_active = False
        self._inputs: list[ImageInput] = []
        self._stream = ImageStream(time.monotonic())
        if camera.image_transport == "compressed":
            self._images = self._hear_images(CompressedImage, "image/compressed", self._arrived)
        else:
            self._images = self._hear_images(Image, "image", self._arrived)

    def activate(self) -> None:
        """Start answering."""
        self._stream.restart(time.monotonic())
        self.is_active = True

    def deactivate(self, reason: str) -> None:
        """Stop answering; what was loaded stays.

        Args:
            reason: for those that still wait for an answer.
        """
        self.is_active = False
        self._worker.clear()

    @abstractmethod
    def close(self) -> None:
        """Release what was loaded; the worker's last job, in its thread."""

    def health(self, now_s: float) -> Health:
        """What `/diagnostics` says where no error is recent; follows publishers of images that came or went."""
        for images in self._inputs:
            images.match()
        own = self._own_health(now_s)
        level, text = own.level, own.text
        lost, sent = self._stream.recently_lost()
        if self.is_active and self._stream.silent_s(now_s) > self._camera.image_timeout_s:
            level, text = DiagnosticStatus.ERROR, self.silence(now_s)
        elif level == DiagnosticStatus.OK and lost > _WORRYING_SHARE * sent:
            level, text = DiagnosticStatus.WARN, f"{lost} of the last {sent} images were lost on their way to this node"
        values = {
            "images_received": str(self._stream.received),
            "images_lost": str(self._stream.lost),
            "image_period_s": f"{self._stream.period_s():.3f}",
            "image_reliability": self._images.reliability,
            "dropped_frames": str(self._worker.dropped),
        }
        return Health(level, text, own.hardware_id, {**values, **own.values})

    def silence(self, now_s: float) -> str:
        """For how long no image has come, and what may be wrong."""
        return f"no image for {self._stream.silent_s(now_s):.1f} s: {self._images.why_silent()}"

    @abstractmethod
    def _own_health(self, now_s: float) -> Health:
        """How the node is beside its images."""

    @abstractmethod
    def _make_item(self, message: ImageMessage, received_s: float) -> Item:
        """What goes to the worker for an image."""

    @abstractmethod
    def _process(self, item: Item) -> None:
        """Work on an item, in the worker's thread."""

    def _arrived(self, message: ImageMessage) -> None:
        self._stream.arrived(ns_from_time(message.header.stamp), time.monotonic())
        self._on_image(message)

    def _on_image(self, message: ImageMessage) -> None:
        now_s = time.monotonic()
        period_s = 1.0 / self._camera.max_rate_hz if self._camera.max_rate_hz else 0.0
        if self.is_active and now_s - self._last_offer_s >= period_s:
            self._last_offer_s = now_s
            self._worker.offer(partial(self._process, self._make_item(message, now_s)))

    @property
    def _max_pixels(self) -> int:
        return round(self._camera.max_megapixels * 1e6)

    def _hear_images(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> ImageInput:
        images = ImageInput(self._node, kind, topic, callback, self._camera.image_reliability)
        self._inputs.append(images)
        self._resources.callback(images.destroy)
        return images

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        subscription = self._node.subscribe(kind, topic, callback, qos)
        self._resources.callback(self._node.destroy_subscription, subscription)
