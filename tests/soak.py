"""Many runs in one process: what they leave behind."""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

GROWTH = 1.05
"""Of the resident memory, between the first and the last tenth of the runs."""

POOLS = 1
"""Threads that libraries may start at any time: that of NumPy's products ends with a fork, and begins again later."""


class Held(NamedTuple):
    """What a process holds."""

    memory: int
    threads: int
    files: int
    temporary: frozenset[str]

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        process = psutil.Process()
        temporary = frozenset(path.name for path in Path(tempfile.gettempdir()).glob("*nlmeans*"))
        files = process.num_fds() if hasattr(process, "num_fds") else len(process.open_files())
        return cls(process.memory_info().rss, process.num_threads(), files, temporary)


def rounds(request: pytest.FixtureRequest, few: int, many: int) -> int:
    """Few in the ordinary suite, many with --hypothesis-profile=thorough."""
    return many if request.config.getoption("--hypothesis-profile") == "thorough" else few


def assert_nothing_stays(run: Callable[[int], object], warm_up: int, runs: int) -> None:
    """After `warm_up` runs, `runs` more hold no more memory, threads, open files and temporary files than the first."""
    with tempfile.TemporaryDirectory() as own, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", own)  # other programs, and other tests, make temporary files meanwhile
        patch.setenv("TMPDIR", own)
        early, late = _held_in_the_beginning_and_in_the_end(run, warm_up, runs)
    first, last = (statistics.median(held.memory for held in part) for part in (early, late))
    sizes = f"{first / 2**20:.1f} to {last / 2**20:.1f} MiB ({last / first - 1:+.1%})"
    print(f"\n{runs} runs after {warm_up}: memory {sizes}; {early[0][1:3]} to {late[-1][1:3]} threads and open files")
    assert last <= GROWTH * first
    assert late[-1].threads <= max(held.threads for held in early) + POOLS
    assert late[-1].files <= max(held.files for held in early)
    assert late[-1].temporary <= early[0].temporary


def _held_in_the_beginning_and_in_the_end(
    run: Callable[[int], object], warm_up: int, runs: int
) -> tuple[list[Held], list[Held]]:
    for index in range(warm_up):
        run(index)
    tenth = max(runs // 10, 3)  # looked at in the beginning and in the end: to look takes longer than a small run
    early, late = [Held.now()], []
    for index in range(runs):
        run(index)
        if index < tenth:
            early.append(Held.now())
        if index >= runs - tenth:
            late.append(Held.now())
    return early, late
