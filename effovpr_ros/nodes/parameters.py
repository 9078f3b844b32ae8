"""Configuration dataclasses to ROS parameters and back. Defaults stand in the dataclasses only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.parameter import Parameter

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import MAX_PIXELS
from effovpr_ros.core.settings import check_limits, setting
from effovpr_ros.engines.catalogue import DEFAULT_ENGINE, ENGINE_NAMES
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.features.names import PRECISIONS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
_MODEL = ExtractorConfig()
_HOW_TO_WRITE = {
    str: 'put it between double quotes: in YAML a bare off, on, yes, no or number is no text, "off" is',
    float: "write it with a decimal point, as 10.0",
    int: "write it without a decimal point and without quotes, as 10",
    bool: "write true or false without quotes",
    list: 'write a list of texts, as ["/a", "/b"]',
}


@dataclass(frozen=True)
class CameraNodeConfig:
    """How a node gets its images and where its model runs; read when it is configured."""

    weights: str = setting("", "Weights file or trained tail of the map's model; empty: the model's own source.")
    device: str = setting("auto", "auto (CUDA, else CPU), cpu, cuda or cuda:N.")
    precision: str = setting("auto", "auto, fp32, fp16 or bf16.", choices=("auto", *PRECISIONS))
    engine: str = setting(
        DEFAULT_ENGINE,
        "What runs the network; auto: the fastest on this machine that gives PyTorch's descriptors.",
        choices=ENGINE_NAMES,
    )
    num_threads: int = setting(0, "CPU threads of the network and of re-ranking; 0: as torch decides.", min=0, max=1024)
    image_transport: str = setting("raw", "raw or compressed.", choices=("raw", "compressed"))
    image_reliability: str = setting(
        "auto",
        "QoS of the image subscription; auto: reliable where all publishers are, so that no large raw image gets lost.",
        choices=("auto", "best_effort", "reliable"),
    )
    image_timeout_s: float = setting(
        5.0, "/diagnostics is an ERROR after this many seconds without an image.", min=0.1, max=86400.0
    )
    max_rate_hz: float = setting(
        0.0, "Most images that are recognised in a second; 0: as many as possible.", min=0.0, max=1000.0
    )
    max_megapixels: float = setting(
        MAX_PIXELS / 1e6,
        "Images of more million pixels than this are refused before they are decoded.",
        min=0.001,
        max=10000.0,
    )
    map_root: str = setting(
        "",
        "The only folder in which maps may be opened and saved, or the only address below "
        "which they may be asked for; empty: anywhere. Set at the start only.",
        read_only=True,
    )


@dataclass(frozen=True)
class NodeConfig:
    """Settings of `place_recognizer` itself; they are read when it is configured."""

    map_path: str = setting("", "Map directory, or address of a server (https://...); empty: wait for ~/load_map.")
    map_memory_mb: int = setting(
        4096,
        "Megabytes that open shards of a map may take; beyond, those that were not used for longest are closed.",
        min=0,
        max=2**20,
    )
    num_candidates: int = setting(10, "Candidates published in ~/match.", min=1, max=1000)
    hint_radius_m: float = setting(
        10.0,
        "Least radius around a ~/hint in which places are searched, in metres; three standard"
        " deviations of the hint if these are larger.",
        min=0.1,
        max=100000.0,
    )
    hint_timeout_s: float = setting(
        2.0, "Seconds for which a ~/hint counts, by the stamps of images.", min=0.0, max=3600.0
    )
    localize_max_age_s: float = setting(
        1.0,
        "~/localize without an image takes the topic's newest image if it is at most this "
        "many seconds old, else the next one.",
        min=0.0,
        max=60.0,
    )


@dataclass(frozen=True)
class LoopNodeConfig:
    """Settings of `loop_closure_detector` itself; they are read when it is configured."""

    session_path: str = setting(
        "", "Map directory to which keyframes are added, made if missing; empty: a temporary one, deleted at the end."
    )
    session: str = setting(
        "", "Name of the session; if the map has one of this name, it is continued. Empty: the time of the start."
    )
    model: str = setting(_MODEL.model, "Model of a new map: offline, small, base, large, giant or a timm ViT name.")
    image_size: int = setting(_MODEL.image_size, "Side of a new map's network input in pixels.", min=14, max=2044)
    odom_frame: str = setting("odom", "Frame of a new map's poses: that of the odometry.")
    odom_wait_s: float = setting(
        0.3, "Longest time to wait for the odometry of an image's stamp, in seconds.", min=0.0, max=10.0
    )
    odometry_required: bool = setting(
        False, "Leave out images without odometry; if false, they become keyframes by time."
    )
    camera_pose: str = setting(
        "",
        "Pose of the camera's optical frame in the odometry's child frame: x y z roll pitch "
        "yaw [m, rad]. With it and camera_info, relative poses of closures are measured; "
        "empty: they are priors.",
    )
    use_depth: bool = setting(
        False,
        "Measure relative poses of closures by the depth images on the topic depth, which "
        "must be registered to the images.",
    )


def declare(node: Node, *defaults: Any, prefix: str = "") -> None:
    """Declare every field of configuration dataclasses with its range and description.

    Args:
        node: that gets the parameters.
        defaults: instances, whose values are the defaults.
        prefix: before the name of each, as `front.`.

    Raises:
        ConfigError: a given value is of another type than the default.
    """
    for config in defaults:
        for entry in fields(config):
            default, name = getattr(config, entry.name), prefix + entry.name
            try:
                node.declare_parameter(name, default, _descriptor(entry))
            except InvalidParameterTypeException as error:
                given, wanted = node._parameter_overrides[name].value, type(default)
                raise ConfigError(
                    f"parameter {name} {given!r} is of type {type(given).__name__} and must be of type "
                    f"{wanted.__name__}; {_HOW_TO_WRITE[wanted]}"
                ) from error


def read(node: Node, config: type[Config], changed: Sequence[Parameter[Any]] = (), *, prefix: str = "") -> Config:
    """A configuration from the parameters, with those that are about to change.

    Args:
        node: that has the parameters.
        config: of which all fields were declared.
        changed: what is about to change.
        prefix: as it was declared.

    Raises:
        ConfigError: impossible values.
    """
    values = {entry.name: node.get_parameter(prefix + entry.name).value for entry in fields(config)}
    coming = {parameter.name.removeprefix(prefix): parameter.value for parameter in changed}
    values.update({name: value for name, value in coming.items() if name in values})
    made = config(**values)
    check_limits(made)
    return made


def unchanged(node: Node, parameter: Parameter[Any]) -> bool:
    """Whether a parameter is to be set to the value that it has."""
    return bool(node.get_parameter(parameter.name).value == parameter.value)


def names_of(*configs: Any) -> set[str]:
    """Names of the parameters of configuration dataclasses."""
    return {entry.name for config in configs for entry in fields(config)}


def touches(changed: Iterable[Parameter[Any]], *configs: type) -> bool:
    """Whether any parameter belongs to one of the configuration dataclasses."""
    names = names_of(*configs)
    return any(parameter.name in names for parameter in changed)


def warn_of_unknown(node: Node) -> None:
    """Name the given parameters that the node does not have: ROS passes over a misspelt one in silence."""
    known = sorted(node._parameters)
    for name in node._parameter_overrides:
        if not node.has_parameter(name):
            nearest = get_close_matches(name, known, n=1)
            hint = f"; the nearest that it has is {nearest[0]}" if nearest else ""
            node.get_logger().warning(f"parameter {name} is ignored: this node has none of that name{hint}")


def _descriptor(entry: Any) -> ParameterDescriptor:
    metadata = entry.metadata
    read_only = metadata.get("read_only", False)
    descriptor = ParameterDescriptor(description=metadata["description"], read_only=read_only)
    if "choices" in metadata:
        descriptor.additional_constraints = f"one of {', '.join(metadata['choices'])}"
    elif "min" in metadata and isinstance(entry.default, int):
        descriptor.integer_range = [IntegerRange(from_value=metadata["min"], to_value=metadata["max"])]
    elif "min" in metadata:
        limits = FloatingPointRange(from_value=float(metadata["min"]), to_value=float(metadata["max"]))
        descriptor.floating_point_range = [limits]
    return descriptor
