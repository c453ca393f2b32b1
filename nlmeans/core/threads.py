"""How many threads torch computes with, in one thread of the process alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

CHANGING = threading.Lock()


@contextlib.contextmanager
def shared_among(tasks: int) -> Iterator[None]:
    """Let torch compute here with its share of the threads, and with all of them in other threads of the process.

    `torch.set_num_threads` sets both what this thread uses and what threads that start later begin with. The second is
    put back at once, or else tasks that overlap in time would leave their shares behind.
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
