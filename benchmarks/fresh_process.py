"""Run a function in a fresh process and measure its peak memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import psutil

Result = TypeVar("Result")

INTERVAL = 0.001
"""Seconds between two samples of the memory."""


def measured_alone(prepare: Callable[..., Callable[[], Result]], *arguments: Any) -> tuple[Result, int]:
    """Run `prepare(*arguments)()` in a fresh process; return its result and its peak memory in bytes.

    The peak is the largest resident memory, sampled from outside, minus the memory in use when `prepare` has returned.
    `prepare` makes the inputs and warms up.
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
    """Prepare, report this, run once on request, send the result, and wait until the memory has been read."""
    run = prepare(*arguments)
    pipe.send(None)
    pipe.recv()
    pipe.send(run())
    pipe.recv()
