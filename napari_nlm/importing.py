"""Import torch, which takes seconds, from a background thread and without holding up the window."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from pathlib import Path

from napari_nlm.collector import no_collection

ONE_AT_A_TIME = threading.Lock()
"""Held while something is imported, so that nobody waits for the loader of libraries with Python's own lock in hand."""


def import_apart(name: str) -> None:
    """Import a module from a background thread, such that the window can work meanwhile.

    Two things would stop it for a fifth of a second each: the collections of garbage, and the loading of torch's
    library, which the import does with Python's lock in hand.

    Raises:
        ImportError: there is no such module, or it cannot be imported.
    """
    with ONE_AT_A_TIME, no_collection():
        if "torch" not in sys.modules:
            load_library_of_torch()
        importlib.import_module(name)


def load_library_of_torch() -> None:
    """Load torch's largest library without Python's lock, which ctypes gives up during a call.

    Only on Linux. Where it cannot be loaded so, the import loads it, or says why not.
    """
    spec = importlib.util.find_spec("torch") if sys.platform == "linux" else None
    for folder in (spec and spec.submodule_search_locations) or ():
        library = Path(folder, "lib", "libtorch_cpu.so")
        if library.is_file():
            ctypes.CDLL(None).dlopen(os.fsencode(library), os.RTLD_NOW)
