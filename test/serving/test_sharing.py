"""Cores are shared by the questions at hand."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from effovpr_ros.serving.sharing import SharedCores


def test_a_question_alone_has_all_cores_and_several_have_their_share():
    cores, barrier = SharedCores(4), threading.Barrier(2)

    def ask(turn: int) -> tuple[int, int, int]:
        if turn:
            barrier.wait()
        with cores.share() as mine:
            inside = torch.get_num_threads()
            if not turn:
                barrier.wait()
            barrier.wait()
        return mine, inside, torch.get_num_threads()

    with ThreadPoolExecutor(2, "answer", partial(torch.set_num_threads, 1)) as pool:
        asked = [pool.submit(ask, turn) for turn in (0, 1)]
        # The second comes while the first is at hand.
        assert [item.result() for item in asked] == [(4, 4, 1), (2, 2, 1)]
    with cores.share() as mine:
        assert mine == 4


def test_more_questions_than_cores_have_one_each():
    cores = SharedCores(1)
    with cores.share() as first, cores.share() as second:
        assert (first, second) == (1, 1)
