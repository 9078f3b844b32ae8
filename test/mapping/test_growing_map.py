"""A map that grows while a robot drives: forgetting, frames of poses, copies, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import FINGERPRINT, features, new_place

from effovpr_ros.core.errors import EvaluationError, MapError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.lab.evaluation.bag_truth import map_frames
from effovpr_ros.loop_closure.keyframe_map import keyframes_to_forget
from effovpr_ros.mapping import index as index_module
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.index import DescriptorIndex
from effovpr_ros.mapping.place import Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.place_table import PlaceTable
from effovpr_ros.mapping.sessions import summarise
from effovpr_ros.recognition.same_place import distance_between_m

AXES = np.eye(4, dtype=np.float32)


def grown(folder: Path, count: int) -> GrowingMap:
    place_map = GrowingMap.create(folder, fingerprint=FINGERPRINT, name="grown")
    for number in range(count):
        place_map.add([new_place(number)])
    return place_map


def ids(place_map: PlaceMap) -> list[int]:
    return [place.place_id for place in place_map.places()]


def descriptor(number: int) -> NDArray[np.float32]:
    return new_place(number).features.global_descriptor


def found(place_map: PlaceMap, number: int, *, before: int | None = None) -> list[int]:
    """Places by their likeness to the first look of one of them."""
    return [candidate.place.place_id for candidate in place_map.search(descriptor(number), 9, before=before)]


def test_the_search_stops_before_a_number(tmp_path: Path):
    with grown(tmp_path / "map", 12) as place_map:
        everything = place_map.search(descriptor(9), 12)
        assert everything[0].place.place_id == 9
        before = place_map.search(descriptor(9), 12, before=5)
        assert before == [candidate for candidate in everything if candidate.place.place_id < 5]
        assert place_map.search(descriptor(9), 12, before=0) == []
        assert place_map.search(descriptor(9), 12, before=99) == everything
        odd = place_map.search(descriptor(9), 12, before=5, within=lambda place: place.place_id % 2 == 1)
        assert odd == [candidate for candidate in everything if candidate.place.place_id in (1, 3)]


def test_what_is_forgotten_is_gone_and_the_others_keep_their_numbers(tmp_path: Path):
    with grown(tmp_path / "map", 6) as place_map:
        expected = {number: place_map.local_features([number])[0].codes.copy() for number in (0, 3, 5)}
        place_map.local_features([1])
        place_map.forget([1, 2, 4])
        with pytest.raises(MapError, match="no place 1"):
            place_map.local_features([1])
        assert ids(place_map) == [0, 3, 5]
        assert found(place_map, 3)[0] == 3
        assert set(found(place_map, 2)) == {0, 3, 5}
        assert set(found(place_map, 5, before=5)) == {0, 3}
        assert place_map.place(5).stamp_ns == 5
        with pytest.raises(MapError, match="no place 4"):
            place_map.place(4)
        assert place_map.add([new_place(6)]) == [6]
        for number, codes in expected.items():
            np.testing.assert_array_equal(place_map.local_features([number])[0].codes, codes)
        place_map.flush()
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert ids(place_map) == [0, 3, 5, 6]
        assert place_map.check() == []
        assert found(place_map, 6)[0] == 6
        assert place_map.global_descriptors().shape == (4, 4)


def test_an_evaluation_refuses_a_map_with_gaps(tmp_path: Path):
    with grown(tmp_path / "map", 3) as place_map:
        assert len(map_frames(place_map)) == 3
        place_map.forget([1])
        with pytest.raises(EvaluationError, match="has forgotten 1 of 3 places"):
            map_frames(place_map)


def test_a_lowered_limit_is_reached_in_batches(tmp_path: Path):
    with grown(tmp_path / "map", 150) as place_map:
        assert len(keyframes_to_forget(place_map, 10)) <= 64
        while gone := keyframes_to_forget(place_map, 10):
            place_map.forget(gone)
        assert len(place_map) == 10


def test_the_newest_place_and_unknown_ones_are_not_forgotten(tmp_path: Path):
    with grown(tmp_path / "map", 3) as place_map:
        with pytest.raises(MapError, match="newest"):
            place_map.forget([2])
        with pytest.raises(MapError, match="no place 7"):
            place_map.forget([7])
        assert ids(place_map) == [0, 1, 2]


def test_a_map_that_forgot_and_was_killed_opens(tmp_path: Path):
    place_map = grown(tmp_path / "map", 5)
    place_map.flush()
    place_map.forget([0, 1, 2])
    # As after a kill: neither index nor manifest was written since.
    with PlaceMap.open(tmp_path / "map") as read:
        assert ids(read) == [3, 4]
        assert found(read, 4)[0] == 4
    place_map.close()


def test_the_file_does_not_grow_while_as_much_is_forgotten_as_comes(tmp_path: Path):
    with grown(tmp_path / "map", 200) as place_map:
        place_map.forget(ids(place_map)[:100])
        place_map.close()
        size = (tmp_path / "map" / "places.sqlite3").stat().st_size
    with GrowingMap.open(tmp_path / "map", writable=True) as place_map:
        for start in range(200, 600, 100):
            place_map.add([new_place(number) for number in range(start, start + 100)])
            place_map.forget(ids(place_map)[:100])
        assert len(place_map) == 100
    assert (tmp_path / "map" / "places.sqlite3").stat().st_size < 1.3 * size


def test_likeness_is_that_of_the_nearest_other_place(tmp_path: Path):
    directions = [AXES[0], AXES[0] + 0.1 * AXES[1], AXES[2], AXES[2]]
    with GrowingMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number, features=features(way)) for number, way in enumerate(directions)])
        alike = place_map.likeness([0, 1, 2, 3])
        assert [number for number, _ in alike] == [1, 0, 3, 2]
        cosine = 1.0 / np.sqrt(1.01)
        np.testing.assert_allclose([value for _, value in alike], [cosine, cosine, 1.0, 1.0], atol=1e-5)


def test_of_alike_keyframes_one_goes_and_one_stays(tmp_path: Path):
    # Three places that were seen twice, and one that was seen once.
    ways = [AXES[0], AXES[1], AXES[2], AXES[3], AXES[0], AXES[1], AXES[2]]
    with GrowingMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number, features=features(way)) for number, way in enumerate(ways)])
        assert keyframes_to_forget(place_map, 7) == []
        assert keyframes_to_forget(place_map, 0) == []
        gone = keyframes_to_forget(place_map, 4)
        assert len(gone) == 3
        assert {number % 4 for number in gone} == {0, 1, 2}
        assert 6 not in gone
        assert 2 in gone
        assert not set(keyframes_to_forget(place_map, 4, keep=[0, 1])) & {0, 1}
        place_map.forget(gone)
        seen = {int(place_map.global_descriptors()[row].argmax()) for row in range(4)}
        assert seen == {0, 1, 2, 3}


def test_codes_shrink_to_an_exact_index(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index_module, "FLAT_FLOATS", 8 * 50)
    values = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    index = DescriptorIndex(8)
    index.add(values)
    assert not index.is_exact
    index.remove(range(0, 40, 2))
    assert index.is_exact
    kept = np.delete(values, range(0, 40, 2), axis=0)
    for query in values[:5]:
        np.testing.assert_array_equal(index.search(query, 5)[0], np.argsort(-(kept @ query))[:5])


def test_an_index_that_stays_exact_makes_no_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(index_module, "FLAT_FLOATS", 4 * 5)
    index = DescriptorIndex(4, stays_exact=True)
    index.add(np.repeat(AXES, 2, axis=0))
    assert index.is_exact
    with grown(tmp_path / "map", 8) as place_map:
        assert found(place_map, 7)[0] == 7
    with GrowingMap.open(tmp_path / "map") as place_map:
        assert found(place_map, 7)[0] == 7


def place(number: int, *, session: str = "a") -> Place:
    return Place(number, session, number, f"{number}", Pose.from_yaw(float(number), 0.0, 0.0), None, (4, 4))


def frames_of(place_map: PlaceMap) -> list[str]:
    return [place.own_frame for place in place_map.places()]


def test_each_track_has_a_frame_and_the_first_with_poses_the_maps(tmp_path: Path):
    with GrowingMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.begin_pose_frame("a")
        place_map.add([new_place(0, pose=None)])
        place_map.begin_pose_frame("a")
        place_map.add([new_place(1), new_place(2)])
        place_map.begin_pose_frame("a")
        # Nothing came of this one.
        place_map.begin_pose_frame("b")
        place_map.begin_pose_frame("b")
        place_map.add([new_place(3, session="b"), new_place(4)])
        place_map.begin_pose_frame("b")
        place_map.add([new_place(5, session="b")])
        expected = ["", "", "", "b/track_3", "a/track_3", "b/track_5"]
        assert frames_of(place_map) == expected
        assert [seen.pose is not None for seen in place_map.places()] == [False] + [True] * 5
        assert [seen.map_pose is not None for seen in place_map.places()] == [False, True, True, False, False, False]
        assert distance_between_m(place_map.place(1), place_map.place(2)) == 1.0
        assert distance_between_m(place_map.place(2), place_map.place(4)) is None
        place_map.forget([3])
        place_map.save_copy(tmp_path / "copy")
    with PlaceMap.open(tmp_path / "copy") as copy:
        assert frames_of(copy) == [*expected[:3], *expected[4:]]
        assert [summary.frame_id for summary in summarise(copy.places(), copy.frame_id, {})] == [
            "map, a/track_3",
            "b/track_5",
        ]


def test_a_track_never_takes_the_frame_of_a_geo_referenced_map(tmp_path: Path):
    datum = Datum(GeoPoint(50.0, 8.0))
    with GrowingMap.create(tmp_path / "map", fingerprint=FINGERPRINT, datum=datum) as place_map:
        place_map.begin_pose_frame("a")
        place_map.add([new_place(0)])
        assert frames_of(place_map) == ["a/track_0"]


class StoredPlaces:
    """What a table reads, and how often it was asked for places."""

    def __init__(self, places: list[Place]) -> None:
        self.kept = places
        self.asked: list[list[int] | None] = []

    def place_ids(self) -> list[int]:
        return [place.place_id for place in self.kept]

    def sessions(self) -> list[str]:
        return list(dict.fromkeys(place.session for place in self.kept))

    def places(self, place_ids: Sequence[int] | None = None) -> list[Place]:
        self.asked.append(None if place_ids is None else list(place_ids))
        return [place for place in self.kept if place_ids is None or place.place_id in place_ids]


def test_a_table_finds_places_by_number_and_row():
    stored = StoredPlaces([place(2, session="b"), place(5), place(9, session="b")])
    table = PlaceTable(stored)
    assert (table.next_id, table.sessions, table.rows_before(6)) == (10, ["b", "a"], 2)
    assert [table.row_of(number) for number in (2, 5, 9)] == [0, 1, 2]
    stored.kept = [place(5)]
    table.forget({2, 9})
    assert (table.next_id, table.sessions, len(table)) == (6, ["a"], 1)
    assert PlaceTable(StoredPlaces([])).next_id == 0


def test_a_table_reads_each_place_once_and_only_when_it_is_asked_for():
    stored = StoredPlaces([place(number) for number in (2, 5, 9)])
    table = PlaceTable(stored)
    table.append([place(12)])
    assert stored.asked == []
    assert [found.place_id for found in table.at_rows([2, 0, 3])] == [9, 2, 12]
    assert [found.place_id for found in table.at_rows([0, 1])] == [2, 5]
    assert stored.asked == [[9, 2], [5]]
    assert [found.place_id for found in table.places(at_most=2)] == [2, 9]
    assert len(table.places(at_most=3)) == 2
    assert [found.place_id for found in table.places()] == [2, 5, 9, 12]
    assert stored.asked == [[9, 2], [5]]


def test_a_copy_is_whole_while_the_map_grows(tmp_path: Path):
    place_map = grown(tmp_path / "map", 50)
    stop = threading.Event()

    def grow() -> None:
        number = 50
        while not stop.is_set():
            place_map.add([new_place(number)])
            number += 1

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        place_map.save_copy(tmp_path / "copy", "saved")
    finally:
        stop.set()
        thread.join()
    with PlaceMap.open(tmp_path / "copy") as copy:
        assert copy.name == "saved"
        assert copy.check() == []
        assert 50 <= len(copy) <= len(place_map)
        assert ids(copy) == list(range(len(copy)))
        assert found(copy, 49)[0] == 49
    assert [entry.name for entry in tmp_path.iterdir() if "saving" in entry.name] == []
    place_map.close()


def test_a_copy_replaces_nothing(tmp_path: Path):
    with grown(tmp_path / "map", 2) as place_map:
        (tmp_path / "empty").mkdir()
        place_map.save_copy(tmp_path / "empty")
        # The same again is there already, as after a kill at the very end.
        place_map.save_copy(tmp_path / "empty")
        place_map.add([new_place(2)])
        with pytest.raises(MapError, match="in use"):
            place_map.save_copy(tmp_path / "empty")
    with PlaceMap.open(tmp_path / "empty") as copy:
        assert (copy.name, len(copy)) == ("empty", 2)


def test_a_closed_map_is_one_file_again(tmp_path: Path):
    grown(tmp_path / "map", 2).close()
    assert sorted(entry.name for entry in (tmp_path / "map").iterdir()) == ["index.faiss", "map.yaml", "places.sqlite3"]


GROW = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import FINGERPRINT, new_place
from effovpr_ros.mapping.growing_map import GrowingMap
place_map = GrowingMap.create({folder!r}, fingerprint=FINGERPRINT)
number = 0
while True:
    place_map.add([new_place(number)])
    print(number, flush=True)
    if number % 40 == 39:
        place_map.forget([place.place_id for place in place_map.places()[:10]])
    number += 1
"""


def test_a_kill_9_loses_nothing_that_was_added(tmp_path: Path):
    folder = tmp_path / "map"
    program = GROW.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = -1
    while told < 200:
        told = int(process.stdout.readline())
    time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    # The manifest still claims no places; all are there, and the map goes on.
    with GrowingMap.open(folder, writable=True) as place_map:
        assert place_map.next_id - 1 in (told, told + 1)
        assert len(place_map) in range(told + 1 - 10 * ((told + 2) // 40), told + 3)
        assert found(place_map, told)[0] == told
        assert place_map.add([new_place(10_000)]) == [place_map.next_id - 1]
        place_map.flush()
    with PlaceMap.open(folder) as place_map:
        assert place_map.check() == []
