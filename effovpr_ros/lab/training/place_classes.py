"""Places as classes, and groups of classes of which no two are neighbours.

Posed images: square cells and heading sectors; every Nth cell and every Lth sector form a group, so that images
across a border, which show the same, are never told apart within a group (CosPlace, Berton et al., CVPR 2022,
section 3.2). Unposed clips: windows of frames with a gap between them, every Nth window in a group.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from effovpr_ros.core.errors import ConfigError, TrainingError
from effovpr_ros.core.settings import check_limits, ranged
from effovpr_ros.sources.frame import Frame


@dataclass(frozen=True)
class PlacesConfig:
    """How images become classes."""

    cell_m: float = ranged(15.0, 0.01, 10000.0, "Side of a cell in metres.")
    sector_deg: float = ranged(
        30.0, 1.0, 360.0, "Width of the heading sector of a class in degrees; 360: headings do not count."
    )
    cell_groups: int = ranged(3, 1, 100, "Distance between the classes of one group in x and y, in cells.")
    sector_groups: int = ranged(2, 1, 36, "Distance between the classes of one group in heading, in sectors.")
    window: int = ranged(10, 1, 100000, "Frames of a clip without poses that make one class.")
    window_gap: int = ranged(5, 0, 100000, "Frames between two such classes that are not used.")
    window_groups: int = ranged(2, 1, 1000, "Distance between the classes of one group along a clip, in windows.")
    min_images: int = ranged(2, 2, 100000, "Classes with fewer images are left out.")

    def __post_init__(self) -> None:
        """Refuse values outside the ranges in the metadata, and sectors that do not close the circle."""
        check_limits(self)
        sectors = 360.0 / self.sector_deg
        if not math.isclose(sectors, round(sectors)) or (round(sectors) > 1 and round(sectors) % self.sector_groups):
            raise ConfigError(
                f"sector_deg {self.sector_deg:g} with sector_groups {self.sector_groups}: 360 / sector_deg must be a "
                "multiple of sector_groups, or the first sector and the last, which are neighbours, share a group"
            )


@dataclass(frozen=True)
class TrainingFrame:
    """An image with what tells its place.

    Attributes:
        frame: the image, with its pose if known.
        area: images of one area have one coordinate frame; places of two areas are different.
        clip: drive that an unposed image belongs to.
        number: order within the clip.
        place: class that the source itself gives, if any.
        columns: what `--hold-out` can name.
    """

    frame: Frame
    area: str
    clip: str = ""
    number: int = 0
    place: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Classes that are told apart by one classifier.

    Attributes:
        name: for logs.
        classes: numbers of the images of each class.
    """

    name: str
    classes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Places:
    """What is trained on.

    Attributes:
        frames: images of all classes.
        groups: of classes, by name.
        notes: what was left out and why.
    """

    frames: tuple[Frame, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """What chooses the checkpoint: every image is looked for among the others.

    Attributes:
        frames: images.
        positives: for each, the numbers of the others that show its place; may be empty.
    """

    frames: tuple[Frame, ...]
    positives: tuple[tuple[int, ...], ...]


class _Class(NamedTuple):
    group: str
    name: str


def make_places(frames: Sequence[TrainingFrame], config: PlacesConfig) -> Places:
    """Sort images into classes and classes into groups.

    Raises:
        TrainingError: no two classes of one group are left; says what became of the images.
    """
    members: dict[_Class, list[int]] = defaultdict(list)
    windows = _windows(frames, config)
    outside = 0
    for number, item in enumerate(frames):
        found = _class_of(item, windows.get(number), config)
        if found is None:
            outside += 1
        else:
            members[found].append(number)
    enough = {key: numbers for key, numbers in members.items() if len(numbers) >= config.min_images}
    sizes = Counter(key.group for key in enough)
    used = {key: enough[key] for key in sorted(enough) if sizes[key.group] > 1}
    too_few, alone = len(members) - len(enough), len(enough) - len(used)
    if not used:
        raise TrainingError(
            f"no classes are left of {len(frames)} images: {outside} between windows, {too_few} of {len(members)} "
            f"classes have fewer than {config.min_images} images, {alone} are alone in their group; use larger cells "
            "(--cell-m, --sector-deg 360), fewer groups (--cell-groups, --sector-groups, --window-groups), shorter "
            "windows (--window, --window-gap), or more images"
        )
    notes = [
        f"{count} {what}"
        for count, what in (
            (outside, "images lie between the windows of their clip"),
            (too_few, f"classes with fewer than {config.min_images} images are left out"),
            (alone, "classes that are alone in their group are left out"),
        )
        if count
    ]
    kept = sorted(number for numbers in used.values() for number in numbers)
    row = {number: place for place, number in enumerate(kept)}
    groups: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for key, numbers in used.items():
        groups[key.group].append(tuple(row[number] for number in numbers))
    return Places(
        tuple(frames[number].frame for number in kept),
        tuple(Group(name, tuple(classes)) for name, classes in groups.items()),
        tuple(notes),
    )


def hold_out(
    frames: Sequence[TrainingFrame], columns: Mapping[str, Sequence[str]], share: float, seed: int, cell_m: float
) -> tuple[tuple[TrainingFrame, ...], tuple[TrainingFrame, ...]]:
    """Split images into those to train on and those to validate on.

    Args:
        frames: all.
        columns: images whose column has one of the values are held out.
        share: of the clips, and of the cells of posed images, that is held out as well.
        seed: of the choice.
        cell_m: side of a cell in metres.

    Raises:
        ConfigError: no image has such a column or value.
    """
    for name, values in columns.items():
        known = {item.columns[name] for item in frames if name in item.columns}
        if not known:
            there = sorted({column for item in frames for column in item.columns})
            raise ConfigError(f"--hold-out {name}: no image has that column; there are {', '.join(there) or 'none'}")
        missing = [value for value in values if value not in known]
        if missing:
            raise ConfigError(f"--hold-out {name}={missing[0]}: there are {', '.join(sorted(known)[:20])}")
    chosen = [
        any(item.columns.get(name) in values for name, values in columns.items())
        or zlib.crc32(f"{seed} {_unit(item, cell_m)}".encode()) < share * 2**32
        for item in frames
    ]
    training = tuple(item for item, out in zip(frames, chosen, strict=True) if not out)
    return training, tuple(item for item, out in zip(frames, chosen, strict=True) if out)


def make_validation(frames: Sequence[TrainingFrame], config: PlacesConfig) -> Validation:
    """Pair images of one place: of one given class, at most a cell and a sector apart, or in one clip a window apart.

    Raises:
        TrainingError: no image has another one of its place.
    """
    positives: list[tuple[int, ...]] = [()] * len(frames)
    order = _order_in_clip(frames)
    areas: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for number, item in enumerate(frames):
        posed = item.frame.pose is not None
        areas[item.area, item.place, "" if posed or item.place else item.clip].append(number)
    for (_, place, _), numbers in areas.items():
        for number in numbers:
            others = (other for other in numbers if other != number)
            positives[number] = tuple(
                other
                for other in others
                if place or _near(frames[number], frames[other], abs(order[number] - order[other]), config)
            )
    if not any(positives):
        raise TrainingError(
            f"none of the {len(frames)} validation images has another one of its place; hold more out, or use "
            "larger cells (--cell-m)"
        )
    return Validation(tuple(item.frame for item in frames), tuple(positives))


def _class_of(item: TrainingFrame, window: int | None, config: PlacesConfig) -> _Class | None:
    if item.place:
        return _Class(item.area, item.place)
    pose = item.frame.pose
    if pose is not None:
        cell_x, cell_y = _cell(pose.position_xyz, config.cell_m)
        sectors = round(360.0 / config.sector_deg)
        sector, group = "any", "any"
        if sectors > 1 and pose.yaw_rad is not None:
            number = math.floor(math.degrees(pose.yaw_rad) % 360.0 / config.sector_deg) % sectors
            sector, group = str(number), str(number % config.sector_groups)
        source = item.columns.get("source", item.area)
        cells = f"{cell_x % config.cell_groups},{cell_y % config.cell_groups}"
        return _Class(f"{source} cells {cells} headings {group}", f"{item.area} {cell_x},{cell_y} {sector}")
    if window is None:
        return None
    source = item.columns.get("source", item.area)
    return _Class(f"{source} windows {window % config.window_groups}", f"{item.area} {item.clip} {window}")


def _cell(position_xyz: tuple[float, float, float | None], cell_m: float) -> tuple[int, int]:
    return math.floor(position_xyz[0] / cell_m), math.floor(position_xyz[1] / cell_m)


def _unit(item: TrainingFrame, cell_m: float) -> str:
    """What `hold_out` keeps together."""
    if item.place or item.frame.pose is None:
        return f"{item.area} {item.place or item.clip}"
    return f"{item.area} {_cell(item.frame.pose.position_xyz, cell_m)}"


def _order_in_clip(frames: Iterable[TrainingFrame]) -> dict[int, int]:
    """Rank of each image within its clip."""
    clips: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for number, item in enumerate(frames):
        clips[item.area, item.clip].append((item.number, number))
    return {number: rank for found in clips.values() for rank, (_, number) in enumerate(sorted(found))}


def _windows(frames: Sequence[TrainingFrame], config: PlacesConfig) -> dict[int, int]:
    """Window of each image that lies in one."""
    period = config.window + config.window_gap
    return {number: rank // period for number, rank in _order_in_clip(frames).items() if rank % period < config.window}


def _near(one: TrainingFrame, other: TrainingFrame, frames_between: int, config: PlacesConfig) -> bool:
    if one.frame.pose is None or other.frame.pose is None:
        return one.frame.pose is other.frame.pose and frames_between <= config.window
    if math.dist(one.frame.pose.position_xyz[:2], other.frame.pose.position_xyz[:2]) > config.cell_m:
        return False
    yaw_rad, other_yaw_rad = one.frame.pose.yaw_rad, other.frame.pose.yaw_rad
    if yaw_rad is None or other_yaw_rad is None or config.sector_deg >= 360.0:
        return True
    return abs(math.degrees(math.remainder(yaw_rad - other_yaw_rad, math.tau))) <= config.sector_deg
