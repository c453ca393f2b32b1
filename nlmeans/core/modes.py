"""Modes of PyTorch: autocast, outside of which the engine computes; the threads of a task; and export as a graph."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from threadpoolctl import OpenBLASController, ThreadpoolController

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def outside_autocast(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Make a function compute as it does without ``torch.autocast``, on the CPU and on NVIDIA cards.

    Example:
        >>> @outside_autocast
        ... def product(a, b):
        ...     return a @ b
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     product(torch.eye(2), torch.eye(2)).dtype
        torch.float32
    """

    @functools.wraps(function)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        if not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return wrapper


def is_exporting() -> bool:
    """Whether a layer is being exported as a graph, by ``torch.export`` or to ONNX, and not run.

    >>> is_exporting()
    False
    """
    known = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # before PyTorch 2.7 there is no other
    return bool(known())


CHANGING = threading.Lock()
"""Held while numbers of threads are changed."""


@contextlib.contextmanager
def shared_among(tasks: int) -> Iterator[None]:
    """Let torch use 1/`tasks` of its threads in this thread; other threads of the process keep all of them."""
    before = take_share(tasks)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def take_share(tasks: int) -> int:
    """Let torch use 1/`tasks` of its threads in this thread from now on, and return how many it had.

    `torch.set_num_threads` sets the number for this thread, and also the number that later threads start with. The
    latter is restored at once; otherwise tasks that overlap in time would leave their shares behind.
    """
    with CHANGING:
        before = torch.get_num_threads()
        share = max(1, before // tasks)
        if share != before:
            torch.set_num_threads(share)
            other = threading.Thread(target=torch.set_num_threads, args=(before,))
            other.start()
            other.join()
    return before


class KernelThreads(threading.local):
    """How many threads the engine's kernels may use, if that is not torch's own number."""

    count: int | None = None


KERNEL_THREADS = KernelThreads()


def kernel_threads() -> int:
    """Return how many threads the engine's kernels may use: as many as torch, unless these were left to the kernels."""
    return KERNEL_THREADS.count or torch.get_num_threads()


@contextlib.contextmanager
def left_to_kernels() -> Iterator[None]:
    """Leave the threads to the engine's kernels, if there are few: torch computes in this one alone.

    The steps between kernels are small, and limited by the memory, so that two threads are hardly faster than one. But
    torch's threads go on spinning after each step, on the cores that the kernels then need. With many cores, the
    memory takes more threads.

    Example:
        >>> threads = torch.get_num_threads()
        >>> with left_to_kernels():
        ...     kernel_threads() == threads
        True
    """
    before, count = KERNEL_THREADS.count, kernel_threads()
    if count > FEW_THREADS:
        yield
        return
    with shared_among(count):
        KERNEL_THREADS.count = count
        try:
            yield
        finally:
            KERNEL_THREADS.count = before


FEW_THREADS = 4
"""Most threads that memory keeps waiting."""


class AloneInNumPy:
    """NumPy's products of matrices in the thread that calls them, as long as any thread of the process asks for it.

    Their number of threads is one for the whole process.
    """

    def __init__(self) -> None:
        self.users = 0
        self.limiter: Any = None

    def __enter__(self) -> None:
        with CHANGING:
            if not self.users:
                self.limiter = libraries_of_numpy().limit(limits=1)
                release_numpy()
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with CHANGING:
            self.users -= 1
            if not self.users:
                self.limiter.restore_original_limits()
                release_numpy()


def release_numpy() -> None:
    """Let any thread set the number of NumPy's threads again.

    Since threadpoolctl 3.8, only the thread that has set it may do so until then; others do nothing, silently.
    """
    getattr(OpenBLASController, "clear_controlling_thread", lambda: None)()


@functools.cache
def libraries_of_numpy() -> ThreadpoolController:
    return ThreadpoolController().select(internal_api="openblas")


ALONE_IN_NUMPY = AloneInNumPy()


def in_one_thread(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Make torch and NumPy compute a function in the thread that calls it.

    For many small steps one after another: threads that start and wait at each take longer than they save, and four
    times as long where others use the cores.

    Example:
        >>> in_one_thread(torch.get_num_threads)()
        1
    """

    @functools.wraps(function)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        with shared_among(torch.get_num_threads()), ALONE_IN_NUMPY:
            return function(*args, **kwargs)

    return wrapper
