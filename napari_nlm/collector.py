"""Spare the window long pauses of Python's garbage collector.

With napari, torch and numba there are half a million objects. To look at all of them takes a quarter of a second, in
which no thread runs. Python does so when many objects are new, and napari whenever a layer is removed.

What is set aside here is set aside for a moment only: for good, ``gc.freeze`` would keep the images of layers that are
removed later, and it is not for a plugin to decide what a program may collect.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

OF_PYTHON = 10_000
"""Python itself may have set some hundred objects aside when it starts. More mean that the program has done so."""

LOCK = threading.Lock()
DEPTH = 0
"""Blocks of `new_objects_alone` that are open, in all threads."""


@contextmanager
def new_objects_alone() -> Iterator[None]:
    """Let collections in this block look only at objects that are made in it."""
    global DEPTH
    with LOCK:
        ours = DEPTH > 0 or gc.get_freeze_count() < OF_PYTHON
        if ours:
            DEPTH += 1
            gc.freeze()
    try:
        yield
    finally:
        if ours:
            with LOCK:
                DEPTH -= 1
                if DEPTH == 0:
                    gc.unfreeze()


@contextmanager
def no_collection() -> Iterator[None]:
    """Let Python not collect by itself in this block, which takes seconds and makes objects that stay.

    They are as old as all others afterwards, so that the next collections need not look at them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        with new_objects_alone():  # makes them old
            if enabled:
                gc.enable()
