"""What a node tells its adapters."""

from __future__ import annotations

from geometry_msgs.msg import PoseWithCovarianceStamped

from effovpr_ros.msg import Keyframe, LoopClosure, PlaceMatch


class Adapter:
    """Passes answers on in another stack's words. A subclass overrides what it needs.

    The hooks may be called from different threads. What an adapter publishes is silent while the node is inactive.
    """

    def on_activate(self) -> None:
        """The node was activated."""

    def on_keyframe(self, keyframe: Keyframe) -> None:
        """A keyframe joined the growing map; comes before the closures that it takes part in."""

    def on_loop_closure(self, closure: LoopClosure) -> None:
        """Two keyframes show one place."""

    def on_odometry(self, stamp_ns: int) -> None:
        """Odometry of that time arrived."""

    def on_match(self, match: PlaceMatch, pose: PoseWithCovarianceStamped | None) -> None:
        """An image was answered.

        Args:
            match: the answer, whatever its status.
            pose: in the map frame; None unless the status is MATCH and the place has a pose.
        """

    def destroy(self) -> None:
        """Withdraw all topics and services."""
