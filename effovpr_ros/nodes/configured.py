"""What a node that looks through a camera works with from configure to cleanup."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from effovpr_ros.mapping.map_reading import MapReader
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


class Closable(Protocol):
    """What a node loads."""

    def close(self) -> None:
        """Release it."""


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


def gpu_values(place_map: MapReader | None) -> dict[str, str]:
    """For /diagnostics: what of a map is kept on a GPU; empty where the CPU compares places."""
    resident = place_map.resident if place_map is not None else None
    return {} if resident is None else {"places_on_gpu": resident.summary}


@dataclass(frozen=True)
class ImageSource:
    """A topic of images.

    Attributes:
        name: of the camera; empty for the only one.
        topic: before remapping.
        is_compressed: CompressedImage, else Image.
    """

    name: str
    topic: str
    is_compressed: bool


@dataclass(frozen=True)
class _Heard:
    """The images of one camera: their topic, and how they arrive."""

    source: ImageSource
    images: ImageInput
    stream: ImageStream


class Configured(ABC, Generic[Item]):
    """Callbacks hand the newest image over; a worker turns it into results.

    All but `_process` and `close` runs in the thread that spins.
    """

    def __init__(
        self,
        node: GuardedNode,
        camera: CameraNodeConfig,
        worker: LatestWorker,
        resources: ExitStack,
        sources: Sequence[ImageSource] = (),
    ) -> None:
        """Subscribe to the images.

        Args:
            node: that is configured.
            camera: how it gets its images.
            worker: that runs `_process`.
            resources: takes the undoing of what is advertised and subscribed.
            sources: topics of several cameras; empty for the one.
        """
        self._node = node
        self._camera = camera
        self._worker = worker
        self._resources = resources
        self._last_offer_s = -math.inf
        self.is_active = False
        self._inputs: list[ImageInput] = []
        if not sources:
            compressed = camera.image_transport == "compressed"
            sources = [ImageSource("", "image/compressed" if compressed else "image", compressed)]
        self._heard = [self._hear_camera(number, source) for number, source in enumerate(sources)]

    def activate(self) -> None:
        """Start answering."""
        for heard in self._heard:
            heard.stream.restart(time.monotonic())
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
        silent = self._silent(now_s) if self.is_active else []
        lossy = [
            f"{lost} of the last {sent} images{_of(heard)} were lost on their way to this node"
            for heard in self._heard
            for lost, sent in [heard.stream.recently_lost()]
            if lost > _WORRYING_SHARE * sent
        ]
        if silent:
            # What other cameras see is answered still.
            level = DiagnosticStatus.ERROR if len(silent) == len(self._heard) else DiagnosticStatus.WARN
            text = self.silence(now_s)
        elif level == DiagnosticStatus.OK and lossy:
            level, text = DiagnosticStatus.WARN, "; ".join(lossy)
        values = {
            "images_received": str(sum(heard.stream.received for heard in self._heard)),
            "images_lost": str(sum(heard.stream.lost for heard in self._heard)),
            "dropped_frames": str(self._worker.dropped),
        }
        for heard in self._heard:
            prefix = f"{heard.source.name}." if heard.source.name else ""
            values[f"{prefix}image_period_s"] = f"{heard.stream.period_s():.3f}"
            values[f"{prefix}image_reliability"] = heard.images.reliability
            if prefix:
                values[f"{prefix}images_received"] = str(heard.stream.received)
        return Health(level, text, own.hardware_id, {**values, **own.values})

    def silence(self, now_s: float) -> str:
        """For how long no image has come, and what may be wrong."""
        return "; ".join(
            f"no image{_of(heard)} for {heard.stream.silent_s(now_s):.1f} s: {heard.images.why_silent()}"
            for heard in self._silent(now_s) or self._heard
        )

    def _silent(self, now_s: float) -> list[_Heard]:
        return [heard for heard in self._heard if heard.stream.silent_s(now_s) > self._camera.image_timeout_s]

    @abstractmethod
    def _own_health(self, now_s: float) -> Health:
        """How the node is beside its images."""

    @abstractmethod
    def _on_image(self, number: int, message: ImageMessage) -> None:
        """Take an image of a camera, and offer what is made of it."""

    @abstractmethod
    def _process(self, item: Item) -> None:
        """Work on an item, in the worker's thread."""

    def _arrived(self, number: int, message: ImageMessage) -> None:
        self._heard[number].stream.arrived(ns_from_time(message.header.stamp), time.monotonic())
        self._on_image(number, message)

    def _offer(self, item: Item) -> bool:
        """Hand an item over to the worker, unless the node is inactive or `max_rate_hz` says that it is too early."""
        now_s = time.monotonic()
        period_s = 1.0 / self._camera.max_rate_hz if self._camera.max_rate_hz else 0.0
        if not self.is_active or now_s - self._last_offer_s < period_s:
            return False
        self._last_offer_s = now_s
        self._worker.offer(partial(self._process, item))
        return True

    @property
    def _max_pixels(self) -> int:
        return round(self._camera.max_megapixels * 1e6)

    def _hear_camera(self, number: int, source: ImageSource) -> _Heard:
        kind = CompressedImage if source.is_compressed else Image
        images = self._hear_images(kind, source.topic, partial(self._arrived, number))
        return _Heard(source, images, ImageStream(time.monotonic()))

    def _hear_images(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> ImageInput:
        images = ImageInput(self._node, kind, topic, callback, self._camera.image_reliability)
        self._inputs.append(images)
        self._resources.callback(images.destroy)
        return images

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        subscription = self._node.subscribe(kind, topic, callback, qos)
        self._resources.callback(self._node.destroy_subscription, subscription)


def _of(heard: _Heard) -> str:
    return f" of camera {heard.source.name}" if heard.source.name else ""
