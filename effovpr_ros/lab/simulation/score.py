"""What the demo's answers are worth: each is held against the true pose of its image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.core.errors import SimulationError
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import WITHIN_99, mahalanobis

RIGHT_WITHIN_M = 1.5
RIGHT_WITHIN_DEG = 30.0
OUTSIDE_BEYOND_M = 5.0


@dataclass(frozen=True)
class Answer:
    """The node's answer to one image, beside the truth.

    Attributes:
        stamp_ns: of the image.
        status: MATCH, AMBIGUOUS or NO_MATCH.
        truth: where the camera was.
        best: pose of the best candidate, whatever the status; None without candidates.
        position_error_m: of the best candidate; infinite without one.
        heading_error_deg: of the best candidate; 180 without one.
        mapped: the map has a place that would be a right answer.
        outside: the map's nearest place is farther than 5 m.
        measured: pose that was measured; None where the answer is a prior.
        measured_error_m: of it, horizontal; infinite without one.
        measured_heading_error_deg: of it; 180 without one.
        measured_mahalanobis: squared error of all six degrees of freedom against the foretold covariance; NaN without.
        measured_std_m: foretold standard deviation of the position, all axes together; NaN without.
    """

    stamp_ns: int
    status: str
    truth: Pose
    best: Pose | None
    position_error_m: float
    heading_error_deg: float
    mapped: bool
    outside: bool
    measured: Pose | None = None
    measured_error_m: float = math.inf
    measured_heading_error_deg: float = 180.0
    measured_mahalanobis: float = math.nan
    measured_std_m: float = math.nan

    @property
    def right(self) -> bool:
        """The best candidate is within 1.5 m and 30 degrees of the truth, and so is the pose if one was measured."""
        right = self.position_error_m <= RIGHT_WITHIN_M and self.heading_error_deg <= RIGHT_WITHIN_DEG
        if self.measured is None:
            return right
        return (
            right and self.measured_error_m <= RIGHT_WITHIN_M and (self.measured_heading_error_deg <= RIGHT_WITHIN_DEG)
        )


@dataclass(frozen=True)
class Score:
    """Figures of one replay.

    Attributes:
        frames: images in the bag.
        answered: of them, answered by the node; it drops images that it has no time for.
        matches, ambiguous, no_match: answers by status.
        mapped_frames: answered images on mapped ground (the map has a right answer).
        recall_at_1: of them, the best candidate is right, whatever the status.
        wrong_matches: MATCHes that are not within 1.5 m and 30 degrees of the truth.
        far_matches: of them, those farther than 5 m.
        outside_frames: answered images with no place within 5 m.
        false_matches_outside: of them, answered with MATCH.
        position_error_m: (median, 95th percentile) over MATCHes, of the pose of the best candidate.
        heading_error_deg: likewise.
        measured: MATCHes whose pose was measured.
        measured_error_m: (median, 95th percentile, greatest) of their positions, horizontal.
        measured_heading_error_deg: likewise of their headings.
        measured_std_m: median of the foretold standard deviation of the position.
        measured_inside: share of the errors inside the foretold 99 % ellipsoid.
        latency_ms: (median, 95th percentile) by stage.
    """

    frames: int
    answered: int
    matches: int
    ambiguous: int
    no_match: int
    mapped_frames: int
    recall_at_1: float
    wrong_matches: int
    far_matches: int
    outside_frames: int
    false_matches_outside: int
    position_error_m: tuple[float, float]
    heading_error_deg: tuple[float, float]
    measured: int
    measured_error_m: tuple[float, float, float]
    measured_heading_error_deg: tuple[float, float, float]
    measured_std_m: float
    measured_inside: float
    latency_ms: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def table(self) -> str:
        """For a terminal."""
        wrong = self.wrong_matches / self.matches if self.matches else 0.0
        right = f"{RIGHT_WITHIN_M:g} m and {RIGHT_WITHIN_DEG:g} deg"
        rows = [
            ("frames in the second drive", f"{self.frames}"),
            ("answered by the node", f"{self.answered}"),
            ("MATCH / AMBIGUOUS / NO_MATCH", f"{self.matches} / {self.ambiguous} / {self.no_match}"),
            (f"R@1 on mapped ground ({right})", f"{self.recall_at_1:.3f} of {self.mapped_frames}"),
            (f"wrong MATCHes (not within {right})", f"{self.wrong_matches} ({100.0 * wrong:.1f} %)"),
            (f"  of them farther than {OUTSIDE_BEYOND_M:g} m", f"{self.far_matches}"),
            ("frames outside the mapped part", f"{self.outside_frames}"),
            ("  of them falsely a MATCH", f"{self.false_matches_outside}"),
            ("position error of the place, median / p95", _pair(self.position_error_m, "m", 2)),
            ("heading error of the place, median / p95", _pair(self.heading_error_deg, "deg", 1)),
            ("MATCHes with a measured pose", f"{self.measured}"),
            ("  position error, median / p95 / most", _pair(self.measured_error_m, "m", 3)),
            ("  heading error, median / p95 / most", _pair(self.measured_heading_error_deg, "deg", 2)),
            ("  foretold standard deviation, median", f"{self.measured_std_m:.3f} m"),
            ("  errors inside the foretold 99 % ellipsoid", f"{self.measured_inside:.3f}"),
        ]
        rows += [(f"latency {name}, median / p95", _pair(pair, "ms", 1)) for name, pair in self.latency_ms.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def judge(
    records: Sequence[Mapping[str, Any]], truth: Sequence[tuple[int, Pose]], places: Sequence[Pose]
) -> list[Answer]:
    """Hold recorded answers against the truth.

    Args:
        records: of `replay`, one a line.
        truth: stamp [ns] and pose of each image.
        places: poses of the map's places.

    Raises:
        SimulationError: an answer to an image that the drive does not have.
    """
    by_stamp = dict(truth)
    map_xy = np.array([place.position_xyz[:2] for place in places]).reshape(-1, 2)
    map_yaw = np.array([place.known_yaw_rad for place in places])
    answers = []
    for record in records:
        stamp_ns = int(record["stamp_ns"])
        if stamp_ns not in by_stamp:
            raise SimulationError(f"an answer has the stamp {stamp_ns} ns, which no image of the drive has")
        pose = by_stamp[stamp_ns]
        distance_m, turn_deg = _apart(pose, map_xy, map_yaw)
        candidates = record["candidates"]
        best = None
        if candidates and candidates[0]["pose"] is not None:
            x, y, z, *quat = candidates[0]["pose"]
            best = Pose((x, y, z), (quat[0], quat[1], quat[2], quat[3]))
        error_m, error_deg = pose_error(pose, best)
        measured, foretold = _measured(record)
        measured_m, measured_deg = pose_error(pose, measured)
        answers.append(
            Answer(
                stamp_ns=stamp_ns,
                status=record["status"],
                truth=pose,
                best=best,
                position_error_m=error_m,
                heading_error_deg=error_deg,
                mapped=bool(((distance_m <= RIGHT_WITHIN_M) & (turn_deg <= RIGHT_WITHIN_DEG)).any()),
                outside=bool((distance_m > OUTSIDE_BEYOND_M).all()),
                measured=measured,
                measured_error_m=measured_m,
                measured_heading_error_deg=measured_deg,
                measured_mahalanobis=math.nan if measured is None else mahalanobis(measured, pose, foretold),
                measured_std_m=math.nan if measured is None else float(np.sqrt(np.trace(foretold[:3, :3]))),
            )
        )
    return answers


def score(answers: Sequence[Answer], records: Sequence[Mapping[str, Any]], frames: int) -> Score:
    """Sum up.

    Args:
        answers: of `judge`.
        records: the same answers as recorded, for their latencies.
        frames: images in the bag.
    """
    matches = [answer for answer in answers if answer.status == "MATCH"]
    measured = [answer for answer in matches if answer.measured is not None]
    mapped = [answer for answer in answers if answer.mapped]
    outside = [answer for answer in answers if answer.outside]
    stages = list(records[0]["latency_ms"]) if records else []
    return Score(
        frames=frames,
        answered=len(answers),
        matches=len(matches),
        ambiguous=sum(answer.status == "AMBIGUOUS" for answer in answers),
        no_match=sum(answer.status == "NO_MATCH" for answer in answers),
        mapped_frames=len(mapped),
        recall_at_1=sum(answer.right for answer in mapped) / len(mapped) if mapped else 0.0,
        wrong_matches=sum(not answer.right for answer in matches),
        far_matches=sum(answer.position_error_m > OUTSIDE_BEYOND_M for answer in matches),
        outside_frames=len(outside),
        false_matches_outside=sum(answer.status == "MATCH" for answer in outside),
        position_error_m=_percentiles([answer.position_error_m for answer in matches]),
        heading_error_deg=_percentiles([answer.heading_error_deg for answer in matches]),
        measured=len(measured),
        measured_error_m=_spread([answer.measured_error_m for answer in measured]),
        measured_heading_error_deg=_spread([answer.measured_heading_error_deg for answer in measured]),
        measured_std_m=float(np.median([answer.measured_std_m for answer in measured])) if measured else math.nan,
        measured_inside=float(np.mean([answer.measured_mahalanobis <= WITHIN_99 for answer in measured]))
        if measured
        else math.nan,
        latency_ms={stage: _percentiles([record["latency_ms"][stage] for record in records]) for stage in stages},
    )


def pose_error(truth: Pose, pose: Pose | None) -> tuple[float, float]:
    """Horizontal metres and degrees from the truth; infinite and 180 without a pose."""
    if pose is None:
        return math.inf, 180.0
    distance_m, turn_deg = _apart(truth, np.array([pose.position_xyz[:2]]), np.array([pose.known_yaw_rad]))
    return float(distance_m[0]), float(turn_deg[0])


def _measured(record: Mapping[str, Any]) -> tuple[Pose | None, NDArray[np.float64]]:
    """The measured pose of a recorded answer and its covariance."""
    values = record.get("measured_pose")
    if values is None:
        return None, np.zeros((6, 6))
    x, y, z, *quat = values
    covariance = np.array(record["measured_covariance"], np.float64).reshape(6, 6)
    return Pose((x, y, z), (quat[0], quat[1], quat[2], quat[3])), covariance


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return (math.nan, math.nan, math.nan)
    return (*_percentiles(values), max(values))


def _apart(
    pose: Pose, xy: NDArray[np.float64], yaw: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres and degrees between one pose and many."""
    distance = np.linalg.norm(xy - np.array(pose.position_xyz[:2]), axis=1)
    turn = np.abs((yaw - pose.known_yaw_rad + np.pi) % (2.0 * np.pi) - np.pi)
    return distance, np.degrees(turn)


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return (math.nan, math.nan)
    median, high = np.percentile(values, [50, 95])
    return (float(median), float(high))


def _pair(values: Sequence[float], unit: str, digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values) + f" {unit}"
