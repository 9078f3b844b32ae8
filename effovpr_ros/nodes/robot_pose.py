"""What `place_recognizer` knows of the robot beside its images: odometry, and `map -> odom` where it publishes that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from diagnostic_msgs.msg import DiagnosticStatus

from effovpr_ros.core.poses import Pose
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.configured import Health
from effovpr_ros.nodes.guarded_node import GuardedNode
from effovpr_ros.nodes.map_engine import MapInUse
from effovpr_ros.nodes.map_odom_broadcaster import MapOdomBroadcaster
from effovpr_ros.nodes.odometry import OdometryListener
from effovpr_ros.recognition.map_odom_config import MapOdomConfig


class RobotPose:
    """Hears odometry while somebody needs it.

    Attributes:
        adapters: that hear of each answer.
    """

    def __init__(
        self,
        node: GuardedNode,
        config: MapOdomConfig,
        body_frame: str,
        map_of: Callable[[], MapInUse | None],
        resources: ExitStack,
    ) -> None:
        """Subscribe and advertise what `publish_tf` needs.

        Args:
            node: that is configured.
            config: of what is published.
            body_frame: frame whose poses the map holds.
            map_of: the map in use.
            resources: takes the undoing.
        """
        self._odometry = OdometryListener(node)
        resources.callback(self._odometry.listen, False)
        self._for_sequence = self._for_action = False
        self._broadcaster = (
            MapOdomBroadcaster(node, config, body_frame, map_of, resources) if config.publish_tf else None
        )
        self.adapters: list[Adapter] = [] if self._broadcaster is None else [self._broadcaster]

    def listen_for_sequence(self, wanted: bool) -> None:
        """Hear the topic `odom` for the sequence filter, or no longer."""
        self._for_sequence = wanted
        self._odometry.listen(wanted or (self._for_action and self._broadcaster is None))

    def listen_for_action(self, wanted: bool) -> None:
        """Hear the topic `odom` for `~/relocalize`, or no longer."""
        self._for_action = wanted
        self._odometry.listen(self._for_sequence or (wanted and self._broadcaster is None))

    @property
    def weighs_doubtful_answers(self) -> bool:
        """Whether somebody holds answers that are doubtful by themselves against each other; for any thread."""
        return self._broadcaster is not None or self._for_action

    def odometry_of_sequence(self, stamp_ns: int) -> Pose | None:
        """T_odom_body of the topic at a time; for any thread."""
        return self._odometry.at(stamp_ns)

    def odometry_at(self, stamp_ns: int) -> Pose | None:
        """T_odom_body at a time, wherever it is heard; for the thread that spins."""
        if self._broadcaster is not None:
            return self._broadcaster.odometry_at(stamp_ns)
        return self._odometry.at(stamp_ns)

    def joined(self, health: Health) -> Health:
        """A node's health with what is to be said of the transform."""
        if self._broadcaster is None:
            return health
        own = self._broadcaster.health()
        level, text = health.level, health.text
        if own.level > level or (own.text and level == DiagnosticStatus.OK):
            level, text = own.level, own.text
        return replace(health, level=level, text=text, values={**health.values, **own.values})
