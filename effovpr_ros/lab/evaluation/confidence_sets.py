"""Maps and queries of unlike sources, with what is right: what the shipped confidence is fitted on and judged by.

Each place is asked about twice: with its place in the map, and hidden.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import KDTree

from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.lab.evaluation.appearance import change_appearance, imitate_night, imitate_season
from effovpr_ros.lab.evaluation.ground_truth import Dataset, from_folders, from_loops
from effovpr_ros.lab.simulation.rendered_places import PlacesConfig, RenderedView, render_places
from effovpr_ros.sources.frame import Frame
from effovpr_ros.sources.images import open_image_folder

LEVELS = ("E1M2", "E2M1", "E3M2", "E4M1", "MAP11", "E1M8")
"""Buildings that are rendered; the demo's is none of them."""

# Hidden with the right places: so many neighbours of theirs in order, or places within so many metres.
_HIDDEN_NEIGHBOURS = 3
_HIDDEN_M = 8.0
# Wrong, but seeing much of the same: so many neighbours in order, or metres and spacings of the map's places.
_SHARING_NEIGHBOURS = 12
_SHARING_M, _SHARING_SPACINGS = 25.0, 3.0
_LOOP_GAP = 10
_SMALL_SIDE = {"rtabmap_loop": 160, "lund_walk": 320}
# Of a rendered place: right, and neither right nor wrong.
_RIGHT_M, _RIGHT_RAD, _NEAR_M = 3.0, math.radians(50.0), 6.0
# Numbers of frames of a clip of tower_floors that show one place.
_CLIP_FRAMES = 8
_FLOORS_IN_MAP = 3
_TOWER_GROUPS = ((3, 8, 13, 18), (4, 9, 14, 19), (5, 10, 15, 20), (8, 9, 10, 11), (12, 13, 14, 15), (16, 17, 18, 20))
"""Floors of the tower: the last one of each is not in the map."""
_TOWER_QUERIES = 32


@dataclass(frozen=True)
class Question:
    """One query.

    Attributes:
        frame: the picture.
        condition: what was done to it.
        right: numbers of the pictures of the map that show its place.
        unclear: such as are neither right nor wrong; answers with them do not count.
        hidden: numbers that are left out when the place is hidden; empty where it has none.
        before: only pictures with a smaller number may answer; None: all.
        sharing: numbers that share the scene of the place from farther away. They are wrong, and weigh little in a fit,
            since what speaks for them is seen rightly.
    """

    frame: Frame
    condition: str
    right: frozenset[int]
    unclear: frozenset[int]
    hidden: frozenset[int]
    before: int | None = None
    sharing: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ConfidenceScene:
    """A map and what it is asked.

    Attributes:
        source: set that is left out as a whole.
        name: of the map within it.
        database: pictures of the map.
        questions: about it.
        grows: the map grows while it is asked, as in loop closure, so that what its wrong answers reach is not known.
    """

    source: str
    name: str
    database: Sequence[Frame]
    questions: Sequence[Question]
    grows: bool = False


def scenes(data: Path, scratch: Path) -> Iterator[ConfidenceScene]:
    """All scenes.

    Args:
        data: folder with rtabmap_loop, corridor_walk, lund_walk and tower_floors.
        scratch: where levels are rendered to; what is there already is used.

    Raises:
        SourceError: a set is missing.
        SimulationError: the simulator is not installed.
    """
    yield from _rtabmap_loop(data / "rtabmap_loop")
    yield from _corridor_walk(data / "corridor_walk")
    yield from _lund_walk(data / "lund_walk" / "images")
    yield from _tower_floors(data / "tower_floors")
    for level in LEVELS:
        yield _level(level, scratch / level)


_CHANGES: Mapping[str, Callable[[RgbImage, np.random.Generator], RgbImage]] = {
    "plain": lambda image, rng: image,
    "stance": lambda image, rng: change_appearance(image, 1.0, rng),
    "season": imitate_season,
    "night": imitate_night,
}


