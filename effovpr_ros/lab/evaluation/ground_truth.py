"""Data sets: which database images a query may be answered with, and which answers are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.lab.evaluation.named_truth import read_named_truth
from effovpr_ros.lab.evaluation.positions import in_common_frame, positions_xy, within_radius
from effovpr_ros.lab.evaluation.rig_queries import Moment
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.images import ImageFolder, open_image_folder

RADIUS_M = 25.0
"""Within which two images outdoors show one place, as visual place recognition sets have it."""


@dataclass(frozen=True)
class Dataset:
    """A set to evaluate on.

    Attributes:
        name: for reports.
        database: M images that a map is made of. Where they have poses, these are in one frame with the queries'.
        queries: N images.
        positives: for each query, numbers of the database images that show its place; may be empty.
        allowed: for each query, numbers of the database images that it may be answered with.
        map_path: the map that the database images are the places of; None: a map is made of them.
        conditions: for each query, what it was taken in (session, season, ...); empty where the data name none.
        notes: what a reader of the figures has to know: images left out, assumptions made.
        moments: for each query, the images of all cameras, of which the query itself is the first; empty where one
            camera asks.
        database_known: False where only the places that were answered are known, so that nothing is said of a guess;
            the last of `database` then stands for all others.
    """

    name: str
    database: Sequence[Frame]
    queries: Sequence[Frame]
    positives: Sequence[frozenset[int]]
    allowed: Sequence[range]
    map_path: Path | None = None
    conditions: Sequence[str] = ()
    notes: Sequence[str] = ()
    database_known: bool = True
    moments: Sequence[Moment] = ()

    @property
    def limits(self) -> list[range | None]:
        """`allowed`, with None where all database images are."""
        return [None if len(allowed) == len(self.database) else allowed for allowed in self.allowed]

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together.

        Raises:
            EvaluationError: they do not speak of the same number of queries.
        """
        wanted = len(self.queries)
        parts: dict[str, Sequence[object]] = {
            "positives": self.positives,
            "allowed": self.allowed,
            "conditions": self.conditions or self.queries,
        }
        if self.moments:
            parts["moments"] = self.moments
        for part, values in parts.items():
            if len(values) != wanted:
                raise EvaluationError(f"{self.name}: {wanted} queries, but {len(values)} {part}; give one a query")


def from_folders(
    database: Path,
    queries: Path,
    *,
    positives: Path | None = None,
    table: Path | None = None,
    query_table: Path | None = None,
    radius_m: float = RADIUS_M,
) -> Dataset:
    """A database folder and a query folder.

    Args:
        database: images, searched with sub-folders; a query's sub-folder is its condition.
        queries: likewise.
        positives: CSV with a header and the columns query, database (file names, relative to the folders where a name
            alone is ambiguous) and optionally condition or session. Without it images are placed by
            `@utm_east@utm_north@` names, by EXIF, or by the tables.
        table: CSV of the database's positions, see `sources.tables.read_csv`.
        query_table: of the queries'.
        radius_m: without `positives`, images at most this far apart show one place.

    Raises:
        EvaluationError: names that are not there or ambiguous, no positions, coordinates swapped or in degrees where
            metres are due, or no positive at all.
        SourceError: a folder or table cannot be read.
    """
    if (table is None) != (query_table is None):
        raise EvaluationError("--table and --query-table belong together; give both, or neither")
    if positives is not None and table is not None:
        raise EvaluationError("--positives and --table both say what is right; give one of them")
    stored = _open(database, table, plain=positives is not None)
    asked = _open(queries, query_table, plain=positives is not None, datum=stored.datum)
    notes = [*_left_out(database, stored), *_left_out(queries, asked)]
    everything = [range(len(stored.frames))] * len(asked.frames)
    name = _two_folders(queries)
    conditions = _sub_folders(asked.frames)
    if positives is not None:
        truth = read_named_truth(positives, asked.frames, stored.frames)
        conditions = truth.conditions or conditions
        dataset = Dataset(
            name, stored.frames, asked.frames, truth.positives, everything, conditions=conditions, notes=notes
        )
        return require_positives(dataset, f"{positives} names no right answer; add rows of query,database")
    placed = in_common_frame(stored, asked)
    stored_xy = positions_xy(placed.database)
    right = within_radius(stored_xy, positions_xy(placed.queries), radius_m)
    if len(stored_xy) > 1 and all(len(numbers) == len(stored_xy) for numbers in right):
        notes.append(
            f"every database image is within {radius_m:g} m of every query, so that no answer can be wrong; lower the "
            "radius, or check whether the positions are degrees where metres are due"
        )
    remedy = "check the radius, and whether both folders are of one place and their positions in metres or WGS84"
    swapped = sum(map(bool, within_radius(stored_xy, placed.queries_swapped_xy, radius_m))) if not any(right) else 0
    if swapped:
        remedy = f"with {placed.coordinates} swapped {swapped} would: they are swapped in one of the folders"
    dataset = Dataset(name, placed.database, placed.queries, right, everything, conditions=conditions, notes=notes)
    return require_positives(dataset, f"{remedy} (none is within {radius_m:g} m of a database image)")


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
    frames = open_image_folder(images, kind="plain").frames
    allowed = past_frames(len(frames), min_gap)
    truth = read_named_truth(loops, frames, frames, database_is="earlier images")
    conditions = truth.conditions or _sub_folders(frames)
    right = among(truth.positives, allowed)
    dataset = Dataset(_two_folders(images), frames, frames, right, allowed, conditions=conditions)
    return require_positives(dataset, f"{loops} names no image at least {min_gap} frames earlier; lower --min-gap")


