"""Poses and fixes by time: interpolated between neighbours, refused where there are none near."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from effovpr_ros.core.errors import SourceError, TrajectoryError
from effovpr_ros.core.geodesy import origin_of
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.core.transforms import slerp

_DIGITS = {"nanoseconds": 0, "microseconds": 3, "milliseconds": 6, "seconds": 9}
_LEAST = {"nanoseconds": 1e17, "microseconds": 1e14, "milliseconds": 1e11, "seconds": -math.inf}
_PLAIN_STAMP = re.compile(r"(\d+)(?:\.(\d*))?", re.ASCII)
_ANY_STAMP = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class _Timeline:
    """Sorted stamps and the two neighbours of any time."""

    def __init__(self, stamps_ns: Sequence[int]) -> None:
        if not len(stamps_ns):
            raise TrajectoryError("the trajectory is empty; check the pose topic or file")
        self.order: list[int] = np.argsort(np.asarray(stamps_ns, np.int64), kind="stable").tolist()
        self.stamps_ns = np.asarray(stamps_ns, np.int64)[self.order]

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last stamp."""
        return int(self.stamps_ns[0]), int(self.stamps_ns[-1])

    def around(self, stamp_ns: int, max_gap_ns: int) -> tuple[int, int, float]:
        """Indices before and after a time and the fraction of the way between them.

        Raises:
            TrajectoryError: outside the trajectory, or in a gap.
        """
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if after < len(self.stamps_ns) and self.stamps_ns[after] == stamp_ns:
            return after, after, 0.0
        if after in (0, len(self.stamps_ns)):
            nearest = int(self.stamps_ns[0 if after == 0 else -1])
            raise TrajectoryError(
                f"time {stamp_ns * 1e-9:.3f} s is outside the trajectory, {abs(stamp_ns - nearest) * 1e-9:.3f} s "
                f"{'before its start' if after == 0 else 'after its end'}"
            )
        gap_ns = int(self.stamps_ns[after] - self.stamps_ns[after - 1])
        if gap_ns > max_gap_ns:
            raise TrajectoryError(
                f"time {stamp_ns * 1e-9:.3f} s lies in a gap of {gap_ns * 1e-9:.3f} s in the trajectory, longer than "
                f"the {max_gap_ns * 1e-9:.3f} s allowed"
            )
        return after - 1, after, (stamp_ns - int(self.stamps_ns[after - 1])) / gap_ns


class Trajectory:
    """Poses by time."""

    def __init__(self, stamps_ns: Sequence[int], poses: Sequence[Pose]) -> None:
        """Sort poses by time.

        Args:
            stamps_ns: N times in nanoseconds, in any order.
            poses: N poses in one frame.

        Raises:
            TrajectoryError: none at all.
        """
        self._timeline = _Timeline(stamps_ns)
        self._poses = [poses[i] for i in self._timeline.order]

    def __len__(self) -> int:
        """Number of poses."""
        return len(self._poses)

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last stamp."""
        return self._timeline.span_ns

    def at(self, stamp_ns: int, max_gap_ns: int) -> Pose:
        """Pose at a time: positions linearly, orientations along the shortest arc (slerp).

        Raises:
            TrajectoryError: outside the trajectory, or between poses further apart than `max_gap_ns`.
        """
        before, after, fraction = self._timeline.around(stamp_ns, max_gap_ns)
        a, b = self._poses[before], self._poses[after]
        if before == after:
            return a
        (ax, ay, az), (bx, by, bz) = a.position_xyz, b.position_xyz
        turned = slerp(a.quat_xyzw, b.quat_xyzw, fraction) if a.quat_xyzw and b.quat_xyzw else None
        return Pose((_lerp(ax, bx, fraction), _lerp(ay, by, fraction), _lerp_known(az, bz, fraction)), turned)


class GeoTrajectory:
    """GNSS fixes by time."""

    def __init__(self, stamps_ns: Sequence[int], fixes: Sequence[GeoPoint]) -> None:
        """Sort fixes by time; see `Trajectory`."""
        self._timeline = _Timeline(stamps_ns)
        self._fixes = [fixes[i] for i in self._timeline.order]

    @property
    def origin(self) -> GeoPoint:
        """The earliest fix, as high as the earliest one whose altitude is known."""
        return origin_of(self._fixes)

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last stamp."""
        return self._timeline.span_ns

    def at(self, stamp_ns: int, max_gap_ns: int) -> GeoPoint:
        """Position at a time, linear in degrees, across the 180th meridian too.

        Raises:
            TrajectoryError: see `Trajectory.at`.
        """
        before, after, fraction = self._timeline.around(stamp_ns, max_gap_ns)
        a, b = self._fixes[before], self._fixes[after]
        turn_deg = math.remainder(b.longitude_deg - a.longitude_deg, 360.0)
        return GeoPoint(
            a.latitude_deg + fraction * (b.latitude_deg - a.latitude_deg),
            math.remainder(a.longitude_deg + fraction * turn_deg, 360.0),
            _lerp_known(a.altitude_m, b.altitude_m, fraction),
        )


