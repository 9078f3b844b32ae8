"""Parameters that a map carries too: its values count unless somebody gave others, and the parameters show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter

from effovpr_ros.recognition.presets import map_settings
from effovpr_ros.recognition.recognizer_config import RecognizerConfig


class MapParameters:
    """Which of them were given, at the start of a node or while it runs."""

    def __init__(self, node: Node) -> None:
        """Take what was given at the start.

        Args:
            node: whose parameters they are.
        """
        self._node = node
        self._given = set(node._parameter_overrides)
        self._before: dict[str, Any] = {}
        self.is_showing = False
        """Whether parameters change at the moment because they show a map's values."""

    def given(self, config: RecognizerConfig, changed: Sequence[Parameter[Any]] = ()) -> dict[str, Any]:
        """Settings that somebody gave, who is believed before the map.

        Args:
            config: of the recogniser, from the parameters.
            changed: parameters that are about to change.
        """
        names = self._given | {parameter.name for parameter in changed}
        return {name: value for name, value in map_settings(config).items() if name in names}

    def own(self, config: RecognizerConfig, changed: Sequence[Parameter[Any]] = ()) -> RecognizerConfig:
        """The node's own settings: without the values of a map that parameters show at the moment.

        Args:
            config: of the recogniser, from the parameters.
            changed: parameters that are about to change.
        """
        given = self.given(config, changed)
        return replace(config, **{name: value for name, value in self._before.items() if name not in given})

    def remember(self, changed: Sequence[Parameter[Any]]) -> None:
        """Parameters were given while the node runs."""
        self._given |= {parameter.name for parameter in changed}

    def show(self, config: RecognizerConfig) -> None:
        """Let the parameters say what a map made of them."""
        values = map_settings(config)
        differing = [name for name, value in values.items() if self._node.get_parameter(name).value != value]
        if not differing:
            return
        for name in differing:
            self._before.setdefault(name, self._node.get_parameter(name).value)
        self.is_showing = True
        try:
            self._node.set_parameters([Parameter(name, value=values[name]) for name in differing])
        finally:
            self.is_showing = False
        said = ", ".join(f"{name} {values[name]}" for name in differing)
        self._node.get_logger().info(f"settings taken from the map: {said}")
