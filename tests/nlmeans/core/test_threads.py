"""The share of the threads that one task gets."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from nlmeans.core.threads import shared_among


@pytest.fixture(autouse=True)
def six_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(("tasks", "share"), [(1, 6), (2, 3), (4, 1), (100, 1)])
def test_a_task_gets_its_share_and_other_threads_keep_all(tasks: int, share: int) -> None:
    with shared_among(tasks):
        assert torch.get_num_threads() == share
        assert threads_of_a_new_thread() == 6
    assert torch.get_num_threads() == 6
    assert threads_of_a_new_thread() == 6


def test_the_threads_come_back_after_an_exception() -> None:
    with pytest.raises(KeyError), shared_among(3):
        raise KeyError
    assert torch.get_num_threads() == 6


def test_tasks_that_overlap_leave_no_share_behind() -> None:
    started, leave = threading.Barrier(3), threading.Event()

    def task() -> None:
        with shared_among(2):
            started.wait(10)
            leave.wait(10)

    tasks = [threading.Thread(target=task) for _ in range(2)]
    for thread in tasks:
        thread.start()
    started.wait(10)
    leave.set()
    for thread in tasks:
        thread.join(10)
    assert threads_of_a_new_thread() == 6
