"""A map that several threads ask at once, and one that is closed meanwhile: right answers or the package's error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import FINGERPRINT, features, new_place

from effovpr_ros.core.errors import MapError
from effovpr_ros.features.image_features import PackedLocal
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.local_cache import LocalCache
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import CandidateScore, Reranker

QUERY = features((1.0, 0.5, 0.25, 0.125))
ROUNDS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "map"
    with PlaceMap.create(path, fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number) for number in range(40)])
        place_map.flush()
    return path


def ask(place_map: PlaceMap) -> list[CandidateScore]:
    found = place_map.search(QUERY.global_descriptor, 20)
    local = place_map.packed_local([candidate.place.place_id for candidate in found])
    return Reranker(RerankConfig()).score(QUERY.local, local)


def in_threads(count: int, work: Callable[[], None]) -> list[BaseException]:
    """What the threads could not do."""
    failures: list[BaseException] = []

    def caught() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=caught) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not any(thread.is_alive() for thread in threads)
    return failures


def test_threads_share_one_map_whose_memory_is_full(folder: Path):
    with PlaceMap.open(folder) as place_map:
        # Of 20 places that each question reads, three fit.
        place_map._cache = LocalCache(3 * (QUERY.local.packed.codes.nbytes + QUERY.local.cells_xy.nbytes))
        expected = ask(place_map)

        def work() -> None:
            for _ in range(ROUNDS):
                assert ask(place_map) == expected

        assert in_threads(4, work) == []


def test_a_map_that_is_closed_while_threads_ask_answers_or_says_so(folder: Path):
    with PlaceMap.open(folder) as place_map:
        expected = ask(place_map)
    shared = [PlaceMap.open(folder)]
    done = threading.Event()
    answered = []

    def work() -> None:
        while not done.is_set():
            try:
                answered.append(ask(shared[0]) == expected)
            except MapError as error:
                assert "closed" in str(error)

    def exchange() -> None:
        for _ in range(ROUNDS):
            before, shared[0] = shared[0], PlaceMap.open(folder)
            before.close()
        while not answered:
            done.wait(0.01)
        done.set()

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    assert in_threads(3, work) == []
    exchanging.join(60.0)
    assert all(answered)
    shared[0].close()


def test_a_growing_map_is_copied_while_it_grows(tmp_path: Path):
    with GrowingMap.create(tmp_path / "map", fingerprint=FINGERPRINT) as growing:
        growing.add([new_place(0)])
        copies = iter(range(ROUNDS))
        lock = threading.Lock()

        def copy() -> None:
            for _ in range(3):
                with lock:
                    number = next(copies)
                growing.save_copy(tmp_path / f"copy{number}")

        copying = threading.Thread(target=lambda: failures.extend(in_threads(2, copy)))
        failures: list[BaseException] = []
        copying.start()
        for number in range(1, ROUNDS):
            growing.add([new_place(number)])
            assert len(ask(growing)) == min(len(growing), 20)
            if number % 10 == 5:
                growing.forget([number - 3])
        copying.join(60.0)
        assert failures == []
    for number in range(6):
        with PlaceMap.open(tmp_path / f"copy{number}") as copy_of_it:
            assert copy_of_it.check() == []
            assert len(copy_of_it) >= 1


def local(size: int) -> PackedLocal:
    return PackedLocal(np.zeros((size, 1), np.uint8), np.zeros((size, 2), np.uint8))


def test_the_memory_counts_a_place_once_and_forgets_the_oldest():
    cache = LocalCache(30)
    cache.put_all({1: local(4)})  # 12 bytes
    cache.put_all({1: local(4)})  # the same place, read by another thread
    cache.put_all({2: local(4)})
    assert set(cache.found([1, 2, 3])) == {1, 2}
    cache.found([1])
    cache.put_all({3: local(4)})  # 36 bytes: place 2 was used longest ago
    assert set(cache.found([1, 2, 3])) == {1, 3}
