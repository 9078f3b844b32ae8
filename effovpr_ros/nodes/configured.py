"""What a node that looks through a camera works with from configure to cleanup."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.outputs import RELIABLE_SENSOR_QOS, SENSOR_QOS
from effovpr_ros.nodes.parameters import CameraNodeConfig
from effovpr_ros.nodes.worker import LatestWorker

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
        if camera.image_transport == "compressed":
            self._subscribe(CompressedImage, "image/compressed", self._on_image, self._image_qos())
        else:
            self._subscribe(Image, "image", self._on_image, self._image_qos())

    @property
    def dropped(self) -> int:
        """Images that a newer one replaced before their turn came."""
        return self._worker.dropped

    def activate(self) -> None:
        """Start answering."""
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

    @abstractmethod
    def health(self, now_s: float) -> Health:
        """What `/diagnostics` says where no error is recent."""

    @abstractmethod
    def _make_item(self, message: ImageMessage, received_s: float) -> Item:
        """What goes to the worker for an image."""

    @abstractmethod
    def _process(self, item: Item) -> None:
        """Work on an item, in the worker's thread."""

    def _on_image(self, message: ImageMessage) -> None:
        now_s = time.monotonic()
        period_s = 1.0 / self._camera.max_rate_hz if self._camera.max_rate_hz else 0.0
        if self.is_active and now_s - self._last_offer_s >= period_s:
            self._last_offer_s = now_s
            self._worker.offer(partial(self._process, self._make_item(message, now_s)))

    @property
    def _max_pixels(self) -> int:
        return round(self._camera.max_megapixels * 1e6)

    def _image_qos(self) -> QoSProfile:
        return RELIABLE_SENSOR_QOS if self._camera.image_reliability == "reliable" else SENSOR_QOS

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        subscription = self._node.subscribe(kind, topic, callback, qos)
        self._resources.callback(self._node.destroy_subscription, subscription)
