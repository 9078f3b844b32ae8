"""Data sets: which database images a query may be answered with, and which answers are right."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effovpr_ros.errors import EvaluationError
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.images import open_image_folder


@dataclass(frozen=True)
class Dataset:
    """A set to evaluate on.

    Attributes:
        name: for reports.
        database: M images that a map is made of.
        queries: N images.
        positives: for each query, numbers of the database images that show its place; may be empty.
        allowed: for each query, numbers of the database images that it may be answered with.
    """

    name: str
    database: Sequence[Frame]
    queries: Sequence[Frame]
    positives: Sequence[frozenset[int]]
    allowed: Sequence[range]


def from_folders(database: Path, queries: Path, *, positives: Path | None = None, radius_m: float = 25.0) -> Dataset:
    """A database folder and a query folder.

    Args:
        database: images; tagged by `@utm_east@utm_north@` names or EXIF unless `positives` is given.
        queries: likewise.
        positives: CSV with a header and the columns query, database (file names).
        radius_m: without `positives`, images at most this far apart show one place.

    Raises:
        EvaluationError: names that are not there, no positions, coordinates in degrees where metres are due, or no
            positive at all.
        SourceError: a folder cannot be read.
    """
    kind = "plain" if positives else "auto"
    stored = open_image_folder(database, kind=kind)
    asked = open_image_folder(queries, kind=kind, datum=stored.datum)
    if positives is not None:
        right = _from_table(positives, _numbers(asked.frames), _numbers(stored.frames))
    else:
        if not radius_m > 0.0:
            raise EvaluationError(f"radius {radius_m} m is not positive")
        distance = np.linalg.norm(_positions(asked.frames)[:, None] - _positions(stored.frames)[None], axis=2)
        right = [frozenset(np.flatnonzero(row <= radius_m).tolist()) for row in distance]
    everything = [range(len(stored.frames))] * len(asked.frames)
    name = f"{queries.resolve().parent.name}/{queries.resolve().name}"
    return _checked(Dataset(name, stored.frames, asked.frames, right, everything))


def from_loops(images: Path, loops: Path, *, min_gap: int = 10) -> Dataset:
    """One drive against its own past.

    Args:
        images: in natural order of their names.
        loops: CSV with a header and the columns image, earlier image (file names).
        min_gap: a frame may be answered with frames at least so many before it.

    Raises:
        EvaluationError: see `from_folders`.
        SourceError: the folder cannot be read.
    """
    if min_gap < 1:
        raise EvaluationError(f"min_gap {min_gap} must be at least 1, since a frame shows its own place")
    frames = open_image_folder(images, kind="plain").frames
    numbers = _numbers(frames)
    right = _from_table(loops, numbers, numbers)
    allowed = [range(max(0, number - min_gap + 1)) for number in range(len(frames))]
    right = [frozenset(item for item in found if item in among) for found, among in zip(right, allowed, strict=True)]
    return _checked(Dataset(images.resolve().parent.name, frames, frames, right, allowed))


def position_xy_m(frame: Frame) -> tuple[float, float] | None:
    """Where ground truth takes an image to be: UTM metres as its name gives them, else x and y of its pose, else None.

    The names come first because poses made from them have an origin of their own in each folder.
    """
    fields = Path(frame.name).name.split("@")
    if len(fields) > 2 and fields[0] == "":
        return float(fields[1]), float(fields[2])
    return None if frame.pose is None else (frame.pose.position_xyz[0], frame.pose.position_xyz[1])


def _numbers(frames: Sequence[Frame]) -> dict[str, int]:
    """Number by file name without folders.

    Raises:
        EvaluationError: two images have one name.
    """
    numbers: dict[str, int] = {}
    for number, frame in enumerate(frames):
        name = Path(frame.name).name
        if name in numbers:
            raise EvaluationError(f"two images are named {name}; ground truth by file name needs unique names")
        numbers[name] = number
    return numbers


def _from_table(table: Path, queries: dict[str, int], database: dict[str, int]) -> list[frozenset[int]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"ground truth {table} cannot be read: {error}") from error
    right: list[set[int]] = [set() for _ in queries]
    for line, row in enumerate(rows[1:], start=2):
        if len(row) < 2:
            raise EvaluationError(f"{table}, line {line}: wanted two file names, found {','.join(row)!r}")
        query, stored = (Path(cell.strip()).name for cell in row[:2])
        for name, known, where in ((query, queries, "queries"), (stored, database, "database")):
            if name not in known:
                raise EvaluationError(f"{table}, line {line}: {name} is not among the images of the {where}")
        right[queries[query]].add(database[stored])
    return [frozenset(item) for item in right]


def _positions(frames: Sequence[Frame]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(N, 2) metres in one frame: UTM as the names give it, else the pose in the common ENU frame."""
    positions = []
    for frame in frames:
        position = position_xy_m(frame)
        if position is None:
            raise EvaluationError(
                f"{frame.name} has no position; name the images @utm_east@utm_north@...@, give them EXIF GPS, "
                "or name the right answers with --positives"
            )
        positions.append(position)
    values = np.array(positions, np.float64)
    named = Path(frames[0].name).name.startswith("@")
    if named and (np.abs(values) <= 180.0).all():
        raise EvaluationError(
            f"{frames[0].name}: the names hold degrees where UTM metres are due; convert them, or use --positives"
        )
    return values


def _checked(dataset: Dataset) -> Dataset:
    if not any(dataset.positives):
        raise EvaluationError(
            f"{dataset.name}: no query has a positive; check the radius, the ground truth file, and whether easting "
            "and northing are swapped in one of the folders"
        )
    return dataset
