"""The last ~/hint: where the robot is believed to be."""

from __future__ import annotations

from geometry_msgs.msg import PoseWithCovarianceStamped
from std_msgs.msg import Header

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.nodes import conversions
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.parameters import NodeConfig
from effovpr_ros.recognition.recognizer import Hint


class Hints:
    """Keeps the last hint, and says for which images it counts."""

    def __init__(self, node: GuardedNode, config: NodeConfig) -> None:
        """Start without a hint."""
        self._node = node
        self._config = config
        self._last: PoseWithCovarianceStamped | None = None

    def on_hint(self, message: PoseWithCovarianceStamped) -> None:
        """Keep a message, unless it is impossible, which is reported."""
        try:
            conversions.hint_from_message(message, self._config.hint_radius_m)
        except ConfigError as error:
            self._node.report(f"a hint is ignored: {error}")
            return
        self._last = message

    def of(self, header: Header, frame_id: str) -> Hint | None:
        """The last hint, if it is in the map's frame and not older than `hint_timeout_s` beside an image.

        Args:
            header: of the image.
            frame_id: of the map; empty without one.
        """
        message = self._last
        if message is None:
            return None
        age_s = (conversions.ns_from_time(header.stamp) - conversions.ns_from_time(message.header.stamp)) * 1e-9
        if abs(age_s) > self._config.hint_timeout_s:
            return None
        if message.header.frame_id != frame_id:
            self._node.report(f"a hint in frame {message.header.frame_id!r} is ignored; the map's is {frame_id!r}")
            return None
        return conversions.hint_from_message(message, self._config.hint_radius_m)
