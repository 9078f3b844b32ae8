"""Configuration dataclasses to ROS parameters and back. Defaults stand in the dataclasses only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from effovpr_ros.errors import ConfigError
from effovpr_ros.features.devices import PRECISIONS
from effovpr_ros.features.engines.catalogue import DEFAULT_ENGINE, ENGINE_NAMES
from effovpr_ros.recognition.config import RecognizerConfig


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A dataclass field that is a parameter; `limits` are min and max, both allowed, or choices."""
    return field(default=default, metadata={"description": description, **limits})


@dataclass(frozen=True)
class NodeConfig:
    """Settings of the node itself; they are read when it is configured."""

    map_path: str = setting("", "Map directory; empty: wait for ~/load_map.")
    weights: str = setting("", "Weights file or trained tail of the map's model; empty: the model's own source.")
    device: str = setting("auto", "auto (CUDA, else CPU), cpu, cuda or cuda:N.")
    precision: str = setting("auto", "auto, fp32, fp16 or bf16.", choices=("auto", *PRECISIONS))
    engine: str = setting(
        DEFAULT_ENGINE,
        "What runs the network; auto: the fastest on this machine that gives PyTorch's descriptors.",
        choices=ENGINE_NAMES,
    )
    num_threads: int = setting(0, "CPU threads of the network; 0: as torch decides.", min=0, max=1024)
    image_transport: str = setting("raw", "raw or compressed.", choices=("raw", "compressed"))
    image_reliability: str = setting(
        "best_effort",
        "QoS of the image subscription; reliable helps where large raw images get lost.",
        choices=("best_effort", "reliable"),
    )
    max_rate_hz: float = setting(0.0, "Recognise at most so often; 0: as fast as possible.", min=0.0, max=1000.0)
    num_candidates: int = setting(10, "Candidates published in ~/match.", min=1, max=1000)
    hint_radius_m: float = setting(
        10.0, "Least radius of a ~/hint; three standard deviations of the hint if larger.", min=0.1, max=100000.0
    )
    hint_timeout_s: float = setting(2.0, "A ~/hint counts for images at most so much later.", min=0.0, max=3600.0)


def declare(node: Node, *configs: type) -> None:
    """Declare every field of configuration dataclasses with its range and description."""
    for config in configs:
        for entry in fields(config):
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
            node.declare_parameter(entry.name, default, _descriptor(entry))


def read_node_config(node: Node, changed: Sequence[Parameter] = ()) -> NodeConfig:
    """The node's settings, with parameters that are about to change.

    Raises:
        ConfigError: a value that is not among the choices.
    """
    config = NodeConfig(**_values(node, NodeConfig, changed))
    for entry in fields(NodeConfig):
        choices = entry.metadata.get("choices")
        if choices and getattr(config, entry.name) not in choices:
            raise ConfigError(f"{entry.name} {getattr(config, entry.name)!r} is unknown; use {', '.join(choices)}")
    return config


def read_recognizer_config(node: Node, changed: Sequence[Parameter] = ()) -> RecognizerConfig:
    """The recogniser's settings, with parameters that are about to change.

    Raises:
        ConfigError: impossible values.
    """
    return RecognizerConfig(**_values(node, RecognizerConfig, changed))


def touches(changed: Iterable[Parameter], config: type) -> bool:
    """Whether any parameter belongs to a configuration dataclass."""
    names = {entry.name for entry in fields(config)}
    return any(parameter.name in names for parameter in changed)


def _values(node: Node, config: type, changed: Sequence[Parameter]) -> dict[str, Any]:
    values = {entry.name: node.get_parameter(entry.name).value for entry in fields(config)}
    values.update({parameter.name: parameter.value for parameter in changed if parameter.name in values})
    return values


def _descriptor(entry: Any) -> ParameterDescriptor:
    metadata = entry.metadata
    descriptor = ParameterDescriptor(description=metadata["description"])
    if "choices" in metadata:
        descriptor.additional_constraints = f"one of {', '.join(metadata['choices'])}"
    elif "min" in metadata and isinstance(entry.default, int):
        descriptor.integer_range = [IntegerRange(from_value=metadata["min"], to_value=metadata["max"])]
    elif "min" in metadata:
        limits = FloatingPointRange(from_value=float(metadata["min"]), to_value=float(metadata["max"]))
        descriptor.floating_point_range = [limits]
    return descriptor
