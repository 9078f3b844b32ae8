"""Tables that say where the images of a folder were taken: CSV, with the column names that people use."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from effovpr_ros.core.errors import EffoVPRError, SourceError, TrajectoryError
from effovpr_ros.core.images import shown
from effovpr_ros.core.poses import Pose
from effovpr_ros.sources.tags import Tag, Tags, geo_fix, known_number
from effovpr_ros.sources.trajectory import stamp_to_ns, stamp_unit

_ALIASES = {
    "image": "image img image_file image_name image_path imagename file file_name filename file_path path name photo "
    "picture rgb sourcefile",
    "stamp": "stamp timestamp time t",
    "x": "x x_m pos_x position_x pose_x tx px",
    "y": "y y_m pos_y position_y pose_y ty py",
    "z": "z z_m pos_z position_z pose_z tz pz",
    "east": "east east_m",
    "north": "north north_m",
    "up": "up up_m",
    **{f"q{axis}": f"q{axis} q_{axis} quat_{axis} quaternion_{axis} orientation_{axis}" for axis in "xyzw"},
    "yaw_deg": "yaw_deg yaw_degrees",
    "yaw_rad": "yaw_rad yaw_radians",
    "latitude": "latitude lat latitude_deg lat_deg gps_latitude gps_lat gpslatitude latitude_degrees lat_degrees",
    "longitude": "longitude lon lng long longitude_deg lon_deg lng_deg long_deg gps_longitude gps_lon gps_lng gps_long "
    "gpslongitude longitude_degrees lon_degrees",
    "altitude": "altitude alt altitude_m alt_m gps_altitude gps_alt gpsaltitude elevation elevation_m ele height_m",
    "heading_deg": "heading_deg heading_degrees bearing_deg azimuth_deg gpsimgdirection gps_img_direction",
}
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
_STAMP_UNIT = re.compile(r"(.*)_(s|sec|secs|seconds|ms|us|ns|nsec|nanoseconds)")
_UNIT_NAMES = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "nsec": "nanoseconds"}
_GROUPS = (("x", "y"), ("east", "north"), ("latitude", "longitude"), ("qx", "qy", "qz", "qw"))
# Columns that say where an image is in a way that is not read: they are refused, not passed over.
_NOT_READ = {
    **dict.fromkeys(("yaw", "theta"), "has no unit; name it yaw_deg or yaw_rad (counter-clockwise from x)"),
    **dict.fromkeys(
        ("heading", "bearing", "course", "azimuth", "direction"),
        "has no unit and no zero; name it heading_deg (clockwise from north) or yaw_deg (counter-clockwise from x)",
    ),
    **dict.fromkeys(
        (
            "easting",
            "northing",
            *(f"utm_{end}" for end in ("east", "north", "e", "n", "easting", "northing", "x", "y")),
        ),
        "is UTM, which is not read from a table; give latitude, longitude, or metres of a local frame as east, north",
    ),
}
_LOOKS_LIKE_A_PLACE = re.compile(r"lat|lon|lng|east|north|utm|gps|gnss|wgs|coord|pos|mgrs|(^|_)[xyz](_|$)|^[pt]_?[xyz]")
_LOCAL_FRAME_M = 100_000.0


def read_csv(table: Path, folder: Path, paths: Sequence[Path] = ()) -> Tags:
    """Rows of `image,stamp[,x,y,z,qx,qy,qz,qw][,latitude,longitude,altitude]`, in any order of columns.

    `image` is relative to the folder; `stamp` is in seconds (or by its size ms, us or ns, see `stamp_to_ns`; or as the
    column says, e.g. `timestamp_ns`) and may be empty or missing. x, y, z are metres in the map frame (REP-103), z may
    be missing; `yaw_deg` or `yaw_rad`, counter-clockwise from x, may stand for the quaternion. `east`, `north`, `up`
    are x, y, z of a frame whose y is north. latitude and longitude are WGS84 degrees, altitude metres and optional;
    `heading_deg` is clockwise from north. Usual names of columns are known (`lat`, `lng`, `filename`, `tx`, ...), in
    any case and with units in brackets. Cells that are empty or say nan or null are unknown. Separators are comma,
    semicolon (then with decimal commas) or tab. Bad rows are refused with their reason; columns that are not read are
    named in the notes, and refused where they would say where the images are.

    Args:
        table: UTF-8, or UTF-16 with its mark.
        folder: of the images.
        paths: images of the folder; those that no row names are counted in the notes.

    Raises:
        SourceError: unreadable, without rows, or a column is missing or not understood; names it.
    """
    text = _read_text(table)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise SourceError(f"table {table} cannot be read: {error}") from error
    if not lines:
        raise SourceError(f"table {table} is empty")
    columns, unit, unused = _columns(table, lines[0][1])
    if len(lines) == 1:
        raise SourceError(f"table {table} has a header and no rows")
    tags, refused, units = [], [], set()
    seen: dict[Path, int] = {}
    for number, row in lines[1:]:
        cells = {name: row[at].strip() for name, at in columns.items() if at < len(row)}
        named = cells.get("image", "")
        try:
            if separator == ";":
                cells = {name: cell if name == "image" else cell.replace(",", ".") for name, cell in cells.items()}
            path = _image(named, folder, table)
            if path in seen:
                raise SourceError(f"the image is in line {seen[path]} already")
            tags.append(_tag(path, cells, unit))
            seen[path] = number
            units.add(unit or stamp_unit(cells.get("stamp", "")))
        except (EffoVPRError, ValueError) as error:
            refused.append(f"{table.name}, line {number} ({shown(named)}): {error}")
    notes = [f"columns of {table.name} that are not read: {', '.join(unused)}"] if unused else []
    notes += [f"stamps of {table.name} are taken for {name}" for name in sorted(units - {"", "seconds"})]
    if "heading_deg" in columns and "x" in columns and "latitude" not in columns:
        notes.append(f"heading_deg of {table.name} is not used: x may point anywhere; give yaw_deg, or east and north")
    if missing := [path for path in paths if path not in seen]:
        notes.append(
            f"{len(missing)} images of the folder are not in {table.name}, the first is {shown(missing[0].name)}"
        )
    return Tags(tuple(tags), tuple(refused), tuple(notes))


def is_csv(table: Path) -> bool:
    """Whether a table is CSV, by its ending, or by a header that names images."""
    if table.suffix.lower() in (".csv", ".tsv"):
        return True
    try:
        with table.open("rb") as file:
            first = file.read(4096).decode("utf-8-sig", "replace").lstrip().split("\n", 1)[0]
    except OSError:
        return False
    return any(_CANONICAL.get(_normal(name)) == "image" for name in re.split(r"[,;\t]", first)) and "," in first


def _read_text(table: Path) -> str:
    try:
        data = table.read_bytes()
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return data.decode(encoding)
    except (OSError, UnicodeError) as error:
        raise SourceError(f"table {shown(table)} cannot be read: {error}; save it as UTF-8") from error


def _normal(name: str) -> str:
    """`#timestamp [ns]` to `timestamp_ns`, `Latitude (deg)` to `latitude_deg`."""
    return re.sub(r"[^0-9a-z]+", "_", name.strip().lower()).strip("_")


def _columns(table: Path, header: Sequence[str]) -> tuple[dict[str, int], str, list[str]]:
    """Position of each known column, unit of the stamps if a name says it, and the columns that are not read."""
    columns: dict[str, int] = {}
    unit, unknown = "", []
    for at, raw in enumerate(header):
        name = _normal(raw)
        with_unit = _STAMP_UNIT.fullmatch(name)
        known = _CANONICAL.get(name)
        if known is None and with_unit and _CANONICAL.get(with_unit[1]) == "stamp":
            known, unit = "stamp", _UNIT_NAMES.get(with_unit[2], "seconds")
        if known is None:
            if name:
                unknown.append((name, raw.strip()))
        elif known not in columns:
            columns[known] = at
        elif (name == known) == (_normal(header[columns[known]]) == known):
            raise SourceError(
                f"table {table} gives {known} twice ({header[columns[known]].strip()!r}, {raw.strip()!r})"
            )
        else:
            # The name itself comes before another word for it, which counts as a column that is not read.
            other = columns[known] if name == known else at
            columns[known] = at if name == known else columns[known]
            unknown.append(("", header[other].strip()))
    listed = ", ".join(name.strip() for name in header) or "none"
    if "image" not in columns:
        raise SourceError(f"table {table} has no column 'image' that names the files; it has {listed}")
    for group in _GROUPS:
        missing = [name for name in group if name not in columns]
        if 0 < len(missing) < len(group):
            present = next(name for name in group if name in columns)
            raise SourceError(f"table {table} has a column {present!r} but none {missing[0]!r}; it has {listed}")
    if "x" in columns and "east" in columns:
        raise SourceError(f"table {table} gives both x, y and east, north; remove one")
    is_placed = any(group[0] in columns for group in _GROUPS[:3])
    is_turned = bool({"qw", "yaw_deg", "yaw_rad", "heading_deg"} & columns.keys())
    for name, raw in unknown:
        if name in _NOT_READ and not (is_turned if "name it" in _NOT_READ[name] else is_placed):
            raise SourceError(f"table {table}: column {raw!r} {_NOT_READ[name]}")
        if not is_placed and _LOOKS_LIKE_A_PLACE.search(name):
            raise SourceError(
                f"table {table}: column {raw!r} is not known, and no other says where the images are; name it x, y "
                "(metres in the map frame), east, north, or latitude, longitude"
            )
    return columns, unit, [raw for _, raw in unknown]


def _image(named: str, folder: Path, table: Path) -> Path:
    """The file that a cell names: relative to the folder or to the table, within the folder."""
    if not named:
        raise SourceError("no image is named")
    root = os.path.normpath(folder.absolute())
    for spelling in dict.fromkeys((named, named.replace("\\", "/"))):
        for beside in (folder, table.parent):
            path = os.path.normpath((beside / spelling).absolute())
            if Path(path).is_file():
                if os.path.commonpath((root, path)) != root:
                    raise SourceError(f"the image lies outside of {root}; give the folder that holds all of them")
                return folder / os.path.relpath(path, root)
    raise SourceError(f"image {folder / named} does not exist")


def _tag(path: Path, cells: Mapping[str, str], unit: str) -> Tag:
    values = {name: known_number(cell) for name, cell in cells.items() if name not in ("image", "stamp")}

    def group(*names: str) -> list[float] | None:
        found = [values.get(name) for name in names]
        known = [value for value in found if value is not None]
        if known and len(known) < len(names):
            missing = names[found.index(None)]
            raise TrajectoryError(f"{' and '.join(names)} belong together, {missing} is unknown")
        return known or None

    heading_deg = values.get("heading_deg")
    yaw_deg, yaw_rad = values.get("yaw_deg"), values.get("yaw_rad")
    yaw_rad = yaw_rad if yaw_deg is None else math.radians(yaw_deg)
    position, z = group("x", "y"), values.get("z")
    if position is None and (position := group("east", "north")) is not None:
        if max(map(abs, position)) > _LOCAL_FRAME_M:
            raise TrajectoryError(f"east, north {position} is no local frame; UTM is not read from a table")
        z = values.get("up")
        yaw_rad = math.radians(90.0 - heading_deg) if yaw_rad is None and heading_deg is not None else yaw_rad
    quaternion, degrees = group("qx", "qy", "qz", "qw"), group("latitude", "longitude")
    pose = geo = None
    if position is not None:
        x, y = position
        turned = Pose.from_yaw(x, y, yaw_rad, z)
        pose = turned if quaternion is None else Pose((x, y, z), (quaternion[0], *quaternion[1:]))  # type: ignore[arg-type]
    if degrees is not None:
        geo = geo_fix(degrees[0], degrees[1], values.get("altitude"))
    return Tag(path, _stamp_ns(cells.get("stamp", ""), unit), pose, geo, heading_deg)


def _stamp_ns(text: str, unit: str) -> int | None:
    """A number, or date and time as ISO 8601 has them (UTC where no zone is given); None if unknown."""
    try:
        return None if known_number(text) is None else stamp_to_ns(text, unit)
    except ValueError as error:
        try:
            when = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        except ValueError:
            raise error from None
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        return stamp_to_ns(f"{when.timestamp():.6f}", "seconds")