def past_frames(count: int, min_gap: int) -> list[range]:
    """For each frame of a drive, numbers of the frames at least so many before it.

    Raises:
        EvaluationError: the gap is less than 1.
    """
    if min_gap < 1:
        raise EvaluationError(f"min_gap {min_gap} must be at least 1, since a frame shows its own place")
    return [range(max(0, number - min_gap + 1)) for number in range(count)]


def among(positives: Sequence[frozenset[int]], allowed: Sequence[range]) -> list[frozenset[int]]:
    """Positives that are allowed."""
    return [frozenset(item for item in found if item in allow) for found, allow in zip(positives, allowed, strict=True)]


def require_positives(dataset: Dataset, reason: str) -> Dataset:
    """The data set, if any query has a right answer.

    Raises:
        EvaluationError: none has; says why and the remedy.
    """
    if not any(dataset.positives):
        raise EvaluationError(f"{dataset.name}: no query has a positive; {reason}")
    return dataset


def _open(folder: Path, table: Path | None, *, plain: bool, datum: Datum | None = None) -> ImageFolder:
    """The folder's images.

    Raises:
        EvaluationError: none can be placed, or the table names images that are not there.
    """
    kind = "plain" if plain else "csv" if table is not None else "auto"
    opened = open_image_folder(folder, kind=kind, table=table, datum=datum)
    missing = [line for line in opened.refused if line.endswith("does not exist")]
    if table is not None and missing:
        raise EvaluationError(
            f"table {table} names {len(missing)} images that {folder} does not have, the first in {missing[0]}; "
            "correct the rows, or name the folder that the table belongs to"
        )
    if not opened.frames:
        first = opened.refused[0] if opened.refused else f"{table or folder} names none"
        raise EvaluationError(
            f"{folder}: no image can be used ({len(opened.refused)} refused as {opened.kind}, the first: {first}); "
            "correct the positions, or name the right answers with --positives"
        )
    return opened


def _two_folders(folder: Path) -> str:
    """The last two names of a path: that of the folder alone is often `queries` or `images`."""
    return "/".join(folder.resolve().parts[-2:])


def _left_out(folder: Path, opened: ImageFolder) -> list[str]:
    if not opened.refused:
        return []
    return [f"{folder}: {len(opened.refused)} images left out, the first: {opened.refused[0]}"]


def _sub_folders(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Sub-folder of each image; none at all where all are in one."""
    folders = tuple(PurePosixPath(frame.name).parent.as_posix() for frame in frames)
    return folders if len(set(folders)) > 1 else ()
