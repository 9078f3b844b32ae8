"""Where training images come from: maps, bags, folders, tables, clips and public layouts, each with what it knows."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from effovpr_ros.core.errors import ConfigError, EffoVPRError, SourceError, TrainingError
from effovpr_ros.core.images import decode_image, read_image
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.lab.training.place_classes import TrainingFrame
from effovpr_ros.mapping.manifest import MANIFEST_NAME
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.sources.bag_files import is_bag
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.images import open_image_folder
from effovpr_ros.sources.kinds import KINDS

SOURCE_KINDS = (*KINDS, "map", "bag", "clips", "gsv")
_CLIP_COLUMNS = ("image", "clip", "frame")


@dataclass(frozen=True)
class SourceSpec:
    """A source as a user names it: PATH or PATH:key=value,...

    Attributes:
        path: bag, map, folder or table.
        kind: as `sources.images` has them, or map, bag, clips (each sub-folder is a clip) or gsv (GSV-Cities);
            auto: by what is there.
        table: of a folder, as `effovpr map build --table`.
        images: folder of the images of a table or of a map, if they lie elsewhere.
        image_topic: of a bag.
        pose_topic: of a bag.
        area: name of the coordinate frame of its poses, where several sources share one; the path if empty.
    """

    path: Path
    kind: str = "auto"
    table: str = ""
    images: str = ""
    image_topic: str = ""
    pose_topic: str = ""
    area: str = ""


@dataclass(frozen=True)
class TrainingSource:
    """What a source holds.

    Attributes:
        frames: images whose place can be told.
        refused: one line for each image or row that cannot be used.
    """

    frames: tuple[TrainingFrame, ...]
    refused: tuple[str, ...] = field(default=())


def parse_source(text: str) -> SourceSpec:
    """PATH or PATH:key=value,...

    Raises:
        ConfigError: an unknown key or kind.
    """
    path, colon, settings = text.rpartition(":")
    if not colon or "=" not in settings:
        return SourceSpec(Path(text))
    known = [entry.name for entry in fields(SourceSpec) if entry.name != "path"]
    values = dict(setting.split("=", 1) for setting in settings.split(",") if "=" in setting)
    for key in values:
        if key not in known:
            raise ConfigError(f"source {text!r}: no setting {key!r}; use {', '.join(known)}")
    if values.get("kind", "auto") not in SOURCE_KINDS:
        raise ConfigError(f"source {text!r}: kind {values['kind']!r} is unknown; use {', '.join(SOURCE_KINDS)}")
    return SourceSpec(Path(path), **values)


def open_source(spec: SourceSpec) -> TrainingSource:
    """List the images of a source.

    Raises:
        SourceError: unreadable.
        TrainingError: nothing tells where its images were taken.
    """
    kind = _guess(spec) if spec.kind == "auto" else spec.kind
    if kind == "map":
        source = _from_map(spec)
    elif kind == "bag":
        bag = BagSource(spec.path, image_topic=spec.image_topic, pose_topic=spec.pose_topic)
        found = list(bag.frames(reread=True))
        source = _posed(found, spec, [f"{count} x {reason}" for reason, count in bag.refused.items()])
    elif kind == "gsv":
        source = _from_gsv_cities(spec.path)
    elif kind == "clip table":
        source = _from_clip_table(spec)
    elif kind == "clips":
        source = _from_clip_folders(spec)
    else:
        source = _from_folder(spec, kind)
    if not source.frames:
        why = f" ({source.refused[0]})" if source.refused else ""
        raise TrainingError(
            f"{spec.path}: nothing tells where its images were taken{why}; give poses with {spec.path}:table=FILE.csv, "
            f"or take each sub-folder as an unposed clip with {spec.path}:kind=clips"
        )
    return source


def _guess(spec: SourceSpec) -> str:
    path = spec.path
    if not path.exists():
        raise SourceError(f"training source {path} does not exist")
    if path.suffix.lower() == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
        return "clip table" if all(name in header for name in _CLIP_COLUMNS) else "csv"
    if (path / MANIFEST_NAME).is_file():
        return "map"
    if (path / "Dataframes").is_dir() and (path / "Images").is_dir():
        return "gsv"
    return "bag" if is_bag(path) else "auto"


def _from_map(spec: SourceSpec) -> TrainingSource:
    """Places with poses: the original images where they are, else the thumbnails."""
    with open_map(spec.path) as place_map:
        frames = []
        for place in place_map.places():
            original = Path(spec.images) / place.source if spec.images else None
            if original is not None and original.is_file():
                load = partial(read_image, original)
            else:
                name = f"thumbnail of place {place.place_id} of {spec.path}"
                load = partial(decode_image, place_map.thumbnail(place.place_id), name)
            frames.append(
                Frame(
                    place.source,
                    place.session,
                    place.stamp_ns,
                    place.pose,
                    place.geo,
                    load,
                )
            )
    return _posed(frames, spec, [])


def _from_folder(spec: SourceSpec, kind: str) -> TrainingSource:
    table = Path(spec.table) if spec.table else None
    folder = spec.path
    if folder.is_file():
        folder, table = Path(spec.images) if spec.images else folder.parent, folder
    found = open_image_folder(folder, kind=kind, table=table)
    return _posed(found.frames, spec, list(found.refused))


def _posed(frames: Sequence[Frame], spec: SourceSpec, refused: list[str]) -> TrainingSource:
    source = spec.area or str(spec.path)
    posed = [frame for frame in frames if frame.pose is not None]
    if len(posed) < len(frames):
        refused.append(f"{source}: {len(frames) - len(posed)} images without a pose")
    return TrainingSource(
        tuple(TrainingFrame(frame, source, columns={"source": source, "session": frame.session}) for frame in posed),
        tuple(refused),
    )


def _from_clip_folders(spec: SourceSpec) -> TrainingSource:
    """Each folder of images is a clip in the natural order of its names."""
    source = str(spec.path)
    frames = []
    for number, frame in enumerate(open_image_folder(spec.path, kind="plain").frames):
        clip = Path(frame.name).parent.as_posix()
        frames.append(TrainingFrame(frame, source, clip, number, columns={"source": source, "clip": clip}))
    return TrainingSource(tuple(frames))


def _from_clip_table(spec: SourceSpec) -> TrainingSource:
    """Rows of `image,clip,frame[,place][,area][,x,y[,yaw or yaw_deg]]`, with other columns for `--hold-out`.

    `image` is relative to the table, to a folder `images` beside it, or to the setting `images`; `frame` orders a clip.
    x and y are metres in the coordinate frame that the rows of one `area` (of one clip, where there is none) share;
    `yaw` is in radians, `yaw_deg` in degrees, counter-clockwise from x (REP-103). A `place` is a class as it is,
    whatever its pose; its name counts within its area.
    """
    rows = _rows(spec.path, _CLIP_COLUMNS)
    root = Path(spec.images) if spec.images else spec.path.parent
    if not spec.images and rows and not (root / rows[0]["image"]).is_file() and (root / "images").is_dir():
        root = root / "images"
    frames, refused = [], []
    for number, row in enumerate(rows, start=2):
        try:
            frames.append(_clip_frame(row, root, spec.area or str(spec.path)))
        except (EffoVPRError, ValueError) as error:
            refused.append(f"{spec.path.name}, line {number} ({row.get('image')}): {error}")
    return TrainingSource(tuple(frames), tuple(refused))


def _clip_frame(row: Mapping[str, str], root: Path, source: str) -> TrainingFrame:
    path = root / row["image"]
    if not row["image"] or not path.is_file():
        raise SourceError(f"image {path} does not exist")
    pose = None
    if row.get("x") and row.get("y"):
        yaw_rad = float(row["yaw"]) if row.get("yaw") else None
        if yaw_rad is None and row.get("yaw_deg"):
            yaw_rad = math.radians(float(row["yaw_deg"]))
        pose = Pose.from_yaw(float(row["x"]), float(row["y"]), yaw_rad, None)
    frame = Frame(row["image"], source, None, pose, None, partial(read_image, path))
    place = row.get("place") or ""
    area = f"{source} {row.get('area') or row['clip']}" if pose is not None or place else source
    return TrainingFrame(frame, area, row["clip"], int(row["frame"]), place, {**row, "source": source})


def _from_gsv_cities(root: Path) -> TrainingSource:
    """GSV-Cities (Ali-bey et al., Neurocomputing 2022): `Dataframes/CITY.csv` beside `Images/CITY/`.

    Each place_id is a class; places of a city are far apart, so that a city is a group.
    """
    frames, refused = [], []
    for table in sorted((root / "Dataframes").glob("*.csv")):
        wanted = ("place_id", "year", "month", "northdeg", "city_id", "lat", "lon", "panoid")
        for number, row in enumerate(_rows(table, wanted), start=2):
            try:
                frames.append(_gsv_frame(row, root))
            except (EffoVPRError, ValueError) as error:
                refused.append(f"{table.name}, line {number}: {error}")
    return TrainingSource(tuple(frames), tuple(refused))


def _gsv_frame(row: Mapping[str, str], root: Path) -> TrainingFrame:
    city, place = row["city_id"], int(row["place_id"]) % 10**5
    name = (
        f"{city}_{place:07d}_{int(row['year']):04d}_{int(row['month']):02d}_{int(row['northdeg']):03d}_"
        f"{row['lat']}_{row['lon']}_{row['panoid']}.jpg"
    )
    path = root / "Images" / city / name
    if not path.is_file():
        raise SourceError(f"image {path} does not exist")
    geo = GeoPoint(float(row["lat"]), float(row["lon"]))
    frame = Frame(f"{city}/{name}", city, None, None, geo, partial(read_image, path))
    area = f"{root} {city}"
    return TrainingFrame(frame, area, place=row["place_id"], columns={"source": str(root), "city": city})


def _rows(table: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [{name: (value or "").strip() for name, value in row.items() if name} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"table {table} cannot be read: {error}") from error
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise SourceError(f"table {table} has no column {missing[0]!r}; it has {', '.join(columns) or 'none'}")
    return rows
