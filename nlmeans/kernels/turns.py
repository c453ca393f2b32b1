"""Work in threads: in parts of a range, or in turns of blocks that are not neighbours.

Each call starts threads of its own, beside the calling one, which works too: where others use the cores, it need not
wait until a thread gets its turn. An executor that outlives the call would not survive a fork, and the parallel layers
of numba abort in forked workers or when several threads call them at once.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

import torch

from nlmeans.core.modes import Given, kernel_threads, shared_among, take_share
from nlmeans.core.progress import Report, silent

CutT = TypeVar("CutT")
BlockT = TypeVar("BlockT")
ResultT = TypeVar("ResultT")


def in_threads(work: Callable[[int, int], object], count: int) -> None:
    """Call ``work(first, last)`` for one part of ``range(count)`` per thread, on as many threads as torch uses."""
    parts = max(1, min(kernel_threads(), count))
    if parts == 1:
        work(0, count)
        return
    bounds = [count * k // parts for k in range(parts + 1)]
    with ThreadPoolExecutor(parts - 1) as pool:
        others = pool.map(in_mode_of_caller(work), bounds[1:-1], bounds[2:])
        work(0, bounds[1])
        list(others)


def in_mode_of_caller(work: Callable[Given, ResultT]) -> Callable[Given, ResultT]:
    """Make a function run in any thread as in this one: with or without gradients, and in inference mode or not.

    Tensors that were made in inference mode may not be written to outside of it.
    """
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def call(*args: Given.args, **kwargs: Given.kwargs) -> ResultT:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(*args, **kwargs)

    return call


def chequerboard(*cuts: Sequence[CutT]) -> list[list[tuple[CutT, ...]]]:
    """Sort blocks into turns such that no two blocks of a turn are neighbours.

    Blocks of one turn may then write to voxels around them at the same time.

    Args:
        cuts: the parts of each axis, in order. Two parts may write to the same voxels only if one follows the other.

    Returns:
        The blocks of each turn, which have one part per axis. Turns without blocks are left out.

    Example:
        >>> chequerboard("abc", "xy")
        [[('a', 'x'), ('c', 'x')], [('a', 'y'), ('c', 'y')], [('b', 'x')], [('b', 'y')]]
    """
    turns = (
        list(itertools.product(*(parts[first::2] for parts, first in zip(cuts, firsts, strict=True))))
        for firsts in itertools.product((0, 1), repeat=len(cuts))
    )
    return [turn for turn in turns if turn]


def in_turns(
    work: Callable[[BlockT], ResultT],
    turns: Sequence[Sequence[BlockT]],
    progress: Report = silent,
    *,
    torch_shared: bool = False,
) -> list[ResultT]:
    """Call `work` for all blocks: turn after turn, and the blocks of one turn in parallel.

    The sums at a voxel therefore have the same order with any number of threads.

    Args:
        work: called with a block, from several threads.
        turns: the blocks of each turn, from `chequerboard`.
        progress: called with the fraction done, from the calling thread. If it raises, no more blocks are started.
        torch_shared: whether the threads share those of torch, for work that is torch's. Else each has all of them.

    Returns:
        The results of `work`, in the order of the blocks.
    """
    results: dict[int, ResultT] = {}
    call = in_mode_of_caller(work)
    count = sum(map(len, turns))
    threads = kernel_threads()
    others = min(threads, max(map(len, turns), default=0)) - 1
    own, begin = (shared_among(threads), partial(take_share, threads)) if torch_shared else (nullcontext(), None)
    with own, ThreadPoolExecutor(max(others, 1), initializer=begin) as pool:
        for turn in turns:
            waiting = deque(enumerate(turn, len(results)))
            busy = [pool.submit(work_off, waiting, call, results) for _ in range(min(others, len(turn) - 1))]
            work_off(waiting, call, results, lambda: progress(len(results) / count))
            for thread in busy:
                thread.result()
            progress(len(results) / count)
    return [results[number] for number in range(count)]


def work_off(
    waiting: deque[tuple[int, BlockT]],
    work: Callable[[BlockT], ResultT],
    results: dict[int, ResultT],
    done: Callable[[], object] = lambda: None,
) -> None:
    """Work on blocks, with their numbers, until none waits any more; after an error, none waits for other threads."""
    try:
        while (taken := next_of(waiting)) is not None:
            number, block = taken
            results[number] = work(block)
            done()
    except BaseException:
        waiting.clear()
        raise


def next_of(waiting: deque[tuple[int, BlockT]]) -> tuple[int, BlockT] | None:
    try:
        return waiting.popleft()
    except IndexError:  # perhaps another thread has just taken the last one
        return None
