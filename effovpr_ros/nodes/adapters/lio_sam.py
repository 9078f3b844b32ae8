"""LIO-SAM: pairs of times for its external loop closures."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float64MultiArray

from effovpr_ros.msg import Keyframe, LoopClosure
from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig
from effovpr_ros.nodes.adapters.base import Adapter
from effovpr_ros.nodes.adapters.current_run import CurrentRun
from effovpr_ros.nodes.conversions import ns_from_time
from effovpr_ros.nodes.outputs import RESULT_QOS

TOPIC = "lio_loop/loop_closure_detection"


class LioSamAdapter(Adapter):
    """Publishes [newer, older] in seconds; LIO-SAM finds its keyframes by them and aligns their scans itself."""

    def __init__(self, node: LifecycleNode, config: LoopAdapterConfig) -> None:
        """Advertise."""
        self._node = node
        self._publisher = node.create_lifecycle_publisher(Float64MultiArray, TOPIC, RESULT_QOS)
        self._run = CurrentRun()

    def on_keyframe(self, keyframe: Keyframe) -> None:
        """Follow the run."""
        self._run.add(keyframe)

    def on_loop_closure(self, closure: LoopClosure) -> None:
        """Pass on closures within this run."""
        if not self._run.holds(closure):
            self._node.get_logger().info(
                "lio_sam: closures with earlier sessions are left out", throttle_duration_sec=60.0
            )
            return
        stamps_s = [ns_from_time(stamp) * 1e-9 for stamp in (closure.query_stamp, closure.match_stamp)]
        self._publisher.publish(Float64MultiArray(data=stamps_s))

    def destroy(self) -> None:
        """Withdraw the topic."""
        self._node.destroy_lifecycle_publisher(self._publisher)
