"""The cache of compiled kernels on disk.

By itself, the cache of numba notices changes only in the file that defines a kernel, and does not lock its files. This
cache notices changes in all files with kernels, and locks its files.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("nlmeans.kernels")

PACKAGE = Path(__file__).parents[1]


def kernel_fingerprint() -> str:
    """Checksum of the version and of all files with kernels, which use functions and constants of each other."""
    found = hashlib.sha256(version("nlmeans").encode())
    for file in sorted(PACKAGE.rglob("*.py")):
        if "kernel" in file.relative_to(PACKAGE).as_posix():
            found.update(file.read_bytes())
    return found.hexdigest()


SOURCES = kernel_fingerprint()
"""Part of the key under which a kernel is stored, so that a changed file makes all kernels compile anew."""


@functools.cache
def say_compiling() -> None:
    """Log, once per process, why the first run takes longer."""
    log.info("compiling kernels, once on this machine: this takes about ten seconds")


class KernelCache(FunctionCache):  # type: ignore[misc]
    """The stored code of one kernel: an index, and a file for each set of constants that it was compiled with.

    Numba writes the index before the code that it names. Without a lock, a process that saves or loads while another
    process saves could therefore take the code of one set of constants for that of another.
    """

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), SOURCES)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with locked(Path(self.cache_path)):
            found = super().load_overload(sig, target_context)
        if found is None:
            say_compiling()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with locked(Path(self.cache_path)):
            super().save_overload(sig, data)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process or thread holds the lock of the folder, then hold it.

    Does nothing if the folder cannot be written to or its file system has no locks.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                handle = os.open(folder / "kernels.lock", os.O_RDWR | os.O_CREAT, 0o666)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
                stack.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # also for a child process that was forked meanwhile
        yield


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a kernel at its first call, and store it on disk if a cache folder is writable."""
    kernel = njit(**options)(function)
    with contextlib.suppress(RuntimeError):
        kernel._cache = KernelCache(kernel.py_func)
    return kernel