def read_tum(path: Path) -> tuple[Trajectory, list[str]]:
    """Read a TUM trajectory: lines of `stamp x y z qx qy qz qw`, # for comments; for stamps see `stamp_to_ns`.

    Returns:
        The trajectory and one line for each line of the file that was refused.

    Raises:
        SourceError: unreadable, or no line has that form.
        TrajectoryError: no usable pose.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"trajectory {path} cannot be read: {error}") from error
    stamps_ns, poses, refused = [], [], []
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].split()
        if not text:
            continue
        try:
            stamp_ns = stamp_to_ns(text[0])
            x, y, z, qx, qy, qz, qw = (float(value) for value in text[1:])
            poses.append(Pose((x, y, z), (qx, qy, qz, qw)))
            stamps_ns.append(stamp_ns)
        except TrajectoryError as error:
            refused.append(f"{path.name}, line {number}: {error}")
        except ValueError as error:
            refused.append(f"{path.name}, line {number}: wanted `stamp x y z qx qy qz qw`, found {line!r} ({error})")
    if refused and not poses:
        raise SourceError(f"{path} has no usable pose; {refused[0]}")
    return Trajectory(stamps_ns, poses), refused


def write_tum(path: Path, poses: Iterable[tuple[int, Pose]]) -> None:
    """Write stamps [ns] and poses as a TUM trajectory; see `read_tum`.

    Raises:
        SourceError: not writable.
        TrajectoryError: a height or an orientation is unknown, which the format cannot say.
    """
    lines = []
    for stamp_ns, pose in poses:
        numbers = " ".join(f"{value:.9f}" for value in (*pose.known_xyz, *pose.known_quat_xyzw))
        lines.append(f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d} {numbers}\n")
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise SourceError(f"trajectory {path} cannot be written: {error}") from error


def stamp_to_ns(text: str, unit: str = "") -> int:
    """A stamp in decimal notation to nanoseconds, exactly.

    Args:
        text: the stamp.
        unit: seconds, milliseconds, microseconds or nanoseconds; empty: by its size. Seconds of this age have ten
            digits before the point, so 13 and more are milliseconds, 16 microseconds and 19 nanoseconds.

    Raises:
        ValueError: no finite number, negative, or beyond the year 2262 that 64 bits of nanoseconds reach.
    """
    text = text.strip()
    digits = _DIGITS[unit or stamp_unit(text) or "seconds"]
    plain = _PLAIN_STAMP.fullmatch(text)
    stamp_ns: int
    if plain:
        stamp_ns = int(plain[1]) * 10**digits + int(f"{plain[2] or '':0<9}"[:digits] or "0")
    else:
        value = float(text) if _ANY_STAMP.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise ValueError(f"stamp {text!r} is no finite number")
        stamp_ns = round(value * 10**digits)
    if not 0 <= stamp_ns < 2**63:
        raise ValueError(f"stamp {text!r} is negative or beyond the year 2262")
    return stamp_ns


def stamp_unit(text: str) -> str:
    """Unit that the size of a stamp tells, see `stamp_to_ns`; empty where the text is no number."""
    text = text.strip()
    value = float(text) if _ANY_STAMP.fullmatch(text) else math.nan
    return "" if math.isnan(value) else next(unit for unit, least in _LEAST.items() if value >= least)


def _lerp(a: float, b: float, fraction: float) -> float:
    return a + fraction * (b - a)


def _lerp_known(a: float | None, b: float | None, fraction: float) -> float | None:
    """Between two values; unknown where one is."""
    return None if a is None or b is None else _lerp(a, b, fraction)
