"""Wheel odometry that drifts: what a robot believes of a path that it drove."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from effovpr_ros.core.poses import Pose


@dataclass(frozen=True)
class OdometryConfig:
    """Errors of a differential drive on a level floor.

    The systematic ones (a wrong wheel radius, wheels of unequal size) grow with the distance, the random ones (slip)
    with its square root.

    Attributes:
        scale_error: share by which distances are read too long.
        yaw_bias_rad_per_m: turn read for each metre driven that did not happen.
        turn_scale_error: share by which turns are read too large.
        distance_noise_m: standard deviation of the distance after a metre.
        yaw_noise_per_m_rad: standard deviation of the heading after a metre.
        yaw_noise_per_rad_rad: standard deviation of the heading after a turn by one radian.
        seed: of the random errors.
    """

    scale_error: float = 0.015
    yaw_bias_rad_per_m: float = math.radians(0.1)
    turn_scale_error: float = 0.005
    distance_noise_m: float = 0.02
    yaw_noise_per_m_rad: float = math.radians(0.3)
    yaw_noise_per_rad_rad: float = math.radians(0.5)
    seed: int = 1


class DriftingOdometry:
    """Turns true poses into those that the robot's odometry reports, one after the other."""

    def __init__(self, config: OdometryConfig) -> None:
        """Begin; the odometry frame starts where the robot does."""
        self._config = config
        self._generator = np.random.default_rng(config.seed)
        self._before: Pose | None = None
        self._believed = (0.0, 0.0, 0.0)

    def advance(self, true_pose: Pose) -> Pose:
        """The reported pose after the robot has moved to a true one.

        Args:
            true_pose: in the world; x, y and yaw count.

        Returns:
            In the odometry frame; the first is the identity.
        """
        if self._before is not None:
            self._move(self._before, true_pose)
        self._before = true_pose
        return Pose.from_yaw(*self._believed)

    def _move(self, before: Pose, after: Pose) -> None:
        config = self._config
        dx, dy = np.subtract(after.position_xyz[:2], before.position_xyz[:2])
        distance_m = math.hypot(dx, dy)
        turn = math.remainder(after.known_yaw_rad - before.known_yaw_rad, math.tau)
        # Where the step led, seen from the robot half way through its turn, as wheels measure it.
        direction = math.atan2(dy, dx) - before.known_yaw_rad - turn / 2.0 if distance_m > 0.0 else 0.0
        along, slip, twist = self._generator.normal(0.0, 1.0, 3)
        driven_m = distance_m * (1.0 + config.scale_error) + along * config.distance_noise_m * math.sqrt(distance_m)
        turned = (
            turn * (1.0 + config.turn_scale_error)
            + distance_m * config.yaw_bias_rad_per_m
            + slip * config.yaw_noise_per_m_rad * math.sqrt(distance_m)
            + twist * config.yaw_noise_per_rad_rad * math.sqrt(abs(turn))
        )
        x, y, yaw = self._believed
        heading = yaw + turned / 2.0 + direction
        self._believed = (
            x + driven_m * math.cos(heading),
            y + driven_m * math.sin(heading),
            math.remainder(yaw + turned, math.tau),
        )