def changed(frame: Frame, condition: str, seed: int, side_px: int = 0) -> Frame:
    """A frame in another condition, and shrunk to a longest side where one is given."""

    def load() -> RgbImage:
        image = frame.load()
        scale = side_px / max(image.shape[:2]) if side_px else 1.0
        if scale < 1.0:
            image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        return _CHANGES[condition](image, np.random.default_rng(seed))

    return replace(frame, name=f"{frame.name} {condition} {seed} {side_px}", load=load)


def _asked(dataset: Dataset, number: int, condition: str, side_px: int = 0, before: int | None = None) -> Question:
    right = dataset.positives[number]
    hidden, sharing = (
        frozenset(place + step for place in right for step in range(-reach, reach + 1))
        for reach in (_HIDDEN_NEIGHBOURS, _SHARING_NEIGHBOURS)
    )
    frame = changed(dataset.queries[number], condition, number, side_px)
    return Question(frame, condition, right, frozenset(), hidden, before, sharing - right)


def _rtabmap_loop(folder: Path) -> Iterator[ConfidenceScene]:
    dataset = from_loops(folder / "images", folder / "loops.csv", min_gap=_LOOP_GAP)
    for condition in (*_CHANGES, "small"):
        side_px = _SMALL_SIDE["rtabmap_loop"] if condition == "small" else 0
        change = "plain" if condition == "small" else condition
        questions = [
            replace(_asked(dataset, number, change, side_px, max(0, number - _LOOP_GAP + 1)), condition=condition)
            for number in range(16, len(dataset.queries))
        ]
        database = [changed(frame, "plain", 0, side_px) for frame in dataset.database]
        yield ConfidenceScene("rtabmap_loop", condition, database, questions, grows=True)


def _corridor_walk(folder: Path) -> Iterator[ConfidenceScene]:
    dataset = from_folders(folder / "database", folder / "queries", positives=folder / "positives.csv")
    for condition in _CHANGES:
        every = 1 if condition == "plain" else 3
        questions = [_asked(dataset, number, condition) for number in range(0, len(dataset.queries), every)]
        yield ConfidenceScene("corridor_walk", condition, dataset.database, questions)


def _lund_walk(folder: Path) -> Iterator[ConfidenceScene]:
    frames = sorted(open_image_folder(folder, kind="exif").frames, key=lambda frame: frame.name)
    for condition in (*_CHANGES, "small"):
        side_px = _SMALL_SIDE["lund_walk"] if condition == "small" else 0
        for half in (0, 1):
            database = [changed(frame, "plain", 0, side_px) for frame in frames[half::2]]
            change = "plain" if condition == "small" else condition
            questions, reach_m = [], _sharing_m(database)
            for seed, frame in enumerate(frames[1 - half :: 2]):
                distances_m = [_distance_m(frame, other) for other in database]
                asked = changed(frame, change, seed, side_px)
                questions.append(_at_distances(asked, condition, distances_m, (12.0, 16.0, 25.0, reach_m)))
            yield ConfidenceScene("lund_walk", f"{condition} {half}", database, questions)


def _distance_m(frame: Frame, other: Frame) -> float:
    assert frame.pose is not None and other.pose is not None
    return math.dist(frame.pose.position_xyz[:2], other.pose.position_xyz[:2])


def _sharing_m(database: Sequence[Frame]) -> float:
    positions = [frame.pose.position_xyz[:2] for frame in database if frame.pose is not None]
    nearest_m = KDTree(positions).query(positions, k=2)[0][:, 1]
    return max(_SHARING_M, _SHARING_SPACINGS * float(np.median(nearest_m)))


def _at_distances(
    frame: Frame, condition: str, distances_m: Sequence[float], limits_m: tuple[float, float, float, float]
) -> Question:
    """A question whose places are right, unclear, hidden and sharing the scene within so many metres."""
    right, near, hidden, sharing = (
        frozenset(number for number, value in enumerate(distances_m) if value <= limit) for limit in limits_m
    )
    return Question(frame, condition, right, near - right, hidden, None, sharing - near)


