"""Settings of the adapters, as parameters of the node that feeds them."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.settings import setting

MATCH_ADAPTERS = ("cuvslam", "nav2", "rtabmap")
"""Adapters of `place_recognizer`."""

LOOP_ADAPTERS = ("lio_sam", "pose_graph")
"""Adapters of `loop_closure_detector`."""


@dataclass(frozen=True)
class MatchAdapterConfig:
    """How `place_recognizer` hands its answers to other stacks; read when it is configured.

    Raises:
        ConfigError: an unknown adapter.
    """

    adapters: str = setting("", f"Adapters to other stacks, comma-separated, of {', '.join(MATCH_ADAPTERS)}.")
    body_frame: str = setting(
        "base_link",
        "Frame of the body whose poses the map holds: the child frame of the pose topic. It is the frame of ~/fix too.",
    )
    initial_pose_confidence: float = setting(
        0.98, "Adapters nav2 and cuvslam: least confidence of a MATCH that is sent.", min=0.0, max=1.0
    )
    initial_pose_period_s: float = setting(
        0.0,
        "Adapters nav2 and cuvslam: seconds after which a pose is sent again; 0: only after re-arming.",
        min=0.0,
        max=86400.0,
    )
    initial_pose_uncalibrated: bool = setting(
        False, "Adapters nav2 and cuvslam: also send a pose whose confidence was not fitted for the settings in use."
    )
    initial_pose_without_heading: bool = setting(
        False, "Adapters nav2 and cuvslam: also send a pose whose heading is unknown, with a yaw of 0."
    )

    def __post_init__(self) -> None:
        """Refuse unknown adapters and a body without a name."""
        check_names(self.names, MATCH_ADAPTERS)
        if not self.body_frame:
            raise ConfigError("body_frame is empty; name the frame whose poses the map holds, such as base_link")

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that are wanted."""
        return split_names(self.adapters)


@dataclass(frozen=True)
class LoopAdapterConfig:
    """How `loop_closure_detector` hands its closures to other stacks; read when it is configured.

    Raises:
        ConfigError: an unknown adapter.
    """

    adapters: str = setting("", f"Adapters to other stacks, comma-separated, of {', '.join(LOOP_ADAPTERS)}.")
    robot_id: int = setting(0, "Adapter pose_graph: this robot's number.", min=0, max=2**31 - 1)
    pose_graph_priors: bool = setting(
        False, "Adapter pose_graph: also pass on closures whose relative pose was not measured, but is a prior."
    )

    def __post_init__(self) -> None:
        """Refuse unknown adapters."""
        check_names(self.names, LOOP_ADAPTERS)

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that are wanted."""
        return split_names(self.adapters)


def split_names(text: str) -> tuple[str, ...]:
    """Names between commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def check_names(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuse names that are not known.

    Raises:
        ConfigError: names them and the known ones.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"adapters {', '.join(map(repr, unknown))} are unknown to this node; use {', '.join(known)}")
