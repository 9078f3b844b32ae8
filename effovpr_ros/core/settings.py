"""Fields of configuration dataclasses, with the metadata that ROS parameters and options derive from."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

from effovpr_ros.core.errors import ConfigError


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A field of a configuration dataclass.

    Args:
        default: its value.
        description: for people, one line.
        limits: `min` and `max`, both allowed, or `choices`; none where any value will do.
    """
    return field(default=default, metadata={"description": description, **limits})


def ranged(default: float, low: float, high: float, description: str) -> Any:
    """A field from `low` to `high`, both allowed."""
    return setting(default, description, min=low, max=high)


def choice(default: str, choices: tuple[str, ...], description: str) -> Any:
    """A field with one of some values."""
    return setting(default, description, choices=choices)


def check_limits(config: Any) -> None:
    """Refuse values of a configuration dataclass that the limits of their fields do not allow.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """
    for entry in fields(config):
        value, metadata = getattr(config, entry.name), entry.metadata
        if "choices" in metadata and value not in metadata["choices"]:
            raise ConfigError(f"{entry.name} {value!r} is unknown; use {', '.join(metadata['choices'])}")
        # Written so that NaN is refused too.
        if "min" in metadata and not metadata["min"] <= value <= metadata["max"]:
            raise ConfigError(f"{entry.name} {value!r} is outside [{metadata['min']}, {metadata['max']}]")
