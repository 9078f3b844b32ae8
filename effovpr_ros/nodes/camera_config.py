"""Parameters that name the camera of `place_recognizer`, or its several cameras."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.mounted_cameras import parse_pose
from effovpr_ros.core.poses import Pose
from effovpr_ros.core.settings import setting
from effovpr_ros.nodes import parameters
from effovpr_ros.nodes.adapters.adapter_config import split_names

_MOST_CAMERAS = 16


@dataclass(frozen=True)
class QueryCameraConfig:
    """The cameras of the node; read when it is configured.

    Raises:
        ConfigError: an impossible name of a camera, too many, or an impossible pose.
    """

    cameras: str = setting(
        "",
        "Names of several cameras, comma-separated, each with NAME.image_topic and so on; empty: one camera, on image. "
        "Set at the start only.",
        read_only=True,
    )
    camera_info_topic: str = setting("", "camera_info of the one camera; empty: beside its images.")
    camera_pose: str = setting(
        "", "Pose of the one camera's optical frame in body_frame: x y z roll pitch yaw; empty: from /tf_static."
    )
    camera_tolerance_s: float = setting(
        0.03,
        "Images of several cameras are one query if their stamps are at most this many seconds apart.",
        min=0.0,
        max=10.0,
    )
    camera_wait_s: float = setting(
        0.1,
        "Longest time that a query waits for the images of its other cameras, in seconds; then it does without them.",
        min=0.0,
        max=10.0,
    )

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        given = [name.strip() for name in self.cameras.split(",") if name.strip()]
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise ConfigError(f"cameras {self.cameras!r} names {', '.join(twice)} twice; name each camera once")
        for name in self.names:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise ConfigError(f"camera {name!r} is no name; use letters, digits and _, such as front_left")
        if len(self.names) > _MOST_CAMERAS:
            raise ConfigError(f"{len(self.names)} cameras are more than {_MOST_CAMERAS}; name fewer in cameras")
        mounting_of(self.camera_pose)

    @property
    def names(self) -> tuple[str, ...]:
        """Of several cameras; empty for the one that needs none."""
        return split_names(self.cameras)


@dataclass(frozen=True)
class OneCameraConfig:
    """One of several cameras; its parameters begin with its name.

    Raises:
        ConfigError: an impossible pose.
    """

    image_topic: str = setting("", "Topic of its raw images; with image_transport compressed, TOPIC/compressed.")
    image_transport: str = setting(
        "", "raw or compressed; empty: as image_transport says.", choices=("", "raw", "compressed")
    )
    camera_info_topic: str = setting("", "Its camera_info; empty: beside its images.")
    frame_id: str = setting("", "Its optical frame; empty: as its camera_info says.")
    camera_pose: str = setting(
        "", "Pose of its optical frame in body_frame: x y z roll pitch yaw; empty: from /tf_static."
    )

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        mounting_of(self.camera_pose)


@dataclass(frozen=True)
class CameraConfigs:
    """All of them.

    Attributes:
        query: of the node.
        several: of each of several cameras by name; empty for the one.
    """

    query: QueryCameraConfig = field(default_factory=QueryCameraConfig)
    several: Mapping[str, OneCameraConfig] = field(default_factory=dict)


def mounting_of(text: str) -> Pose | None:
    """T_body_camera as a parameter gives it; None for an empty text.

    Raises:
        ConfigError: not six finite numbers.
    """
    return parse_pose(text) if text.strip() else None


def declare_cameras(node: Node) -> set[str]:
    """Declare the parameters of the cameras that `cameras` names; gives the names of the parameters.

    Raises:
        ConfigError: an impossible name, or a value of another type.
    """
    names = QueryCameraConfig(cameras=str(node.get_parameter("cameras").value)).names
    for name in names:
        parameters.declare(node, OneCameraConfig(), prefix=f"{name}.")
    return {f"{name}.{entry}" for name in names for entry in parameters.names_of(OneCameraConfig)}


def read_cameras(node: Node, changed: Sequence[Parameter[Any]] = ()) -> CameraConfigs:
    """The cameras, with what is about to change.

    Raises:
        ConfigError: impossible values.
    """
    query = parameters.read(node, QueryCameraConfig, changed)
    several: dict[str, OneCameraConfig] = {}
    for name in query.names:
        several[name] = parameters.read(node, OneCameraConfig, changed, prefix=f"{name}.")
        if not several[name].image_topic:
            raise ConfigError(f"camera {name} has no images; set {name}.image_topic")
    return CameraConfigs(query, several)
