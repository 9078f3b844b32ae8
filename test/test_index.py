"""The descriptor index against exact search."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from effovpr_ros.errors import DescriptorShapeError, MapFormatError
from effovpr_ros.mapping import index as index_module
from effovpr_ros.mapping.index import DescriptorIndex


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


def test_a_large_index_becomes_a_graph_that_finds_nearly_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index_module, "FLAT_LIMIT", 2000)
    stored, queries = unit(4000), unit(50, seed=2)
    index = DescriptorIndex(16)
    index.add(stored[:2000])
    assert index.is_exact
    index.add(stored[2000:])
    assert not index.is_exact
    found = [set(index.search(query, 10)[0]) & set(np.argsort(-(stored @ query))[:10]) for query in queries]
    assert sum(map(len, found)) / 500 >= 0.98
    numbers, _ = index.search(queries[0], 4, among=[5, 3000, 3999])
    assert set(numbers.tolist()) <= {5, 3000, 3999}
    again = DescriptorIndex.from_bytes(index.to_bytes())
    np.testing.assert_array_equal(again.search(queries[0], 10)[0], index.search(queries[0], 10)[0])


def test_stored_and_read_back():
    index = DescriptorIndex(16)
    index.add(unit(10))
    again = DescriptorIndex.from_bytes(index.to_bytes())
    assert (len(again), again.dimension) == (10, 16)
    np.testing.assert_array_equal(again.search(unit(1, seed=5)[0], 3)[0], index.search(unit(1, seed=5)[0], 3)[0])
    with pytest.raises(MapFormatError, match="cannot be read by FAISS"):
        DescriptorIndex.from_bytes(b"noise")


def test_another_dimension_is_refused():
    index = DescriptorIndex(16)
    with pytest.raises(DescriptorShapeError, match=r"\(3, 8\) do not fit an index of 16"):
        index.add(unit(3, 8))
    with pytest.raises(DescriptorShapeError):
        index.search(unit(1, 8)[0], 1)
