"""Threads that live for one call, and blocks that do not touch each other.

Threads belong to the call: an executor that lasts would not survive a fork, and numba's own parallel layers abort in
forked workers or when several threads call at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from nlmeans.core.progress import Report, silent

CutT = TypeVar("CutT")
BlockT = TypeVar("BlockT")
ResultT = TypeVar("ResultT")


def in_threads(work: Callable[[int, int], object], count: int) -> None:
    """Call ``work(first, last)`` for parts of ``range(count)``, on as many threads as torch uses."""
    parts = max(1, min(torch.get_num_threads(), count))
    if parts == 1:
        work(0, count)
        return
    bounds = [count * k // parts for k in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(work, bounds[:-1], bounds[1:]))


def chequerboard(*cuts: Sequence[CutT]) -> list[list[tuple[CutT, ...]]]:
    """Blocks in turns: no two blocks of a turn are neighbours, so that they may write to voxels around them.

    Args:
        cuts: for each axis, its parts in order. What a part writes to must not reach beyond the next part.

    Returns:
        For each turn, the blocks in it, one part per axis. Turns without blocks are left out.

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
    work: Callable[[BlockT], ResultT], turns: Sequence[Sequence[BlockT]], progress: Report = silent
) -> list[ResultT]:
    """Call `work` for all blocks, those of one turn side by side, one turn after another.

    Every voxel is then summed in the same order on any number of threads.

    Args:
        work: called with a block, from several threads.
        turns: blocks, as `chequerboard` makes them.
        progress: called with the fraction done.

    Returns:
        What `work` returned for each block, in order.
    """
    results: list[ResultT] = []
    count = sum(map(len, turns))
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        for turn in turns:
            for result in pool.map(work, turn):
                results.append(result)
                progress(len(results) / count)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
