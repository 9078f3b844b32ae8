"""The cameras of `place_recognizer`: which topics are heard, what is known of each, and which images are one query."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.nodes.camera_config import CameraConfigs, OneCameraConfig, mounting_of
from effovpr_ros.nodes.configured import ImageMessage, ImageSource
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.moments import Moments
from effovpr_ros.nodes.query_camera import QueryCamera
from effovpr_ros.nodes.static_transforms import StaticTransforms


@dataclass(frozen=True)
class CameraImage:
    """An image, and the camera that took it as far as it was known then."""

    message: ImageMessage
    camera: MountedCamera | None
    name: str = ""


Images = tuple[CameraImage, ...]


class RobotCameras:
    """All cameras of the node; the thread that spins calls."""

    def __init__(
        self,
        node: GuardedNode,
        configs: CameraConfigs,
        image_transport: str,
        body_frame: str,
        resources: ExitStack,
    ) -> None:
        """Subscribe to camera_info and, where a mounting is not given, to /tf_static.

        Args:
            node: that listens.
            configs: of the cameras.
            image_transport: of images, where a camera does not say its own.
            body_frame: whose poses the map holds.
            resources: takes the undoing of subscriptions.

        Raises:
            ConfigError: two cameras have one topic.
        """
        query = configs.query
        several = dict(configs.several) or {
            "": OneCameraConfig("image", "", query.camera_info_topic, "", query.camera_pose)
        }
        self.sources: list[ImageSource] = []
        for name, one in several.items():
            compressed = (one.image_transport or image_transport) == "compressed"
            self.sources.append(ImageSource(name, one.image_topic + "/compressed" * compressed, compressed))
        topics = [node.resolve_topic_name(source.topic) for source in self.sources]
        for number, topic in enumerate(topics):
            if topic in topics[:number]:
                first, second = self.sources[topics.index(topic)].name, self.sources[number].name
                raise ConfigError(
                    f"cameras {first} and {second} have one topic, {topic}; give each its own in NAME.image_topic"
                )
        poses = [mounting_of(one.camera_pose) for one in several.values()]
        self._transforms = None
        if None in poses:
            self._transforms = StaticTransforms(node)
            resources.callback(self._transforms.destroy)
        self._cameras: list[QueryCamera] = []
        for one, topic, pose in zip(several.values(), topics, poses, strict=True):
            info_topic = node.resolve_topic_name(one.camera_info_topic) if one.camera_info_topic else ""
            camera = QueryCamera(node, topic, info_topic, pose, self._transforms, body_frame, one.frame_id)
            resources.callback(camera.destroy)
            self._cameras.append(camera)
        self._node = node
        self._said: dict[str, str] = {}
        self.moments: Moments[CameraImage] = Moments(
            len(several), round(query.camera_tolerance_s * 1e9), query.camera_wait_s
        )

    @property
    def is_one(self) -> bool:
        """Whether there is one camera."""
        return len(self._cameras) == 1

    def joined(self, number: int, message: ImageMessage, now_s: float) -> list[Images]:
        """The queries that an image of a camera completes, oldest first."""
        image = CameraImage(message, self._cameras[number].camera(), self.sources[number].name)
        if self.is_one:
            return [(image,)]
        closed = self.moments.add(number, ns_from_time(message.header.stamp), image, now_s)
        return [tuple(items for _, items in sorted(moment.items.items())) for moment in closed]

    def due(self, now_s: float) -> list[Images]:
        """The queries that have waited for their other cameras long enough."""
        return [tuple(items for _, items in sorted(moment.items.items())) for moment in self.moments.due(now_s)]

    def camera_of(self, frame_id: str) -> MountedCamera | None:
        """The camera of an image that somebody sends: that of its frame, or the only one."""
        named = [camera for camera in self._cameras if frame_id and camera.frame_id == frame_id.lstrip("/")]
        chosen = named or (self._cameras if self.is_one else [])
        return chosen[0].camera() if chosen else None

    def problem(self, measures: bool) -> str:
        """What is wrong with the cameras, on one line; empty where nothing is.

        Args:
            measures: whether poses could be measured: the map keeps cameras, and it is wanted.
        """
        apart_s = self.moments.apart_s()
        if apart_s is not None:
            return (
                f"no two cameras give images of one time, the newest are {apart_s:.3f} s apart: synchronise their "
                "clocks, or raise camera_tolerance_s"
            )
        unknown = [
            f"{source.name or 'the camera'}: {camera.mounting if camera.camera() is not None else camera.calibration}"
            for source, camera in zip(self.sources, self._cameras, strict=True)
            if not camera.is_own
        ]
        return f"calibration or mounting is {'; '.join(unknown)}" if unknown and measures else ""

    def values(self) -> dict[str, str]:
        """For /diagnostics; a change is logged."""
        values: dict[str, str] = {}
        for source, camera in zip(self.sources, self._cameras, strict=True):
            prefix = f"{source.name}." if source.name else ""
            values[f"{prefix}camera_calibration"] = camera.calibration
            values[f"{prefix}camera_mounting"] = camera.mounting
        for key, value in values.items():
            if self._said.get(key) != value:
                self._said[key] = value
                self._node.get_logger().info(f"{key.replace('_', ' ')}: {value}")
        values["static_transforms_changed"] = str(self._transforms.num_changed if self._transforms else 0)
        values["static_transforms_left_out"] = str(self._transforms.left_out if self._transforms else 0)
        if not self.is_one:
            values["queries_incomplete"] = str(self.moments.incomplete)
            values["images_late"] = str(self.moments.late)
        return values
