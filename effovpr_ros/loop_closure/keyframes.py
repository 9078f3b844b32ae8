"""Which images become keyframes, what the odometry is worth, and what went wrong with either. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

from effovpr_ros.core.poses import Pose
from effovpr_ros.loop_closure.loop_config import LoopConfig


class Condition(IntEnum):
    """State of the inputs at one image. docs/loop_closure.md says what each leads to.

    NORMAL: odometry and time are as they should be.
    NO_ODOMETRY: none was heard in this run yet; keyframes by time.
    ODOMETRY_LATE: none for this image, for less than `odometry_timeout_s`; no keyframe yet.
    ODOMETRY_LOST: none for longer; keyframes by time, without pose.
    ODOMETRY_JUMPED: it moved or turned faster than it can; a new track begins.
    CLOCK_BACKWARDS: the stamp is before the last one; a new track begins.
    CAMERA_FROZEN: the robot moved but the image is the last one again; no keyframe.
    IMAGE_REPEATED: the image is the last one again, and nothing says that the robot moved; no keyframe.
    IMAGE_OUT_OF_ORDER: the stamp is before the last one by no more than `reorder_s`; the image is ignored.
    """

    NORMAL = 0
    NO_ODOMETRY = 1
    ODOMETRY_LATE = 2
    ODOMETRY_LOST = 3
    ODOMETRY_JUMPED = 4
    CLOCK_BACKWARDS = 5
    CAMERA_FROZEN = 6
    IMAGE_REPEATED = 7
    IMAGE_OUT_OF_ORDER = 8


@dataclass(frozen=True)
class OdometrySample:
    """An image as far as keyframes are concerned.

    Attributes:
        stamp_ns: of the image.
        odometry: pose of the robot at that time; None if unknown.
    """

    stamp_ns: int
    odometry: Pose | None


@dataclass(frozen=True)
class Progress:
    """What is known of the run after some images.

    Attributes:
        last: the last image, keyframe or not; None before the first.
        last_posed: the last image with odometry; None before the first of the track.
        keyframe: the last keyframe; None before the first of the track.
        posed_keyframe: the last keyframe with odometry; None before the first of the track.
        elapsed_ns: time since the run's first image, by steps of the stamps that went forward.
        distance_m: driven by odometry from keyframe to keyframe of one track; what a jump moved is left out.
        track: number of the track, from 0; poses of two tracks do not relate.
        had_odometry: whether the run ever had odometry.
    """

    last: OdometrySample | None = None
    last_posed: OdometrySample | None = None
    keyframe: OdometrySample | None = None
    posed_keyframe: OdometrySample | None = None
    elapsed_ns: int = 0
    distance_m: float = 0.0
    track: int = 0
    had_odometry: bool = False


@dataclass(frozen=True)
class Observation:
    """What one image changes.

    Attributes:
        progress: after the image, which is not yet a keyframe.
        condition: of the inputs.
        wanted: whether it should become a keyframe.
        moved: whether odometry alone, by distance or angle, asks for the keyframe.
    """

    progress: Progress
    condition: Condition
    wanted: bool
    moved: bool


def observe(progress: Progress, sample: OdometrySample, config: LoopConfig) -> Observation:
    """Judge the next image of a run.

    Args:
        progress: before the image.
        sample: the image.
        config: rules.
    """
    condition = _condition(progress, sample, config)
    if condition is Condition.IMAGE_OUT_OF_ORDER:
        return Observation(progress, condition, wanted=False, moved=False)
    if condition in (Condition.ODOMETRY_JUMPED, Condition.CLOCK_BACKWARDS):
        progress = replace(progress, last_posed=None, keyframe=None, posed_keyframe=None, track=progress.track + 1)
    if progress.last is not None:
        forward_ns = max(0, sample.stamp_ns - progress.last.stamp_ns)
        progress = replace(progress, elapsed_ns=progress.elapsed_ns + forward_ns)
    moved = _has_moved(progress.posed_keyframe, sample, config)
    progress = replace(progress, last=sample)
    if sample.odometry is not None:
        progress = replace(progress, last_posed=sample, had_odometry=True)
    return Observation(progress, condition, moved or _is_due(progress, sample, condition, config), moved)


def take(progress: Progress, sample: OdometrySample) -> Progress:
    """What is known after an observed image has become a keyframe."""
    if sample.odometry is None:
        return replace(progress, keyframe=sample)
    return replace(
        progress, keyframe=sample, posed_keyframe=sample, distance_m=distance_with(progress, sample.odometry)
    )


def distance_with(progress: Progress, odometry: Pose | None) -> float:
    """Metres driven since the run's first keyframe, up to a pose of the running track."""
    before = progress.posed_keyframe
    if before is None or before.odometry is None or odometry is None:
        return progress.distance_m
    return progress.distance_m + before.odometry.distance_m(odometry)


def turned_deg(a: Pose, b: Pose) -> float:
    """Angle of the rotation between two orientations in degrees, in [0, 180]; 0 where odometry gives none."""
    return math.degrees(a.turn_rad(b) or 0.0)


def _condition(progress: Progress, sample: OdometrySample, config: LoopConfig) -> Condition:
    if progress.last is not None and sample.stamp_ns < progress.last.stamp_ns:
        back_s = (progress.last.stamp_ns - sample.stamp_ns) * 1e-9
        return Condition.IMAGE_OUT_OF_ORDER if back_s <= config.reorder_s else Condition.CLOCK_BACKWARDS
    if sample.odometry is None:
        if not progress.had_odometry:
            return Condition.NO_ODOMETRY
        posed = progress.last_posed
        missing_s = math.inf if posed is None else (sample.stamp_ns - posed.stamp_ns) * 1e-9
        return Condition.ODOMETRY_LATE if missing_s < config.odometry_timeout_s else Condition.ODOMETRY_LOST
    if _has_jumped(progress.last_posed, sample, config):
        return Condition.ODOMETRY_JUMPED
    return Condition.NORMAL


def _has_jumped(before: OdometrySample | None, now: OdometrySample, config: LoopConfig) -> bool:
    if before is None or before.odometry is None or now.odometry is None:
        return False
    passed_s = (now.stamp_ns - before.stamp_ns) * 1e-9
    moved_m = before.odometry.distance_m(now.odometry)
    if moved_m > config.jump_margin_m + config.max_speed_m_s * passed_s:
        return True
    # A turn of up to half a circle is no jump after long enough, and small ones never are.
    turn = turned_deg(before.odometry, now.odometry)
    return turn > config.keyframe_angle_deg + config.max_turn_rate_deg_s * passed_s


def _has_moved(before: OdometrySample | None, now: OdometrySample, config: LoopConfig) -> bool:
    if before is None or before.odometry is None or now.odometry is None:
        return False
    moved_m = before.odometry.distance_m(now.odometry)
    return moved_m >= config.keyframe_distance_m or turned_deg(before.odometry, now.odometry) >= (
        config.keyframe_angle_deg
    )


def _is_due(progress: Progress, sample: OdometrySample, condition: Condition, config: LoopConfig) -> bool:
    """Whether the image must be a keyframe for another reason than movement."""
    if condition is Condition.ODOMETRY_LATE:
        return False
    if progress.keyframe is None or (sample.odometry is not None and progress.posed_keyframe is None):
        return True
    if sample.odometry is not None and config.keyframe_period_s == 0.0:
        return False
    return (sample.stamp_ns - progress.keyframe.stamp_ns) * 1e-9 >= config.keyframe_period_s
