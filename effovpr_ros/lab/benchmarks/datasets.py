"""Folders of real images with ground truth, in the layouts that need no options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.core.images import decode_image
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.benchmarks.synthetic import jpeg_of
from effovpr_ros.lab.evaluation.ground_truth import Dataset, from_folders, from_loops
from effovpr_ros.lab.evaluation.positions import in_common_frame, positions_xy, positives_by_pose, within_radius
from effovpr_ros.lab.simulation.drive import (
    LEVEL,
    MAPPING_DRIVE,
    MAPPING_WAYPOINTS_M,
    QUERY_DRIVE,
    QUERY_WAYPOINTS_M,
    plan_drive,
)
from effovpr_ros.lab.simulation.level import Level
from effovpr_ros.lab.simulation.recording import disturb, expose
from effovpr_ros.lab.simulation.score import RIGHT_WITHIN_DEG, RIGHT_WITHIN_M
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.images import open_image_folder

WALK_RADIUS_M = 12.0
"""Within which two photographs of a walk show one place."""


def open_dataset(folder: Path) -> Dataset:
    """A data set by its layout.

    - `database/` and `queries/`, with `positives.csv` (query, database) or positions in the images;
    - `images/` and `loops.csv` (image, earlier image): one drive against its own past;
    - `images/` with GPS tags or `@utm@` names: a walk, whose every second image is a query.

    Raises:
        EvaluationError: none of them, or no right answers.
        SourceError: images cannot be read.
    """
    if (folder / "database").is_dir() and (folder / "queries").is_dir():
        positives = folder / "positives.csv"
        found = from_folders(
            folder / "database", folder / "queries", positives=positives if positives.is_file() else None
        )
    elif (folder / "images").is_dir():
        loops = folder / "loops.csv"
        found = from_loops(folder / "images", loops) if loops.is_file() else _walk(folder / "images")
    else:
        raise EvaluationError(
            f"{folder} has neither database/ and queries/ nor images/; `effovpr bench --help` names the layouts"
        )
    return replace(found, name=folder.resolve().name)


def rendered_drives() -> Dataset:
    """Two drives through the demo's building, a place every 0.75 m, right within 1.5 m and 30 degrees.

    Raises:
        SimulationError: the simulator is not installed.
    """
    with Level(LEVEL) as level:
        floor = level.free_floor()
        database = _rendered(level, plan_drive(floor, MAPPING_WAYPOINTS_M, MAPPING_DRIVE)[::2], "first", None)
        queries = _rendered(level, plan_drive(floor, QUERY_WAYPOINTS_M, QUERY_DRIVE)[::3], "second", QUERY_DRIVE.seed)
    right = positives_by_pose(database, queries, radius_m=RIGHT_WITHIN_M, max_heading_deg=RIGHT_WITHIN_DEG)
    return Dataset("rendered drives", database, queries, right, [range(len(database))] * len(queries))


def _walk(images: Path) -> Dataset:
    folder = open_image_folder(images)
    if len(folder.frames) < 2:
        raise EvaluationError(
            f"{images}: {len(folder.frames)} images say where they were taken ({len(folder.refused)} refused); give "
            "GPS tags or @utm_east@utm_north@ names, or a loops.csv beside the folder"
        )
    stored, asked = replace(folder, frames=folder.frames[::2]), replace(folder, frames=folder.frames[1::2])
    placed = in_common_frame(stored, asked)
    right = within_radius(positions_xy(placed.database), positions_xy(placed.queries), WALK_RADIUS_M)
    everything = [range(len(placed.database))] * len(placed.queries)
    return Dataset(images.name, placed.database, placed.queries, right, everything)


def _rendered(level: Level, poses: Sequence[tuple[int, Pose]], session: str, seed: int | None) -> list[Frame]:
    """Frames of a drive; with the disturbances of another day where they have a seed."""
    generator = np.random.default_rng(seed)
    frames = []
    for stamp_ns, wanted in poses:
        x, y, _ = wanted.position_xyz
        picture, (x, y, yaw) = level.view(x, y, wanted.known_yaw_rad)
        picture = expose(picture)
        if seed is not None:
            picture = disturb(picture, (stamp_ns - poses[0][0]) * 1e-9, generator)
        frames.append(
            Frame(
                f"{stamp_ns}",
                session,
                stamp_ns,
                Pose.from_yaw(x, y, yaw),
                None,
                partial(decode_image, jpeg_of(picture), session),
            )
        )
    return frames
