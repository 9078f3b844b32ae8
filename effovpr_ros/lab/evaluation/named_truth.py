"""Right answers that a table names by image file: positives.csv and loops.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.sources.frame import Frame

CONDITION_COLUMNS = ("condition", "session")


@dataclass(frozen=True)
class NamedTruth:
    """What a table says.

    Attributes:
        positives: for each query, numbers of the database images that show its place.
        conditions: for each query, what the column `condition` or `session` says, empty where no row does; none at
            all without such a column.
    """

    positives: list[frozenset[int]]
    conditions: tuple[str, ...]


class ImageNames:
    """Images by the names that a table may give them: any end of their path that tells them apart."""

    def __init__(self, frames: Sequence[Frame], where: str) -> None:
        """Index the frames of a folder; `where` is what messages call it."""
        self._where = where
        self._by_name: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for number, frame in enumerate(frames):
            parts = PurePosixPath(frame.name).parts
            self._by_name.setdefault(parts[-1], []).append((parts, number))

    def number(self, name: str) -> int:
        """Number of the image that a name means.

        Args:
            name: path relative to the folder, or an end of it, or a longer path that ends in it.

        Raises:
            EvaluationError: no image, or several have the name.
        """
        wanted = PurePosixPath(name.replace("\\", "/")).parts
        fitting = []
        for parts, number in self._by_name.get(wanted[-1] if wanted else "", []):
            shared = min(len(parts), len(wanted))
            if parts[-shared:] == wanted[-shared:]:
                fitting.append((shared, parts == wanted, parts, number))
        if not fitting:
            raise EvaluationError(
                f"{name} is not among the images of the {self._where}; correct the table, or copy the image there"
            )
        best = max((shared, exact) for shared, exact, _, _ in fitting)
        chosen = [(parts, number) for shared, exact, parts, number in fitting if (shared, exact) == best]
        if len(chosen) > 1:
            listed = ", ".join("/".join(parts) for parts, _ in chosen[:3])
            raise EvaluationError(
                f"two images are named {name} in the {self._where} ({listed}); name them relative to the folder"
            )
        return chosen[0][1]


def read_named_truth(
    table: Path, queries: Sequence[Frame], database: Sequence[Frame], *, database_is: str = "database"
) -> NamedTruth:
    """Read a CSV with a header whose first two columns are query and database image.

    Args:
        table: the file; a column `condition` or `session` names what the query was taken in.
        queries: images that the first column names.
        database: images that the second column names.
        database_is: what messages call the database.

    Raises:
        EvaluationError: unreadable, a row of another form, an image that is not there or whose name is ambiguous, or
            two conditions for one query.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"ground truth {table} cannot be read: {error}") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in CONDITION_COLUMNS if name in header[2:]), None)
    query_names, database_names = ImageNames(queries, "queries"), ImageNames(database, database_is)
    right: list[set[int]] = [set() for _ in queries]
    conditions: dict[int, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        where = f"{table}, line {line}"
        if len(row) < 2:
            raise EvaluationError(f"{where}: wanted two file names, found {','.join(row)!r}")
        try:
            query, stored = query_names.number(row[0].strip()), database_names.number(row[1].strip())
        except EvaluationError as error:
            raise EvaluationError(f"{where}: {error}") from error
        right[query].add(stored)
        if column is not None:
            condition = row[column].strip() if column < len(row) else ""
            if conditions.setdefault(query, condition) != condition:
                raise EvaluationError(
                    f"{where}: {row[0].strip()} has the {header[column]} {condition!r}, and {conditions[query]!r} "
                    "above; a query has one"
                )
    named = tuple(conditions.get(number, "") for number in range(len(queries))) if column is not None else ()
    return NamedTruth([frozenset(item) for item in right], named)
