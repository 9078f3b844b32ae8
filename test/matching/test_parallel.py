"""Shares of the candidates in several threads: same results, same errors, and torch's setting stays what it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from effovpr_ros.core.errors import DescriptorShapeError
from effovpr_ros.features.image_features import LocalFeatures
from effovpr_ros.matching.parallel import beside, map_in_threads
from effovpr_ros.matching.rerank_config import RerankConfig
from effovpr_ros.matching.reranking import Reranker


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def seen_by(items: Sequence[int]) -> list[tuple[int, str, int]]:
    return [(item, threading.current_thread().name, torch.get_num_threads()) for item in items]


def test_results_come_in_order_from_threads_in_which_torch_computes_alone():
    results = map_in_threads(seen_by, list(range(8)))
    assert [item for item, _, _ in results] == list(range(8))
    assert all(name.startswith("share") and threads == 1 for _, name, threads in results)
    # Items take turns: those of one call are three apart.
    assert results[0][1] == results[3][1] == results[6][1]


def test_threads_that_come_later_have_the_default_still():
    map_in_threads(seen_by, [0, 1])
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_to_share_stays_in_the_caller(threads: int):
    torch.set_num_threads(threads)
    assert map_in_threads(seen_by, []) == []
    assert map_in_threads(seen_by, [5]) == [(5, threading.current_thread().name, threads)]


def some_features(rng: np.random.Generator, size: int, width: int = 16) -> LocalFeatures:
    cells = np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2)[:size].astype(np.uint8)
    return LocalFeatures(rng.integers(-7, 8, (size, width)).astype(np.int8), cells)


def where() -> tuple[int, int]:
    return threading.get_ident(), torch.get_num_threads()


def test_beside_begins_at_once_in_one_thread_of_the_caller():
    begun = threading.Event()
    first = beside(begun.set)
    assert begun.wait(10.0)
    results = [beside(where)(), beside(where)()]
    assert results[0] == results[1]
    assert results[0][0] != threading.get_ident()
    assert results[0][1] == 1
    assert torch.get_num_threads() == 3
    assert first() is None
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: beside(where)()).result()[0] != results[0][0]


def test_beside_raises_what_was_raised():
    late = beside(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        late()


def test_beside_of_one_thread_is_computed_when_it_is_asked_for():
    torch.set_num_threads(1)
    assert beside(where)() == (threading.get_ident(), 1)


@pytest.mark.parametrize("score", ["coherent", "count", "weighted", "spatial"])
def test_scores_do_not_depend_on_the_number_of_threads(score: str):
    rng = np.random.default_rng(2)
    query, *candidates = (some_features(rng, size) for size in (60, 81, 0, 23, 1, 46, 70, 80))
    reranker = Reranker(RerankConfig(score, min_similarity=0.3))
    shared = reranker.score(query, [candidate.packed for candidate in candidates])
    assert shared[0].num_matches > 5
    torch.set_num_threads(1)
    assert reranker.score(query, [candidate.packed for candidate in candidates]) == shared
    assert [reranker.score(query, [candidate.packed])[0] for candidate in candidates] == shared


def test_the_candidate_of_another_model_is_named_by_its_place_in_the_whole():
    rng = np.random.default_rng(2)
    candidates = [some_features(rng, 5) for _ in range(6)]
    candidates[4] = some_features(rng, 5, width=14)
    with pytest.raises(DescriptorShapeError, match="candidate 4"):
        Reranker(RerankConfig()).score(candidates[0], [candidate.packed for candidate in candidates])
