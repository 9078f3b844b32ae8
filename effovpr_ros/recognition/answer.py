"""What a query is asked with, and what it is answered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.measured_pose import PoseMeasurement
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.decision import DecidedBy, Status
from effovpr_ros.recognition.latency import Latency
from effovpr_ros.recognition.third_stage import Verified


@dataclass(frozen=True)
class Hint:
    """Where the camera is believed to be; candidates elsewhere are not considered.

    Attributes:
        position_xyz: metres in the map frame. Height is not compared: hints drawn on a 2-D map have none.
        radius_m: horizontal.
    """

    position_xyz: tuple[float, float, float]
    radius_m: float

    def __post_init__(self) -> None:
        """Refuse what no place could be compared with."""
        if not all(math.isfinite(value) for value in self.position_xyz):
            raise ConfigError(f"hint position {self.position_xyz} is not finite")
        if not self.radius_m > 0.0:
            raise ConfigError(f"hint radius {self.radius_m} m is not positive")


@dataclass(frozen=True)
class Recognition:
    """Answer to one query image.

    Attributes:
        status: NO_MATCH, AMBIGUOUS or MATCH.
        confidence: in [0, 1]; see `Decision`.
        candidates: best first.
        pose: of the body in the map frame: measured where `is_metric`, else that of the best candidate, a prior. None
            for NO_MATCH or if unknown or in a frame of its session's own.
        covariance: (6, 6) float64 of `pose`, order x y z roll pitch yaw in m^2 and rad^2; None without a
            pose.
        geo: the measured pose in WGS84 if the map has a datum; else the geo-tag of the best candidate, or its pose in
            WGS84; None for NO_MATCH or if unknown.
        bearing_offset: fraction of the image width, positive if the query sees the scene further right than
            the best candidate; None for NO_MATCH or if not re-ranked.
        latency_ms: by stage.
        reason: the figures behind the status.
        features: of the query.
        decided_by: whether the status rests on this image alone or on the sequence.
        calibrated: whether the confidence is a probability that was fitted for this model and these settings.
        verified: points that the query shares with candidates; None where the third stage did not run.
        measurement: of the pose, or why there is none; None where that was not asked: of a MATCH it is,
            of an AMBIGUOUS by `doubtful_pose`.
        camera: of the query, as it was given.
    """

    status: Status
    confidence: float
    candidates: tuple[Candidate, ...]
    pose: Pose | None
    covariance: NDArray[np.float64] | None
    geo: GeoPoint | None
    bearing_offset: float | None
    latency_ms: Latency
    reason: str
    features: Features
    decided_by: DecidedBy = DecidedBy.SINGLE_IMAGE
    calibrated: bool = False
    verified: Verified | None = None
    measurement: PoseMeasurement | None = None
    camera: MountedCamera | None = None

    @property
    def is_metric(self) -> bool:
        """Whether the pose was measured."""
        return self.measurement is not None and self.measurement.is_measured and self.pose is not None

    @property
    def place(self) -> Place | None:
        """The place that the image shows, sure or not; None for NO_MATCH."""
        return None if self.status is Status.NO_MATCH or not self.candidates else self.candidates[0].place