def _tower_floors(folder: Path) -> Iterator[ConfidenceScene]:
    with (folder / "frames.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    frames = {
        frame.name: replace(frame, pose=None) for frame in open_image_folder(folder / "images", kind="plain").frames
    }
    for group, floors in enumerate(_TOWER_GROUPS):
        rng = np.random.default_rng(group)
        on_floor = [[row for row in rows if row["floor"] == f"floor{floor}"] for floor in floors]
        mapped = [row for part in on_floor[:_FLOORS_IN_MAP] for row in part[::2]]
        between = [row for part in on_floor[:_FLOORS_IN_MAP] for row in part[1::2]]
        questions = []
        for number, row in enumerate(_some(between, rng)):
            condition = ("plain", "plain", "stance", "night")[number % 4]
            clip = {place for place, item in enumerate(mapped) if item["clip"] == row["clip"]}
            right = {place for place in clip if abs(int(mapped[place]["frame"]) - int(row["frame"])) <= _CLIP_FRAMES}
            floor = {place for place, item in enumerate(mapped) if item["floor"] == row["floor"]}
            asked = changed(frames[row["image"]], condition, number)
            # Clips of one floor overlap: f09_hallway_main and f09_hallway_alt2 show the same stairs.
            unclear = frozenset(floor - right)
            questions.append(Question(asked, condition, frozenset(right), unclear, frozenset(floor)))
        for row in _some(on_floor[-1], rng):
            nothing: frozenset[int] = frozenset()
            questions.append(Question(frames[row["image"]], "floor not mapped", nothing, nothing, nothing))
        yield ConfidenceScene("tower_floors", f"group {group}", [frames[row["image"]] for row in mapped], questions)


def _some(rows: Sequence[dict[str, str]], rng: np.random.Generator) -> list[dict[str, str]]:
    return [rows[number] for number in rng.permutation(len(rows))[:_TOWER_QUERIES]]


def _level(level: str, folder: Path) -> ConfidenceScene:
    """A rendered building: one view of each place is mapped, two others are asked, one of them in another condition."""
    table = folder / "frames.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            views = [_view(row) for row in csv.DictReader(file)]
    else:
        views = render_places(folder, [level], PlacesConfig(places_per_level=40, views=3, spacing_m=3.0, seed=7))
    frames = {frame.name: frame for frame in open_image_folder(folder, kind="plain").frames}
    mapped = [view for view in views if view.frame == 0]
    database = [replace(frames[view.image], pose=Pose.from_yaw(view.x, view.y, view.yaw)) for view in mapped]
    questions, reach_m = [], _sharing_m(database)
    for number, view in enumerate(item for item in views if item.frame > 0):
        condition = "plain" if view.frame == 1 else ("stance", "season", "night")[number // 2 % 3]
        distances_m = [math.hypot(view.x - other.x, view.y - other.y) for other in mapped]
        asked = _at_distances(
            changed(frames[view.image], condition, number),
            condition,
            distances_m,
            (_RIGHT_M, _NEAR_M, _HIDDEN_M, reach_m),
        )
        turned = [abs(math.remainder(view.yaw - other.yaw, math.tau)) for other in mapped]
        right = frozenset(place for place in asked.right if turned[place] <= _RIGHT_RAD)
        unclear = (asked.unclear | asked.right) - right
        questions.append(replace(asked, right=right, unclear=unclear, hidden=asked.hidden if right else frozenset()))
    return ConfidenceScene(f"level {level}", level, database, questions)


def _view(row: Mapping[str, str]) -> RenderedView:
    x, y, yaw = (float(row[name]) for name in ("x", "y", "yaw"))
    return RenderedView(row["image"], row["area"], row["place"], row["clip"], int(row["frame"]), x, y, yaw)
