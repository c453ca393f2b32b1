"""One run in a process of its own, and the memory that it takes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import psutil

Result = TypeVar("Result")

INTERVAL = 0.001
"""Seconds between two looks at the memory."""


def measured_alone(prepare: Callable[..., Callable[[], Result]], *arguments: Any) -> tuple[Result, int]:
    """What `prepare(*arguments)()` gives in a fresh process, and its peak of memory in bytes.

    The peak is the largest resident memory, read from outside, less what was there when `prepare` had returned: inputs
    and a warm-up belong there.
    """
    context = multiprocessing.get_context("spawn")
    pipe, its_pipe = context.Pipe()
    process = context.Process(target=run_when_told, args=(its_pipe, prepare, arguments))
    process.start()
    its_pipe.close()
    pipe.recv()
    memory = psutil.Process(process.pid).memory_info
    before = peak = memory().rss
    pipe.send(None)
    while not pipe.poll(INTERVAL):
        peak = max(peak, memory().rss)
    result = pipe.recv()
    peak = max(peak, memory().rss)
    pipe.send(None)
    process.join()
    return result, peak - before


def run_when_told(pipe: Connection, prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    """Prepare, say so, run once when told, tell the result, and wait until the memory has been read."""
    run = prepare(*arguments)
    pipe.send(None)
    pipe.recv()
    pipe.send(run())
    pipe.recv()
