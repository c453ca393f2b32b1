"""The number of threads that torch uses, changed for one thread of the process only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

CHANGING = threading.Lock()
"""Held while numbers of threads are changed."""


@contextlib.contextmanager
def shared_among(tasks: int) -> Iterator[None]:
    """Let torch use 1/`tasks` of its threads in this thread; other threads of the process keep all of them.

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
    try:
        yield
    finally:
        if share != before:
            torch.set_num_threads(before)
