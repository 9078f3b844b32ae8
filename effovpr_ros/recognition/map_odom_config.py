"""Settings of `map -> odom`."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.settings import setting


@dataclass(frozen=True)
class MapOdomConfig:
    """When and how `map -> odom` is published; read when the node is configured.

    Raises:
        ConfigError: the odometry's frame has no name.
    """

    publish_tf: bool = setting(
        False, "Publish the transform from the map's frame to the odometry's on /tf, from measured poses."
    )
    odom_frame: str = setting("odom", "publish_tf: frame of the odometry, the child of what is published.")
    tf_odometry: str = setting(
        "tf", "publish_tf: where the node gets odometry from: /tf, or the topic odom.", choices=("tf", "topic")
    )
    tf_rate_hz: float = setting(20.0, "publish_tf: transforms a second.", min=1.0, max=200.0)
    transform_tolerance_s: float = setting(
        0.5,
        "publish_tf: seconds by which each transform is dated ahead, so that it holds until the next one.",
        min=0.0,
        max=10.0,
    )
    tf_planar: bool = setting(True, "publish_tf: correct x, y and yaw alone; height, roll and pitch are odometry's.")
    tf_correction_mps: float = setting(
        0.5, "publish_tf: speed at which small corrections move the body, in m/s; 0: at once.", min=0.0, max=100.0
    )
    tf_min_confidence: float = setting(
        0.5, "publish_tf: measured MATCHes with a lower confidence than this do not count.", min=0.0, max=1.0
    )
    tf_first_agreeing: int = setting(
        2, "publish_tf: number of answers that must agree on the first pose.", min=1, max=20
    )
    tf_jump_agreeing: int = setting(
        3, "publish_tf: number of answers from different spots that must agree before the pose jumps.", min=2, max=20
    )
    tf_lost_after_s: float = setting(
        5.0,
        "publish_tf: after this many seconds in which images show no place of the map, the "
        "robot is lost and the transform is frozen.",
        min=0.1,
        max=3600.0,
    )
    tf_max_std_m: float = setting(
        1.0,
        "publish_tf: likewise once the standard deviation of the position is above this, in metres.",
        min=0.01,
        max=100.0,
    )
    tf_odom_timeout_s: float = setting(
        1.0, "publish_tf: /diagnostics is an ERROR after this many seconds without odometry.", min=0.05, max=3600.0
    )

    def __post_init__(self) -> None:
        """Refuse a frame without a name."""
        if not self.odom_frame:
            raise ConfigError("odom_frame is empty; name the frame of the odometry, such as odom")
