"""What closed loops are worth: trajectory errors before and after, and closures held against the truth."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.simulation.pose_graph import ClosureFactor, GraphKeyframe, OptimizedGraph

SAME_PLACE_M = 5.0
SAME_HEADING_DEG = 45.0


@dataclass(frozen=True)
class TrajectoryError:
    """Absolute trajectory error: root mean square of the distances to the true positions.

    Attributes:
        aligned_m: after the rigid motion that fits best (Umeyama, without scale), the usual figure.
        from_start_m: after laying the first pose on the true one, as a robot sees it whose map begins there.
    """

    aligned_m: float
    from_start_m: float


@dataclass(frozen=True)
class JudgedClosure:
    """A closure beside the truth.

    Attributes:
        query: number of the newer keyframe in driving order.
        match: number of the older one.
        distance_m: between the two in truth, or, for a metric closure, between measured and true position.
        heading_error_deg: between the measured and the true turn.
        accepted: the pose graph let it count.
    """

    query: int
    match: int
    distance_m: float
    heading_error_deg: float
    accepted: bool

    @property
    def right(self) -> bool:
        """The two keyframes show one place: within 5 m and 45 degrees."""
        return self.distance_m <= SAME_PLACE_M and self.heading_error_deg <= SAME_HEADING_DEG


@dataclass(frozen=True)
class SlamScore:
    """Figures of one drive.

    Attributes:
        keyframes: made by the detector.
        distance_m: driven in truth, along the keyframes.
        closures: found by the detector.
        wrong_closures: of them, between keyframes that do not show one place.
        rejected_closures: of all, those that the graph gave no weight.
        wrong_accepted: wrong ones that it let count.
        closure_distance_m: median and 95th percentile of `JudgedClosure.distance_m`.
        ate_before_m: of the odometry, aligned; see `TrajectoryError`.
        ate_after_m: of the optimised keyframes, aligned.
        ate_from_start_before_m: of the odometry, from the start.
        ate_from_start_after_m: of the optimised keyframes, from the start.
    """

    keyframes: int
    distance_m: float
    closures: int
    wrong_closures: int
    rejected_closures: int
    wrong_accepted: int
    closure_distance_m: tuple[float, float]
    ate_before_m: float
    ate_after_m: float
    ate_from_start_before_m: float
    ate_from_start_after_m: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is unknown is null."""
        values = asdict(self)
        values["closure_distance_m"] = [None if math.isnan(value) else value for value in self.closure_distance_m]
        return values

    def table(self) -> str:
        """For a terminal."""
        median, high = self.closure_distance_m
        rows = [
            ("keyframes, distance driven", f"{self.keyframes}, {self.distance_m:.0f} m"),
            ("loop closures found by the node", f"{self.closures}"),
            (f"  of them wrong (not within {SAME_PLACE_M:g} m and {SAME_HEADING_DEG:g} deg)", f"{self.wrong_closures}"),
            ("  rejected by the pose graph", f"{self.rejected_closures}"),
            ("  wrong and accepted by the pose graph", f"{self.wrong_accepted}"),
            ("  true distance, median / p95", f"{median:.2f} / {high:.2f} m"),
            ("trajectory error before, after", _pair(self.ate_before_m, self.ate_after_m)),
            ("  with both starts in one place", _pair(self.ate_from_start_before_m, self.ate_from_start_after_m)),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def read_keyframes(path: Path) -> list[GraphKeyframe]:
    """Keyframes as `loop_replay` recorded them.

    Raises:
        SimulationError: unreadable, or a keyframe without odometry, which a pose graph cannot use.
    """
    keyframes = []
    for record in _records(path):
        if record["odom_pose"] is None:
            raise SimulationError(f"keyframe {record['keyframe_id']} in {path} has no odometry pose")
        keyframes.append(GraphKeyframe(record["keyframe_id"], record["stamp_ns"], _pose(record["odom_pose"])))
    return keyframes


def read_closures(path: Path) -> list[ClosureFactor]:
    """Closures as `loop_replay` recorded them.

    Raises:
        SimulationError: unreadable.
    """
    return [
        ClosureFactor(
            query_id=record["query_id"],
            match_id=record["match_id"],
            relative_pose=_pose(record["relative_pose"]),
            covariance=np.array(record["covariance"], np.float64).reshape(6, 6),
            confidence=record["confidence"],
            is_metric=record["is_metric"],
        )
        for record in _records(path)
    ]


def trajectory_error(truth: Sequence[Pose], estimate: Sequence[Pose]) -> TrajectoryError:
    """Absolute trajectory error by `evo`.

    Args:
        truth: N true poses.
        estimate: N poses of the same moments, in any frame.

    Raises:
        SimulationError: evo is not installed, the two differ in length, or all poses lie on one line.
    """
    evo = _evo()
    errors = []
    for from_start in (False, True):
        metric = evo.APE(evo.PoseRelation.translation_part)
        metric.process_data((_path(truth), _aligned(truth, estimate, from_start=from_start)))
        errors.append(float(metric.get_statistic(evo.StatisticsType.rmse)))
    return TrajectoryError(*errors)


def aligned_positions(truth: Sequence[Pose], estimate: Sequence[Pose]) -> NDArray[np.float64]:
    """(N, 3) positions of an estimate [m] after the rigid motion that fits it best to the truth; for drawing.

    Raises:
        SimulationError: see `trajectory_error`.
    """
    return np.asarray(_aligned(truth, estimate, from_start=False).positions_xyz, np.float64)


def judge_closures(
    keyframes: Sequence[GraphKeyframe],
    closures: Sequence[ClosureFactor],
    accepted: Sequence[bool],
    truth: Sequence[Pose],
) -> list[JudgedClosure]:
    """Hold closures against the truth.

    Args:
        keyframes: N in driving order.
        closures: between them.
        accepted: one a closure.
        truth: N true poses.
    """
    numbers = {keyframe.keyframe_id: number for number, keyframe in enumerate(keyframes)}
    judged = []
    for closure, counts in zip(closures, accepted, strict=True):
        query, match = numbers[closure.query_id], numbers[closure.match_id]
        dx, dy = np.subtract(truth[query].position_xyz[:2], truth[match].position_xyz[:2])
        yaw = truth[match].known_yaw_rad
        true_xy = (dx * math.cos(yaw) + dy * math.sin(yaw), dy * math.cos(yaw) - dx * math.sin(yaw))
        measured_xy = closure.relative_pose.position_xyz[:2] if closure.is_metric else (0.0, 0.0)
        turn = math.remainder(truth[query].known_yaw_rad - yaw - closure.relative_pose.known_yaw_rad, math.tau)
        judged.append(
            JudgedClosure(query, match, math.dist(true_xy, measured_xy), abs(math.degrees(turn)), bool(counts))
        )
    return judged


def score_slam(
    keyframes: Sequence[GraphKeyframe],
    optimized: OptimizedGraph,
    judged: Sequence[JudgedClosure],
    truth: Sequence[Pose],
) -> SlamScore:
    """Sum up.

    Args:
        keyframes: N in driving order.
        optimized: of them.
        judged: the closures.
        truth: N true poses.
    """
    before = trajectory_error(truth, [keyframe.odom_pose for keyframe in keyframes])
    after = trajectory_error(truth, optimized.poses)
    distances = [closure.distance_m for closure in judged]
    median, high = np.percentile(distances, [50, 95]).tolist() if distances else (math.nan, math.nan)
    return SlamScore(
        keyframes=len(keyframes),
        distance_m=float(np.linalg.norm(np.diff(_positions(truth), axis=0), axis=1).sum()),
        closures=len(judged),
        wrong_closures=sum(not closure.right for closure in judged),
        rejected_closures=sum(not closure.accepted for closure in judged),
        wrong_accepted=sum(closure.accepted and not closure.right for closure in judged),
        closure_distance_m=(median, high),
        ate_before_m=before.aligned_m,
        ate_after_m=after.aligned_m,
        ate_from_start_before_m=before.from_start_m,
        ate_from_start_after_m=after.from_start_m,
    )


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise SimulationError(f"{path} cannot be read: {error}; replay the drive again") from error


def _pose(values: Sequence[float]) -> Pose:
    x, y, z, qx, qy, qz, qw = values
    return Pose((x, y, z), (qx, qy, qz, qw))


def _aligned(truth: Sequence[Pose], estimate: Sequence[Pose], *, from_start: bool) -> Any:
    """The estimate as a path of evo, laid on the truth."""
    if len(truth) != len(estimate):
        raise SimulationError(f"{len(estimate)} poses cannot be held against {len(truth)} true ones")
    reference, path = _path(truth), _path(estimate)
    if from_start:
        path.align_origin(reference)
        return path
    try:
        path.align(reference)
    except _evo().GeometryException as error:
        raise SimulationError(f"{len(truth)} poses on one line cannot be aligned: {error}; drive a curve") from error
    return path


def _path(poses: Sequence[Pose]) -> Any:
    quats_wxyz = np.array([pose.known_quat_xyzw for pose in poses])[:, [3, 0, 1, 2]]
    return _evo().PosePath3D(_positions(poses), quats_wxyz)


def _evo() -> Any:
    try:
        from evo.core import geometry, metrics, trajectory
    except ImportError as error:
        raise SimulationError("trajectory errors need evo: pip install evo") from error
    return SimpleNamespace(
        APE=metrics.APE,
        PoseRelation=metrics.PoseRelation,
        StatisticsType=metrics.StatisticsType,
        PosePath3D=trajectory.PosePath3D,
        GeometryException=geometry.GeometryException,
    )


def _positions(poses: Sequence[Pose]) -> NDArray[np.float64]:
    return np.array([pose.known_xyz for pose in poses], np.float64).reshape(-1, 3)


def _pair(before: float, after: float) -> str:
    return f"{before:.2f} m, {after:.2f} m"
