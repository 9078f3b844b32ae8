"""The descriptor index against exact search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from effovpr_ros.core.errors import DescriptorShapeError, MapFormatError
from effovpr_ros.mapping import index as index_module
from effovpr_ros.mapping import index_codes, index_file
from effovpr_ros.mapping.index import DescriptorIndex, IndexSummary
from effovpr_ros.mapping.index_file import StoredIndex, file_sha256, write_index


def unit(count: int, width: int = 16, seed: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_flat_search_is_exact():
    stored, queries = unit(500), unit(20, seed=1)
    index = DescriptorIndex(16)
    index.add(stored[:200])
    index.add(stored[200:])
    for query in queries:
        numbers, similarities = index.search(query, 10)
        expected = np.argsort(-(stored @ query), kind="stable")[:10]
        np.testing.assert_array_equal(numbers, expected)
        np.testing.assert_allclose(similarities, stored[expected] @ query, atol=1e-6)


def test_equal_cosines_come_by_number():
    index = DescriptorIndex(2)
    index.add(np.array([[0, 1], [1, 0], [0, 1], [0, 1]], np.float32))
    assert index.search(np.array([0, 1], np.float32), 3)[0].tolist() == [0, 2, 3]


def test_search_among_some_and_with_too_large_k():
    stored = unit(30)
    index = DescriptorIndex(16)
    index.add(stored)
    numbers, _ = index.search(stored[3], 5, among=[7, 9, 3])
    assert sorted(numbers.tolist()) == [3, 7, 9]
    assert numbers[0] == 3
    assert len(index.search(stored[0], 99)[0]) == 30
    assert len(index.search(stored[0], 5, among=[])[0]) == 0
    assert len(DescriptorIndex(16).search(stored[0], 5)[0]) == 0


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many descriptors of 16 dimensions are compared as they are."""
    monkeypatch.setattr(index_module, "FLAT_FLOATS", 16 * 2000)
    return 2000


