"""Where images were taken by their names: stamps of a TUM trajectory, or UTM coordinates."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from effovpr_ros.core.errors import EffoVPRError, GeodesyError, SourceError, TrajectoryError
from effovpr_ros.core.geodesy import utm_to_geo
from effovpr_ros.core.images import shown
from effovpr_ros.core.poses import Pose
from effovpr_ros.sources.tags import Tag, Tags, geo_fix, known_number
from effovpr_ros.sources.trajectory import read_tum, stamp_to_ns, stamp_unit

_TUM_TOLERANCE_NS = 500_000_000
_UTM_NAME = re.compile(r"@[^@]*@[^@]*@")


def read_tum_folder(table: Path, paths: Sequence[Path]) -> Tags:
    """Images named by their stamp (as TUM's own sets are), with poses of a TUM trajectory.

    Stamps are seconds; numbers that are too large for that are milliseconds, microseconds or nanoseconds, see
    `stamp_to_ns`. Poses are interpolated; images in gaps of more than 0.5 s are refused.

    Raises:
        SourceError: the trajectory is unreadable or empty.
    """
    try:
        trajectory, lines = read_tum(table)
    except TrajectoryError as error:
        raise SourceError(f"{table}: {error}") from error
    tags, refused, stamps_ns = [], [], []
    for path in paths:
        try:
            stamp_ns = stamp_to_ns(path.stem)
        except ValueError:
            refused.append(f"{shown(path.name)}: its name is no stamp, so it has no pose in {table.name}")
            continue
        stamps_ns.append(stamp_ns)
        try:
            tags.append(Tag(path, stamp_ns, trajectory.at(stamp_ns, _TUM_TOLERANCE_NS)))
        except TrajectoryError as error:
            refused.append(f"{shown(path.name)}: {error}")
    notes = [f"pose refused: {line}" for line in lines]
    units = {stamp_unit(path.stem) for path in paths} - {"", "seconds"}
    notes += [f"names of images are taken for stamps in {unit}" for unit in sorted(units)]
    if stamps_ns and not tags:
        notes.append(clocks_apart(stamps_ns, trajectory.span_ns, table.name))
    return Tags(tuple(tags), tuple(refused), tuple(notes))


def clocks_apart(stamps_ns: Sequence[int], span_ns: tuple[int, int], name: str) -> str:
    """What to say where no image lies within a trajectory: how far the clocks are apart, and what helps."""
    first_ns, last_ns = span_ns
    before, after = first_ns - max(stamps_ns), min(stamps_ns) - last_ns
    if max(before, after) <= 0:
        return f"no image lies between poses of {name} that are close enough in time; allow a larger gap (--max-gap-s)"
    return (
        f"the clocks of images and poses differ: the images are from {min(stamps_ns) * 1e-9:.3f} s to "
        f"{max(stamps_ns) * 1e-9:.3f} s, {name} from {first_ns * 1e-9:.3f} s to {last_ns * 1e-9:.3f} s, "
        f"{max(before, after) * 1e-9:.3f} s apart; shift the stamps of one of them"
    )


def is_utm_name(path: Path) -> bool:
    """Whether a name looks as `read_utm_names` wants it."""
    return _UTM_NAME.match(path.name) is not None


def read_utm_names(paths: Sequence[Path]) -> Tags:
    """Names as visual place recognition sets have them.

    `@utm_east@utm_north@zone@letter@latitude@longitude@pano@tile@heading@pitch@roll@height@timestamp@note@.jpg`;
    all after utm_north may be empty. Without zone and letter, latitude and longitude are used; without both, the
    position is metres from the first image, since a map frame holds no raw UTM. A heading of nan is unknown.
    """
    tags, refused = [], []
    origin: tuple[float, float] | None = None
    for path in paths:
        # What follows the last @ is the ending.
        fields = path.name.split("@")[:-1]
        try:
            if len(fields) < 3:
                raise ValueError("it has no two coordinates")
            east, north = _required(fields[1], "utm_east"), _required(fields[2], "utm_north")
            zone, letter, latitude, longitude, _, _, heading_text = (*fields[3:10], *[""] * 7)[:7]
            heading = known_number(heading_text)
            pose = geo = None
            if zone and letter:
                if not re.fullmatch(r"\d{1,2}", zone, re.ASCII):
                    raise GeodesyError(f"zone {zone!r} is no number of 1 to 60")
                geo = utm_to_geo(east, north, int(zone), letter)
            elif latitude or longitude:
                geo = geo_fix(_required(latitude, "latitude"), _required(longitude, "longitude"))
            else:
                origin = origin or (east, north)
                yaw_rad = None if heading is None else math.radians(90.0 - heading)
                pose = Pose.from_yaw(east - origin[0], north - origin[1], yaw_rad, None)
        except (EffoVPRError, ValueError) as error:
            refused.append(f"{shown(path.name)}: no valid @utm_east@utm_north@ name ({error})")
            continue
        tags.append(Tag(path, 0, pose, geo, heading))
    return Tags(tuple(tags), tuple(refused))


def _required(text: str, name: str) -> float:
    value = known_number(text)
    if value is None or not math.isfinite(value):
        raise ValueError(f"{name} {text!r} is unknown")
    return value
