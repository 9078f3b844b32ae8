"""One writer at a time, readers beside it, and what killed writers leave."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.errors import InUseError, MapError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint
from effovpr_ros.mapping.compact import compact_map
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.place_map import PlaceMap

TESTS = str(Path(__file__).parents[1])
HOLD = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from synthetic import new_place
    from effovpr_ros.mapping.place_map import PlaceMap
    place_map = PlaceMap.open({folder!r}, writable=True)
    place_map.add([new_place(number) for number in range(3, 6)])
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A map of three places."""
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number) for number in range(3)])
        place_map.flush()
    return tmp_path / "map"


def test_the_second_writer_is_refused_with_the_first_ones_name_and_process(folder: Path):
    program = textwrap.dedent(HOLD.format(tests=TESTS, folder=str(folder)))
    with subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None and first.stdout.readline() == "held\n"
            for write in (
                lambda: PlaceMap.open(folder, writable=True),
                lambda: GrowingMap.open(folder, writable=True),
                lambda: PlaceMap.create(folder, fingerprint=FINGERPRINT),
                lambda: compact_map(folder),
            ):
                with pytest.raises(InUseError, match=rf"is being written by .*process {first.pid} on "):
                    write()
            with PlaceMap.open(folder) as beside:
                assert [place.place_id for place in beside.places()] == [0, 1, 2, 3, 4, 5]
        finally:
            first.kill()
    with PlaceMap.open(folder, writable=True) as place_map:
        assert len(place_map) == 6


def test_a_second_opening_in_the_same_process_is_refused_until_the_first_is_closed(folder: Path):
    with PlaceMap.open(folder, writable=True), pytest.raises(InUseError, match=f"process {os.getpid()} on "):
        PlaceMap.open(folder, writable=True)
    PlaceMap.open(folder, writable=True).close()
    assert not (folder / "writer.lock").exists()


def test_an_opening_that_fails_holds_nothing(folder: Path):
    (folder / "places.sqlite3").rename(folder / "away")
    with pytest.raises(MapError, match="is missing"):
        PlaceMap.open(folder, writable=True)
    (folder / "away").rename(folder / "places.sqlite3")
    PlaceMap.open(folder, writable=True).close()


def test_a_lock_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    (folder / "writer.lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(MapError, match=r"writer\.lock cannot be written"):
        PlaceMap.open(folder, writable=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_many_that_want_a_lock_have_it_one_after_the_other(tmp_path: Path):
    """Releasing removes the file, which others may just have opened."""
    inside, most, taken = [0], [0], [0]
    guard = threading.Lock()

    def want() -> None:
        for _ in range(300):
            try:
                lock = FileLock(tmp_path / "lock")
            except InUseError:
                continue
            with guard:
                inside[0] += 1
                taken[0] += 1
                most[0] = max(most[0], inside[0])
            with guard:
                inside[0] -= 1
            lock.release()

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and taken[0] > 4


def test_a_reader_beside_a_writer_sees_whole_places(folder: Path):
    problems: list[str] = []
    stop = threading.Event()

    def write() -> None:
        number = 3
        while not stop.is_set():
            with PlaceMap.open(folder, writable=True) as place_map:
                for _ in range(3):
                    place_map.add([new_place(number), new_place(number + 1)])
                    number += 2
                place_map.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            with PlaceMap.open(folder) as place_map:
                descriptors = place_map.global_descriptors()[: len(place_map)]
                found = [place_map.search(row, 1)[0].place.place_id for row in descriptors[-4:]]
                if found != list(range(len(place_map)))[-4:]:
                    problems.append(f"{found} of {len(place_map)}")
                near = place_map.rows_near((0.0, 0.0), 1e9)
                if len(near) != len(place_map):
                    problems.append(f"{len(near)} near of {len(place_map)}")
    finally:
        stop.set()
        writer.join()
    assert problems == []


def test_what_a_reader_opened_stays_while_places_are_forgotten(folder: Path):
    with PlaceMap.open(folder) as reader, GrowingMap.open(folder, writable=True) as growing:
        growing.add([new_place(3)])
        growing.forget([1])
        # Place 1 is gone; the others are where they were.
        assert [reader.place(number).place_id for number in (0, 2)] == [0, 2]
        np.testing.assert_array_equal(reader.rows_near((2.0, 0.0), 0.5), [2])


def hot_journal(folder: Path) -> None:
    """Leave a map as a kill does between the two syncs of a commit."""
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(folder / "places.sqlite3", isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE places SET session = 'lost'")
        for number in range(500):
            connection.execute("INSERT INTO properties VALUES (?, zeroblob(3000))", (f"filler {number}",))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (folder / "places.sqlite3-journal").stat().st_size > 0


def test_a_reader_undoes_what_a_killed_writer_had_begun(folder: Path):
    hot_journal(folder)
    with PlaceMap.open(folder) as place_map:
        assert place_map.check() == []
        assert place_map.sessions == ["a"]
    assert not (folder / "places.sqlite3-journal").exists()


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_read_and_half_done_work_is_named(folder: Path):
    program = "import sys; from effovpr_ros.cli.main import main; sys.exit(main(['map', 'info', sys.argv[1]]))"
    command = [sys.executable, "-P", "-c", program, str(folder)]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid", "65534", "--clear-groups", *command]
    for parent in (folder, *folder.parents):
        if parent.owner() == "root" and parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Permission denied" in result.stderr:
        pytest.skip("another user cannot read this environment")
    assert result.returncode == 0, result.stderr
    hot_journal(folder)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "left by a writer that was killed" in result.stderr and "effovpr map info" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "left",
    [
        [],
        ["writer.lock"],
        ["writer.lock", "places.sqlite3"],
        ["writer.lock", "places.sqlite3", "places.sqlite3-journal"],
        ["places.sqlite3-journal", "places.sqlite3-wal", "places.sqlite3-shm"],
        ["index.faiss.0123abcd.tmp"],
        ["index.faiss", "map.yaml.0123abcd.tmp"],
    ],
)
def test_what_a_killed_creation_left_is_no_reason_to_refuse(tmp_path: Path, left: list[str]):
    (tmp_path / "map").mkdir()
    for name in left:
        (tmp_path / "map" / name).touch()
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(0)])
        place_map.flush()
        assert place_map.check() == []
    assert sorted(path.name for path in (tmp_path / "map").iterdir()) == ["index.faiss", "map.yaml", "places.sqlite3"]