def recall_at_10(index: DescriptorIndex, stored: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    found = [set(index.search(query, 10)[0]) & set(np.argsort(-(stored @ query))[:10]) for query in queries]
    return sum(map(len, found)) / (10 * len(queries))


def test_a_large_index_has_codes_that_find_nearly_all(small_limit: int):
    stored, queries = unit(6000), unit(50, seed=2)
    index = DescriptorIndex(16)
    index.add(stored[:small_limit])
    assert index.is_exact
    assert index.summary == IndexSummary("flat", 0, 1.0)
    index.add(stored[small_limit:4000])
    assert not index.is_exact
    index.add(stored[4000:])
    assert recall_at_10(index, stored, queries) >= 0.98
    numbers, similarities = index.search(queries[0], 10)
    np.testing.assert_allclose(similarities, stored[numbers] @ queries[0], atol=1e-3)


def test_the_recall_is_measured_when_descriptors_have_changed(small_limit: int, monkeypatch: pytest.MonkeyPatch):
    index = DescriptorIndex.build(16, 4000, lambda: [unit(2500), unit(1500, seed=3)])
    assert index.summary.kind == "codes"
    assert index.summary.recall_at_10 is not None
    assert index.summary.recall_at_10 >= 0.97
    index.add(unit(1, seed=4))
    assert index.summary.recall_at_10 is None
    # Where codes are no better than chance, the measurement says so.
    monkeypatch.setattr(index_module, "choose_rescored", lambda _: (6400, 0.5))
    index.measure()
    assert index.summary == IndexSummary("codes", 6400, 0.5)


def test_more_descriptors_are_compared_where_few_do_not_suffice(monkeypatch: pytest.MonkeyPatch):
    descriptors = unit(20_000, 64)
    index = index_codes.make_codes(descriptors)
    index.add(descriptors)
    monkeypatch.setattr(index_codes, "_FEWEST_RESCORED", 10)
    rescored, recall = index_codes.choose_rescored(index)
    assert 10 < rescored <= index_codes._MOST_RESCORED
    assert recall > 0.95
    queries = unit(20, 64, seed=3)
    exact = [set(np.argsort(-(descriptors @ query))[:10]) for query in queries]

    def hits(compared: int) -> int:
        found = index_codes.search_codes(index, queries, 10, compared)[1]
        return sum(len(set(row) & right) for row, right in zip(found.tolist(), exact, strict=True))

    assert hits(20) < hits(rescored)


@pytest.mark.parametrize("among", [range(3100), range(700, 3100), [5, 3000, 3999], list(range(0, 4000, 3))], ids=str)
def test_a_search_among_some_of_a_large_index_is_exact(small_limit: int, among: Sequence[int]):
    stored = unit(4000).astype(np.float16).astype(np.float32)
    index = DescriptorIndex.build(16, 4000, lambda: [stored])
    for query in unit(5, seed=2):
        numbers, similarities = index.search(query, 4, among=among)
        cosines = stored[list(among)] @ query
        expected = np.argsort(-cosines, kind="stable")[:4]
        np.testing.assert_array_equal(numbers, np.asarray(among)[expected])
        np.testing.assert_allclose(similarities, cosines[expected], atol=1e-5)


def test_more_results_than_usual_are_all_found(small_limit: int):
    index = DescriptorIndex.build(16, 4000, lambda: [unit(4000)])
    assert sorted(index.search(unit(1, seed=2)[0], 4000)[0].tolist()) == list(range(4000))


def test_turned_descriptors_have_the_cosine_asked_for():
    stored, towards = unit(20), unit(20, seed=1)
    np.testing.assert_allclose(np.sum(index_codes.turned(stored, towards, 0.8) * stored, axis=1), 0.8, atol=1e-5)
    np.testing.assert_allclose(index_codes.turned(stored, stored, 0.8), stored, atol=1e-4)


@pytest.mark.parametrize("count", [10, 4000])
@pytest.mark.parametrize("mapped", [False, True])
def test_written_and_read_back(small_limit: int, tmp_path: Path, count: int, mapped: bool):
    index = DescriptorIndex.build(16, count, lambda: [unit(count)])
    checksum = write_index(index, tmp_path / "index.faiss")
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.faiss"]
    again = StoredIndex(tmp_path / "index.faiss", checksum, 16, count, index.summary).read(mapped=mapped)
    assert (len(again), again.dimension, again.summary) == (count, 16, index.summary)
    for query in unit(3, seed=5):
        np.testing.assert_array_equal(again.search(query, 3)[0], index.search(query, 3)[0])
        np.testing.assert_array_equal(again.search(query, 3, among=[7, 9])[0], index.search(query, 3, among=[7, 9])[0])


def test_files_that_are_no_index_of_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "index.faiss"

    def read(checksum: str, count: int = 10) -> DescriptorIndex:
        return StoredIndex(path, checksum, 16, count, IndexSummary()).read(mapped=True)

    with pytest.raises(MapFormatError, match="is missing"):
        read("x")
    index = DescriptorIndex(16)
    index.add(unit(10))
    checksum = write_index(index, path)
    with pytest.raises(MapFormatError, match="is older than the places"):
        read("")
    with pytest.raises(MapFormatError, match="does not fit its checksum"):
        read("0" * 64)
    with pytest.raises(MapFormatError, match="holds 10 of 11 places"):
        read(checksum, 11)
    graph = faiss.IndexHNSWFlat(16, 4)
    faiss.write_index(graph, str(path))
    with pytest.raises(MapFormatError, match="kind b'IHNf', as this version makes none"):
        read(file_sha256(path), 0)
    path.write_bytes(b"noise")
    with pytest.raises(MapFormatError, match="kind b'nois', as this version makes none"):
        read(file_sha256(path))
    # Too large to be read at every opening: `map check` finds what the opening does not.
    write_index(index, path)
    monkeypatch.setattr(index_file, "_HASHED_BYTES", 10)
    assert len(read("0" * 64)) == 10


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("count", [3, 2400])
def test_files_cut_short_or_with_other_numbers_are_refused(small_limit: int, tmp_path: Path, count: int, mapped: bool):
    """With the checksum of what they are; FAISS ended the process where a number of the header was cut."""
    path = tmp_path / "index.faiss"
    index = DescriptorIndex.build(16, count, lambda: [unit(count)])
    write_index(index, path)
    whole = path.read_bytes()

    def refused(data: bytes) -> bool:
        path.write_bytes(data)
        try:
            StoredIndex(path, file_sha256(path), 16, count, index.summary).read(mapped=mapped)
        except MapFormatError:
            return True
        return False

    assert not refused(whole)
    lengths = range(1, len(whole), max(1, len(whole) // 200))
    assert all(refused(whole[:length]) for length in [*range(1, 46), *lengths, len(whole) - 1])
    assert refused(whole + b"x")
    # All of a header but its 16 bytes that mean nothing: kind, dimension, count, whether it is trained, metric.
    for place in [*range(16), *range(32, 37)]:
        assert refused(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :]), place


def test_another_dimension_is_refused():
    index = DescriptorIndex(16)
    with pytest.raises(DescriptorShapeError, match=r"\(3, 8\) do not fit an index of 16"):
        index.add(unit(3, 8))
    with pytest.raises(DescriptorShapeError):
        index.search(unit(1, 8)[0], 1)
