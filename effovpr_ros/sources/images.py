"""Folders of images as frames."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from effovpr_ros.core.errors import SourceError
from effovpr_ros.core.geodesy import Datum, origin_of
from effovpr_ros.core.images import MAX_PIXELS, largest_file, read_file, read_image, shown
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.sources.exif import read_exif
from effovpr_ros.sources.frame import Frame, content_digest
from effovpr_ros.sources.kinds import KINDS
from effovpr_ros.sources.names import is_utm_name, read_tum_folder, read_utm_names
from effovpr_ros.sources.tables import is_csv, read_csv
from effovpr_ros.sources.tags import Tag, Tags

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# Pictures that are not read: a folder that has them would lose them without a word.
_OTHER_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jxl", ".exr", ".hdr", ".pbm", ".pnm", ".mpo", ".jpe"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
PHONE_STD_M = 5.0
"""Of a photograph's position along an axis where its file does not say: phones under open sky are within 4.9 m (van
Diggelen and Enge, "The world's first GPS MOOC and worldwide laboratory using smartphones", ION GNSS+ 2015)."""


@dataclass(frozen=True)
class ImageFolder:
    """Frames of a folder.

    Attributes:
        frames: in natural order of their names, or in the order of the table.
        refused: one line for each image or row that cannot be used.
        datum: origin of the map frame where the images are geo-tagged: the one given, else the first image's.
        kind: how the images were tagged.
        notes: what was assumed or left unused, one line each.
        position_std_m: horizontal standard deviation of the geo-tags, quadratic mean; None where nothing tells it.
    """

    frames: Sequence[Frame]
    refused: tuple[str, ...]
    datum: Datum | None
    kind: str
    notes: tuple[str, ...] = ()
    position_std_m: float | None = None


def open_image_folder(
    folder: str | Path,
    *,
    kind: str = "auto",
    table: Path | None = None,
    session: str = "",
    datum: Datum | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ImageFolder:
    """List the images of a folder, with what is known of where they were taken.

    Args:
        folder: searched with its sub-folders, also those that are links.
        kind: exif (GPS tags), csv (see `tables.read_csv`), tum (images named by their stamp, TUM trajectory), utm
            (`@utm_east@utm_north@...` names), plain (nothing known), or auto: by the table if there is one, else by
            what most of the images have; plain only where none has anything.
        table: CSV or TUM file.
        session: name for all of them; the folder's name if empty.
        datum: origin of the map frame for geo-tagged images; the first geo-tag if None.
        max_pixels: larger images are refused when they are loaded.

    Raises:
        SourceError: no folder, no images, no table where one is needed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"image folder {shown(root)} does not exist; check the path, which begins in {Path.cwd()}")
    if kind not in KINDS:
        raise SourceError(f"kind {kind!r} is unknown; use {', '.join(KINDS)}")
    paths, refused = _list(root)
    if not paths:
        raise SourceError(
            "; ".join([f"{shown(root)} holds no image that is read ({', '.join(SUFFIXES)})", *refused[:3]])
        )
    tags, kind = _tags(kind, root, paths, table)
    tagged = [tag.geo for tag in tags.tags if tag.geo]
    # Poses of a table are in a frame of their own, which a geo-tag beside them does not locate.
    if datum is None and tagged and not any(tag.pose for tag in tags.tags):
        datum = Datum(origin_of(tagged))
    frames = [
        Frame(
            name=tag.path.relative_to(root).as_posix(),
            session=session or shown(root.resolve().name),
            stamp_ns=tag.stamp_ns,
            pose=tag.pose or (enu_pose(datum, tag.geo, tag.heading_deg) if datum and tag.geo else None),
            geo=tag.geo,
            load=partial(read_image, tag.path, max_pixels=max_pixels),
            digest=partial(_file_digest, tag.path, max_pixels),
        )
        for tag in tags.tags
    ]
    std_m, notes = _accuracy(tags.tags) if kind == "exif" else (None, ())
    return ImageFolder(frames, (*refused, *tags.refused), datum, kind, (*tags.notes, *notes), std_m)


def _accuracy(tags: Sequence[Tag]) -> tuple[float | None, tuple[str, ...]]:
    """Quadratic mean of the standard deviations of photographs' positions, and what is said of it."""
    named = [tag.position_std_m for tag in tags if tag.geo]
    if not named:
        return None, ()
    std_m = math.sqrt(sum((PHONE_STD_M if value is None else value) ** 2 for value in named) / len(named))
    known = sum(value is not None for value in named)
    note = f"positions are taken to have a standard deviation of {std_m:.1f} m: GPSHPositioningError of {known} of "
    return std_m, (f"{note}{len(named)} photographs, {PHONE_STD_M:g} m for those without",)


def _file_digest(path: Path, max_pixels: int) -> str:
    return content_digest(read_file(path, largest_file(max_pixels)))


def enu_pose(datum: Datum, geo: GeoPoint, heading_deg: float | None = None) -> Pose:
    """Pose of a geo-tag in the frame of a datum.

    Args:
        datum: origin of the frame.
        geo: the tag.
        heading_deg: clockwise from north; None where it is unknown.
    """
    x, y, z = datum.to_enu(geo)
    return Pose.from_yaw(x, y, None if heading_deg is None else math.radians(90.0 - heading_deg), z)


def _list(root: Path) -> tuple[list[Path], list[str]]:
    """Images below a folder in natural order, and one line for each picture that is not read."""
    paths, refused, visited = [], [], set()

    def cannot(error: OSError) -> None:
        refused.append(f"{shown(error.filename or root)}: cannot be listed ({error.strerror})")

    for parent, folders, names in os.walk(root, followlinks=True, onerror=cannot):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in visited:
            # A link that leads back: its images are listed already.
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        for name in names:
            path = Path(parent) / name
            suffix = path.suffix.lower()
            if suffix in _OTHER_SUFFIXES:
                refused.append(f"{shown(path.relative_to(root))}: {suffix} is not read; convert it to JPEG or PNG")
            elif suffix in SUFFIXES and _is_utf8(path.relative_to(root)):
                paths.append(path)
            elif suffix in SUFFIXES:
                refused.append(f"{shown(path.relative_to(root))}: its name is no UTF-8; rename it")
    return sorted(paths, key=_natural), sorted(refused)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _tags(kind: str, root: Path, paths: list[Path], table: Path | None) -> tuple[Tags, str]:
    """Tags of the images and of which kind they are."""
    if kind in ("csv", "tum") and table is None:
        raise SourceError(f"kind {kind} needs a table; name it with --table")
    if table is not None and kind in ("auto", "csv", "tum"):
        kind = kind if kind != "auto" else "csv" if is_csv(table) else "tum"
        return (read_csv(table, root, paths) if kind == "csv" else read_tum_folder(table, paths)), kind
    if kind == "plain":
        return Tags(tuple(Tag(path) for path in paths)), kind
    num_utm = sum(map(is_utm_name, paths))
    if kind == "utm" or (kind == "auto" and num_utm == len(paths)):
        return read_utm_names(paths), "utm"
    by_exif = read_exif(paths)
    if kind == "exif" or by_exif.num_with_gps > num_utm:
        return by_exif.tags, "exif"
    if num_utm:
        return read_utm_names(paths), "utm"
    return Tags(tuple(Tag(path) for path in paths)), "plain"


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which frame_2 comes before frame_10."""
    parts = re.split(r"([0-9]+)", path.as_posix())
    return [(0, int(part), "") if number % 2 else (1, 0, part) for number, part in enumerate(parts) if part]