def test_a_store_with_places_is_never_taken_for_a_leftover(folder: Path):
    (folder / "map.yaml").unlink()
    with pytest.raises(MapError, match=r"places\.sqlite3 holds places, but map\.yaml is missing; restore it"):
        PlaceMap.create(folder, fingerprint=FINGERPRINT)
    (folder / "places.sqlite3").write_text("my own notes, of some other program")
    with pytest.raises(MapError, match="holds what cannot be read"):
        PlaceMap.create(folder, fingerprint=FINGERPRINT)
    assert (folder / "places.sqlite3").read_text().startswith("my own notes")


def test_a_datum_is_on_the_disk_before_the_places_that_refer_to_it(tmp_path: Path):
    """A kill between them would leave places of which nobody knows the origin."""
    place_map = PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT)
    place_map.set_datum(Datum(GeoPoint(48.0, 11.0, 500.0)))
    place_map.add([new_place(0)])
    place_map.close()  # as a kill: without flush
    with PlaceMap.open(tmp_path / "map") as place_map:
        assert place_map.datum == Datum(GeoPoint(48.0, 11.0, 500.0))


def test_an_index_is_the_same_whether_made_while_building_or_read_again(tmp_path: Path):
    with PlaceMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number) for number in range(5)])
        place_map.flush()
        built = (tmp_path / "map" / "index.faiss").read_bytes()
    (tmp_path / "map" / "index.faiss").unlink()
    with PlaceMap.open(tmp_path / "map", writable=True) as place_map:
        place_map.flush()
    assert (tmp_path / "map" / "index.faiss").read_bytes() == built


def test_check_finds_an_index_whose_rows_are_of_other_places(folder: Path):
    """Of two maps that are sound, the index of one in the folder of the other, with its checksum."""
    other = folder.parent / "other"
    with PlaceMap.create(other, fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number, session="b") for number in (0, 2, 1)])
        place_map.flush()
        right = place_map.manifest.index_sha256
    shutil.copy(other / "index.faiss", folder / "index.faiss")
    with PlaceMap.open(folder) as place_map:
        wrong = place_map.manifest.index_sha256
    text = (folder / "map.yaml").read_text()
    (folder / "map.yaml").write_text(text.replace(wrong, right))
    with PlaceMap.open(folder) as place_map:
        (problem,) = place_map.check()
    assert problem.startswith("row 1 of index.faiss is not the descriptor of its place")
