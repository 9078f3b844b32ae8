"""A pose graph: odometry between keyframes, loop closures as robust factors, optimised by GTSAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError, SimulationError
from effovpr_ros.core.poses import Pose


@dataclass(frozen=True)
class GraphKeyframe:
    """A node of the graph.

    Attributes:
        keyframe_id: as the loop closure detector counts.
        stamp_ns: of its image.
        odom_pose: as the odometry reports it.
    """

    keyframe_id: int
    stamp_ns: int
    odom_pose: Pose


@dataclass(frozen=True)
class ClosureFactor:
    """A loop closure as the detector publishes it.

    Attributes:
        query_id: keyframe id of the newer one.
        match_id: keyframe id of the older one.
        relative_pose: of the query in the match's frame, T_match_query.
        covariance: (6, 6) float64 of `relative_pose`, order x y z roll pitch yaw in m^2 and rad^2 (REP-103).
        confidence: in (0, 1] that both show one place.
        is_metric: the relative pose was measured; else both are at one spot within the covariance.
    """

    query_id: int
    match_id: int
    relative_pose: Pose
    covariance: NDArray[np.float64]
    confidence: float
    is_metric: bool = False


@dataclass(frozen=True)
class GraphConfig:
    """What the graph believes of the odometry and of closures.

    Attributes:
        position_std_m: of the odometry after a metre driven; grows with the square root of the distance. It stands
            for systematic errors too, so it is larger than the scatter alone.
        turn_std_rad: of the odometry's heading after a metre driven; grows likewise.
        min_position_std_m: of the odometry between two keyframes, however near.
        min_turn_std_rad: likewise.
        level_std: of z [m], roll and pitch [rad] between two keyframes: the robot stays on its floor.
        max_prior_error: a closure that is not metric is kept if its error is within so many of its own standard
            deviations. Two are the radius of one place; fewer, since most lie far closer and a wrong one near the rim
            would bend the graph.
        max_metric_error: the same for one that is metric, whose covariance was measured: 99 % of errors in six degrees
            of freedom lie within 4.1.
    """

    position_std_m: float = 0.1
    turn_std_rad: float = 0.02
    min_position_std_m: float = 0.01
    min_turn_std_rad: float = 0.002
    level_std: float = 1e-3
    max_prior_error: float = 1.5
    max_metric_error: float = 4.1

    def __post_init__(self) -> None:
        """Refuse what no noise model can be made of."""
        for entry in fields(self):
            if not getattr(self, entry.name) > 0.0:
                raise ConfigError(f"{entry.name} {getattr(self, entry.name)} is not positive")


@dataclass(frozen=True)
class OptimizedGraph:
    """Where the keyframes are once the loops are closed.

    Attributes:
        poses: one a keyframe, in the odometry frame of the first.
        weights: one a closure, in [0, 1]: how much the robust kernel lets it count at the solution.
    """

    poses: tuple[Pose, ...]
    weights: tuple[float, ...]

    @property
    def accepted(self) -> tuple[bool, ...]:
        """Which closures count: those of weight one half or more."""
        return tuple(weight >= 0.5 for weight in self.weights)


def optimize(
    keyframes: Sequence[GraphKeyframe], closures: Sequence[ClosureFactor], config: GraphConfig | None = None
) -> OptimizedGraph:
    """Close the loops.

    Truncated least squares by graduated non-convexity (Yang et al., "Graduated Non-Convexity for Robust Spatial
    Perception", RA-L 2020): closures that do not agree with the odometry and with each other get the weight 0. The
    odometry is believed throughout.

    Args:
        keyframes: N in driving order, of one odometry track.
        closures: between them.
        config: noise of the odometry and the limit of what is kept.

    Raises:
        SimulationError: GTSAM is not installed, fewer than two keyframes, two of one id, a closure that names a
            keyframe that is not there, or whose confidence or covariance is not positive.
    """
    gtsam = _gtsam()
    settings = config or GraphConfig()
    keys = {keyframe.keyframe_id: key for key, keyframe in enumerate(keyframes)}
    if len(keyframes) < 2 or len(keys) < len(keyframes):
        raise SimulationError(f"a pose graph needs two keyframes or more, each of its own id; got {len(keyframes)}")
    graph, initial = gtsam.NonlinearFactorGraph(), gtsam.Values()
    poses = [_pose3(gtsam, keyframe.odom_pose) for keyframe in keyframes]
    for key, pose in enumerate(poses):
        initial.insert(key, pose)
    graph.add(gtsam.PriorFactorPose3(0, poses[0], gtsam.noiseModel.Isotropic.Sigma(6, 1e-4)))
    for key, (before, after) in enumerate(pairwise(poses)):
        step = before.between(after)
        noise = gtsam.noiseModel.Diagonal.Sigmas(_odometry_stds(float(np.linalg.norm(step.translation())), settings))
        graph.add(gtsam.BetweenFactorPose3(key, key + 1, step, noise))
    steps = graph.size()
    values, weights = initial, tuple[float, ...]()
    if closures:
        selecting = gtsam.NonlinearFactorGraph(graph)
        for closure in closures:
            # GTSAM has one limit for all factors; widening the metric ones gives them their own.
            wider = settings.max_metric_error / settings.max_prior_error if closure.is_metric else 1.0
            selecting.add(_factor(gtsam, closure, keys, closure_covariance(closure) * wider**2))
        parameters = gtsam.GncLMParams()
        parameters.setLossType(gtsam.GncLossType.TLS)
        parameters.setKnownInliers(list(range(steps)))
        optimizer = gtsam.GncLMOptimizer(selecting, initial, parameters)
        # GTSAM's cost is half of the squared Mahalanobis distance.
        optimizer.setInlierCostThresholds(settings.max_prior_error**2 / 2.0)
        values, weights = optimizer.optimize(), tuple(float(weight) for weight in optimizer.getWeights()[steps:])
    for closure, weight in zip(closures, weights, strict=True):
        if weight > 0.0:
            graph.add(_factor(gtsam, closure, keys, closure_covariance(closure) / weight))
    solved = gtsam.LevenbergMarquardtOptimizer(graph, values).optimize()
    return OptimizedGraph(tuple(_pose(solved.atPose3(key)) for key in range(len(keyframes))), weights)


def closure_covariance(closure: ClosureFactor) -> NDArray[np.float64]:
    """Covariance of a closure as GTSAM orders it, widened where the detector is less sure.

    Returns:
        (6, 6) float64, order roll pitch yaw x y z in rad^2 and m^2: the closure's own divided by its confidence.

    Raises:
        SimulationError: the confidence or the covariance is not positive.
    """
    if not 0.0 < closure.confidence <= 1.0:
        raise SimulationError(f"closure {closure.match_id}-{closure.query_id} has the confidence {closure.confidence}")
    order = [3, 4, 5, 0, 1, 2]
    covariance = np.asarray(closure.covariance, np.float64)[np.ix_(order, order)] / closure.confidence
    if not np.isfinite(covariance).all() or not (np.linalg.eigvalsh(covariance) > 0.0).all():
        raise SimulationError(f"closure {closure.match_id}-{closure.query_id} has a covariance that is not positive")
    return covariance


def _odometry_stds(distance_m: float, config: GraphConfig) -> NDArray[np.float64]:
    """(6,) standard deviations of the way between two keyframes, order roll pitch yaw x y z."""
    grown = np.sqrt(distance_m)
    position = float(np.hypot(config.min_position_std_m, config.position_std_m * grown))
    turn = float(np.hypot(config.min_turn_std_rad, config.turn_std_rad * grown))
    return np.array([config.level_std, config.level_std, turn, position, position, config.level_std])


def _factor(gtsam: Any, closure: ClosureFactor, keys: dict[int, int], covariance: NDArray[np.float64]) -> Any:
    match, query = _key(closure.match_id, keys), _key(closure.query_id, keys)
    noise = gtsam.noiseModel.Gaussian.Covariance(covariance)
    return gtsam.BetweenFactorPose3(match, query, _pose3(gtsam, closure.relative_pose), noise)


def _key(keyframe_id: int, keys: dict[int, int]) -> int:
    if keyframe_id not in keys:
        raise SimulationError(f"a closure names keyframe {keyframe_id}, which is not among the {len(keys)} recorded")
    return keys[keyframe_id]


def _gtsam() -> Any:
    try:
        import gtsam
    except ImportError as error:
        raise SimulationError("the pose graph needs GTSAM: pip install gtsam") from error
    return gtsam


def _pose3(gtsam: Any, pose: Pose) -> Any:
    x, y, z, w = pose.known_quat_xyzw
    return gtsam.Pose3(gtsam.Rot3.Quaternion(w, x, y, z), np.array(pose.known_xyz))


def _pose(pose3: Any) -> Pose:
    x, y, z = pose3.translation()
    turn = pose3.rotation().toQuaternion()
    return Pose((x, y, z), (turn.x(), turn.y(), turn.z(), turn.w()))
