"""Adapters by their names."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.lifecycle import LifecycleNode

from effovpr_ros.nodes.adapters.adapter_config import (
    LOOP_ADAPTERS,
    MATCH_ADAPTERS,
    LoopAdapterConfig,
    MatchAdapterConfig,
    check_names,
)
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.adapters.initial_pose import CuvslamAdapter, Nav2Adapter
from effovpr_ros.nodes.adapters.lio_sam import LioSamAdapter
from effovpr_ros.nodes.adapters.pose_graph import PoseGraphAdapter
from effovpr_ros.nodes.adapters.rtabmap import RtabmapAdapter

_CLASSES = {
    "cuvslam": CuvslamAdapter,
    "lio_sam": LioSamAdapter,
    "nav2": Nav2Adapter,
    "pose_graph": PoseGraphAdapter,
    "rtabmap": RtabmapAdapter,
}


def make_adapters(
    node: LifecycleNode, names: Sequence[str], config: MatchAdapterConfig | LoopAdapterConfig
) -> list[Adapter]:
    """Make and advertise adapters; call it while the node is configured.

    Args:
        node: that feeds them.
        names: of the wanted adapters, usually `config.names`.
        config: its type says which names this node knows.

    Raises:
        ConfigError: an unknown name, or a message package that is not installed; nothing is left advertised.
    """
    check_names(tuple(names), MATCH_ADAPTERS if isinstance(config, MatchAdapterConfig) else LOOP_ADAPTERS)
    made: list[Adapter] = []
    try:
        for name in names:
            made.append(_CLASSES[name](node, config))
    except Exception:
        for adapter in made:
            adapter.destroy()
        raise
    return made
