"""Folders of images as frames."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from effovpr_ros.core.errors import ImageError, SourceError
from effovpr_ros.core.geodesy import Datum, origin_of
from effovpr_ros.core.images import read_image
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.sources.frame import Frame, content_digest
from effovpr_ros.sources.tables import Tag, Tags, read_csv, read_exif, read_tum_folder, read_utm_names

_logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
KINDS = ("auto", "exif", "csv", "tum", "utm", "plain")


@dataclass(frozen=True)
class ImageFolder:
    """Frames of a folder.

    Attributes:
        frames: in natural order of their names, or in the order of the table.
        refused: one line for each image or row that cannot be used.
        datum: origin of the map frame where the images are geo-tagged: the one given, else the first image's.
        kind: how the images were tagged.
    """

    frames: Sequence[Frame]
    refused: tuple[str, ...]
    datum: Datum | None
    kind: str


def open_image_folder(
    folder: str | Path,
    *,
    kind: str = "auto",
    table: Path | None = None,
    session: str = "",
    datum: Datum | None = None,
) -> ImageFolder:
    """List the images of a folder, with what is known of where they were taken.

    Args:
        folder: searched with its sub-folders.
        kind: exif (GPS tags), csv (see `tables.read_csv`), tum (images named by their stamp, TUM trajectory), utm
            (`@utm_east@utm_north@...` names), plain (nothing known), or auto: by the table's ending if there is
            one, else by the first image.
        table: CSV or TUM file.
        session: name for all of them; the folder's name if empty.
        datum: origin of the map frame for geo-tagged images; the first geo-tag if None.

    Raises:
        SourceError: no folder, no images, no table where one is needed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"image folder {root} does not exist")
    if kind not in KINDS:
        raise SourceError(f"kind {kind!r} is unknown; use {', '.join(KINDS)}")
    paths = sorted((path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES), key=_natural)
    if not paths:
        raise SourceError(f"{root} holds no image ({', '.join(SUFFIXES)})")
    if kind == "auto":
        kind = _guess(paths, table)
        _logger.info("%s: images are tagged by %s", root, kind)
    tags = _read_tags(kind, root, paths, table)
    tagged = [tag.geo for tag in tags.tags if tag.geo]
    # Poses of a table are in a frame of their own, which a geo-tag beside them does not locate.
    if datum is None and tagged and not any(tag.pose for tag in tags.tags):
        datum = Datum(origin_of(tagged))
    frames = [
        Frame(
            name=tag.path.relative_to(root).as_posix(),
            session=session or root.resolve().name,
            stamp_ns=tag.stamp_ns,
            pose=tag.pose or (enu_pose(datum, tag.geo, tag.heading_deg) if datum and tag.geo else None),
            geo=tag.geo,
            load=partial(read_image, tag.path),
            digest=partial(_file_digest, tag.path),
        )
        for tag in tags.tags
    ]
    return ImageFolder(frames, tags.refused, datum, kind)


def _file_digest(path: Path) -> str:
    try:
        return content_digest(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def enu_pose(datum: Datum, geo: GeoPoint, heading_deg: float | None = None) -> Pose:
    """Pose of a geo-tag in the frame of a datum.

    Args:
        datum: origin of the frame.
        geo: the tag.
        heading_deg: clockwise from north; None where it is unknown.
    """
    x, y, z = datum.to_enu(geo)
    return Pose.from_yaw(x, y, None if heading_deg is None else math.radians(90.0 - heading_deg), z)


def _read_tags(kind: str, root: Path, paths: list[Path], table: Path | None) -> Tags:
    if kind in ("csv", "tum") and table is None:
        raise SourceError(f"kind {kind} needs a table; name it with --table")
    if kind == "csv" and table is not None:
        return read_csv(table, root)
    if kind == "tum" and table is not None:
        return read_tum_folder(table, paths)
    if kind == "exif":
        return read_exif(paths)
    if kind == "utm":
        return read_utm_names(paths)
    return Tags(tuple(Tag(path) for path in paths))


def _guess(paths: list[Path], table: Path | None) -> str:
    if table is not None:
        return "csv" if table.suffix.lower() == ".csv" else "tum"
    if paths[0].name.startswith("@"):
        return "utm"
    return "exif" if read_exif(paths[:1]).tags else "plain"


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which frame_2 comes before frame_10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.as_posix()) if part
    ]
