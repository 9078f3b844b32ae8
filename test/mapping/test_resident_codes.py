"""Codes that stay on a device: what is kept, what is read again, and that scores are the CPU's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import FINGERPRINT, new_place

from effovpr_ros.core.errors import MapError
from effovpr_ros.features.image_features import Features, LocalFeatures
from effovpr_ros.mapping.growing_map import GrowingMap
from effovpr_ros.mapping.resident_codes import ResidentCodes
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import Reranker

CONFIG = RerankConfig(min_similarity=0.3)
WIDTH, GRID = 16, 6
ROW_BYTES = WIDTH // 2 + 2


def seen(number: int, size: int = GRID * GRID) -> Features:
    rng = np.random.default_rng(number)
    cells = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2).astype(np.uint8)
    chosen = cells[np.sort(rng.permutation(GRID * GRID)[:size])]
    codes = rng.integers(-7, 8, (size, WIDTH)).astype(np.int8)
    return Features(np.eye(4, dtype=np.float32)[number % 4], LocalFeatures(codes, chosen), (GRID, GRID))


@pytest.fixture
def place_map(tmp_path: Path) -> Iterator[GrowingMap]:
    """Ten places of 36 keypoints, but for place 3 of 20 and place 4 of none."""
    with GrowingMap.create(tmp_path / "map", fingerprint=replace(FINGERPRINT, local_dim=WIDTH)) as opened:
        sizes = {3: 20, 4: 0}
        opened.add([new_place(n, features=seen(n, sizes.get(n, 36))) for n in range(10)])
        yield opened


@pytest.fixture
def read(place_map: GrowingMap, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the places that were read since."""
    numbers: list[int] = []
    original = place_map.store.packed_local

    def packed_local(place_ids: Sequence[int], width: int) -> object:
        numbers.extend(place_ids)
        return original(place_ids, width)

    monkeypatch.setattr(place_map.store, "packed_local", packed_local)
    return numbers


def require_scores(resident: ResidentCodes, place_map: GrowingMap, query: LocalFeatures, asked: list[int]) -> None:
    wanted = Reranker(CONFIG).score(query, place_map.packed_local(asked))
    found = resident.score(query, asked, CONFIG)
    assert [(a.num_matches, a.num_consistent) for a in found] == [(b.num_matches, b.num_consistent) for b in wanted]
    assert [item.score for item in found] == pytest.approx([item.score for item in wanted], rel=1e-9)


def test_places_are_read_once(place_map: GrowingMap, read: list[int]):
    resident = ResidentCodes(place_map, "cpu", 10_000)
    query = seen(7).local
    found = resident.score(query, [7, 4, 2], CONFIG)
    # Place 7 itself: all 36 patches match where they are; place 4 has none.
    assert (found[0].num_matches, found[0].num_consistent) == (36, 36)
    assert (found[1].num_matches, found[1].score) == (0, 0.0)
    assert read == [7, 4, 2]
    assert resident.score(query, [2, 7], CONFIG) == [found[2], found[0]]
    assert read == [7, 4, 2]
    # Room for the whole map was taken at once: 24 rows a place on average, so far.
    assert (len(resident), resident.summary) == (3, "3 places on cpu (0 MB) of a map of 10")
    require_scores(resident, place_map, query, [0, 3, 4, 5, 7])


def test_all_that_fits_is_read_at_once(place_map: GrowingMap, read: list[int], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    resident = ResidentCodes(place_map, "cpu", 10_000)
    resident.fill()
    resident.fill()
    assert read == list(range(10))
    assert [record.message for record in caplog.records] == [
        "local descriptors: 10 places on cpu (0 MB) of a map of 10"
    ]
    require_scores(resident, place_map, seen(1).local, [9, 1, 3, 4, 0])


def test_what_does_not_fit_is_copied_for_each_query(
    place_map: GrowingMap, read: list[int], caplog: pytest.LogCaptureFixture
):
    # 100 rows: two places of 36 and the one of 20.
    resident = ResidentCodes(place_map, "cpu", 100 * ROW_BYTES)
    asked = [0, 1, 3, 5, 6]
    require_scores(resident, place_map, seen(5).local, asked)
    assert len(resident) == 3
    read.clear()
    require_scores(resident, place_map, seen(0).local, asked)
    # By the comparison nothing: its places are in the map's own memory.
    assert read == [5, 6]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "3 places on cpu" in warnings[0]


def test_without_any_room_all_are_copied(place_map: GrowingMap, read: list[int]):
    resident = ResidentCodes(place_map, "cpu", 0)
    require_scores(resident, place_map, seen(2).local, [2, 3, 4])
    assert len(resident) == 0
    resident.fill()
    assert len(resident) == 0


def test_places_added_later_are_found_and_forgotten_ones_make_room(place_map: GrowingMap):
    # All 344 rows of the ten places, and one place more.
    resident = ResidentCodes(place_map, "cpu", (8 * 36 + 20 + 36) * ROW_BYTES)
    resident.fill()
    assert len(resident) == 10
    (new,) = place_map.add([new_place(10, features=seen(10))])
    require_scores(resident, place_map, seen(10).local, [1, new])
    assert len(resident) == 11
    place_map.forget([0, 1, 2])
    (newer,) = place_map.add([new_place(11, features=seen(11))])
    require_scores(resident, place_map, seen(11).local, [5, newer])
    # There was no room for place 11, with three places that nobody has any more: begun anew with what was asked for.
    assert len(resident) == 2
    with pytest.raises(MapError, match="no place 1"):
        resident.score(seen(1).local, [1], CONFIG)


def test_a_damaged_place_is_left_out_until_it_is_asked_for(place_map: GrowingMap, caplog: pytest.LogCaptureFixture):
    with place_map.store._database.transaction() as connection:
        connection.execute("UPDATE local_descriptors SET checksum = checksum + 1 WHERE place_id = 5")
    resident = ResidentCodes(place_map, "cpu", 10_000)
    resident.fill()
    assert "place 5" in caplog.text
    require_scores(resident, place_map, seen(6).local, [6, 7])
    with pytest.raises(MapError, match="place 5"):
        resident.score(seen(6).local, [5, 6], CONFIG)


def test_the_map_keeps_one_for_all_who_ask(place_map: GrowingMap, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("effovpr_ros.mapping.resident_codes.room_on", lambda device: 1000)
    assert place_map.codes_on("cpu") is place_map.codes_on("cpu")
    assert place_map.codes_on("cpu") is place_map.resident
