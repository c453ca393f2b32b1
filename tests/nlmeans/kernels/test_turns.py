"""Work in threads: every part once, neighbours never at the same time, results in order, and an end when it fails."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch

from nlmeans.core.progress import Cancelled, cancellable
from nlmeans.kernels.turns import chequerboard, in_threads, in_turns


@pytest.fixture(params=[1, 2, 5], ids=lambda n: f"{n} threads")
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    return count


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_parts_cover_the_range_once_with_one_per_thread(threads: int, count: int) -> None:
    parts: list[tuple[int, int]] = []
    in_threads(lambda first, last: parts.append((first, last)), count)
    assert len(parts) == min(threads, count)
    assert sorted(itertools.chain(*(range(first, last) for first, last in parts))) == list(range(count))
    sizes = [last - first for first, last in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_threads_work_in_the_mode_of_the_caller(mode: type, threads: int) -> None:
    seen = []

    def work(*_: object) -> None:
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    with mode():
        expected = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        in_threads(work, 5)
        in_turns(work, [[1, 2, 3]])
    assert set(seen) == {expected}


def test_an_exception_in_a_thread_is_raised(threads: int) -> None:
    def work(first: int, last: int) -> None:
        raise ArithmeticError(f"{first} to {last}")

    with pytest.raises(ArithmeticError, match="0 to"):
        in_threads(work, 10)


@pytest.mark.parametrize("counts", [(1,), (5,), (1, 1), (2, 3), (4, 1), (3, 4, 5)])
def test_a_turn_has_no_neighbours_and_all_turns_have_all_blocks(counts: tuple[int, ...]) -> None:
    turns = chequerboard(*(range(n) for n in counts))
    for turn in turns:
        for block, other in itertools.combinations(turn, 2):
            assert max(abs(a - b) for a, b in zip(block, other, strict=True)) > 1  # not even at a corner
    blocks = list(itertools.chain(*turns))
    assert sorted(blocks) == list(itertools.product(*(range(n) for n in counts)))
    assert all(turns)
    assert len(turns) <= 2 ** len(counts)


def test_results_have_the_order_of_the_blocks(threads: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3 == 0))  # the first of three is the last to finish
        return -number

    assert in_turns(work, [[0, 1, 2, 3], [], [4], [5, 6, 7]]) == [0, -1, -2, -3, -4, -5, -6, -7]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shared", [False, True])
def test_threads_share_those_of_torch_where_the_work_is_torchs(shared: bool) -> None:
    meet = threading.Barrier(2)

    def work(_: int) -> int:
        meet.wait(10)  # one block in each thread
        return torch.get_num_threads()

    assert in_turns(work, [[0, 1], [2, 3]], torch_shared=shared) == [1 if shared else 2] * 4
    assert torch.get_num_threads() == 2


def test_a_turn_begins_when_the_turn_before_has_ended(threads: int) -> None:
    lock, finished = threading.Lock(), [0, 0, 0]
    sizes = [5, 4, 6]

    def work(turn: int) -> None:
        assert all(finished[before] == sizes[before] for before in range(turn))
        time.sleep(0.001)
        with lock:
            finished[turn] += 1

    in_turns(work, [[turn] * size for turn, size in enumerate(sizes)])
    assert finished == sizes


def test_progress_rises_to_one_in_the_calling_thread(threads: int) -> None:
    seen: list[tuple[float, int]] = []
    in_turns(abs, [[1, 2], [3]], lambda fraction: seen.append((fraction, threading.get_ident())))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert {1 / 3, 2 / 3, 1} >= set(fractions) >= {2 / 3, 1}  # what has been done at the end of a turn, at least
    assert {thread for _, thread in seen} == {threading.get_ident()}


def test_an_exception_in_a_block_ends_the_work(threads: int) -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        if number == 2:
            raise ArithmeticError("block 2")
        time.sleep(0.2 * (number > 10))  # long enough for the calling thread to see the exception

    with pytest.raises(ArithmeticError, match="block 2"):
        in_turns(work, [list(range(200)), [1000]])
    assert 2 in started
    assert 1000 not in started
    assert len(started) < 200


def test_cancelling_ends_the_work(threads: int) -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        time.sleep(0.2 * (number > 10))

    with pytest.raises(Cancelled):
        in_turns(work, [list(range(200)), [1000]], cancellable(lambda fraction: fraction < 0.01))
    assert 1000 not in started
    assert len(started) < 200
