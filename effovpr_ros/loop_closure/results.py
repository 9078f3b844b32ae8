"""What the loop closure detector answers; fields as in Keyframe.msg and LoopClosure.msg."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.poses import Pose
from effovpr_ros.features.image_features import Features
from effovpr_ros.loop_closure.closure_pose import NOT_ASKED, ClosurePose
from effovpr_ros.loop_closure.keyframes import Condition
from effovpr_ros.recognition.recognizer import DecidedBy, Recognition


@dataclass(frozen=True)
class Keyframe:
    """An image in the growing map.

    Attributes:
        keyframe_id: id of its place in the map; never used again, whatever is forgotten.
        stamp_ns: of the image.
        session: that it belongs to.
        odom_pose: of the odometry's child frame at the stamp; None if unknown or of another track.
        distance_m: driven since the run's first keyframe; 0 without odometry, and for keyframes of another run.
    """

    keyframe_id: int
    stamp_ns: int
    session: str
    odom_pose: Pose | None
    distance_m: float


@dataclass(frozen=True)
class LoopClosure:
    """Two keyframes that show one place, decided as MATCH.

    Attributes:
        query: the newer one.
        match: the older one.
        confidence: in [0, 1].
        calibrated: whether the confidence is a fitted probability.
        decided_by: the image alone or the sequence.
        similarity: cosine of the global descriptors; of the match, as are the next three.
        num_matches: mutual nearest neighbours above T2.
        num_consistent: of them, those that agree on one displacement.
        score: of re-ranking.
        bearing_offset: fraction of the image width; see `Recognition`.
        pose: of the query relative to the match, or why it was not measured.
    """

    query: Keyframe
    match: Keyframe
    confidence: float
    calibrated: bool
    decided_by: DecidedBy
    similarity: float
    num_matches: int
    num_consistent: int
    score: float
    bearing_offset: float | None
    pose: ClosurePose = NOT_ASKED

    @property
    def has_odom_poses(self) -> bool:
        """Whether both keyframes have an odometry pose of one track, so that the two relate."""
        return self.query.odom_pose is not None and self.match.odom_pose is not None


@dataclass(frozen=True)
class RefusedClosure:
    """A closure that was decided as MATCH and is not believed.

    Attributes:
        closure: that was found.
        reason: what contradicts it, for people.
    """

    closure: LoopClosure
    reason: str


@dataclass(frozen=True)
class LoopResult:
    """What one image led to.

    Attributes:
        condition: of the inputs.
        keyframe: that the image became; None if it was refused (frozen camera, repeated image, out of order).
        closure: the loop that it closes; None if it closes none.
        refused: a loop that it seems to close, but that the odometry contradicts, or whose relative pose must be
            measured and is not; None if there is none.
        recognition: among the keyframes that may close a loop; None without keyframe.
        features: of the image; None without keyframe.
        insert_ms: time to store and index the keyframe, its JPEG and forgetting included; 0 without keyframe.
    """

    condition: Condition
    keyframe: Keyframe | None = None
    closure: LoopClosure | None = None
    recognition: Recognition | None = None
    features: Features | None = None
    insert_ms: float = 0.0
    refused: RefusedClosure | None = None
