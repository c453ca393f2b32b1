"""Compiled kernels on the disk: numba's cache, which by itself sees the file of a kernel alone, and takes no turns."""

from __future__ import annotations

import contextlib
import hashlib
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

PACKAGE = Path(__file__).parents[1]


def fingerprint() -> str:
    """Of all that kernels are made of, as they take functions and constants from one another's files."""
    found = hashlib.sha256(version("nlmeans").encode())
    for file in sorted(PACKAGE.rglob("*.py")):
        if "kernel" in file.relative_to(PACKAGE).as_posix():
            found.update(file.read_bytes())
    return found.hexdigest()


SOURCES = fingerprint()


class KernelCache(FunctionCache):  # type: ignore[misc]
    """One kernel's index, and what is compiled of it for each of its constants.

    A process that saves while another does, or loads meanwhile, could take the code of one set of constants for that of
    another: the index is written before the code that it names.
    """

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), SOURCES)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with locked(Path(self.cache_path)):
            return super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        with locked(Path(self.cache_path)):
            super().save_overload(sig, data)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While no other process or thread is in here, where the folder may be written to and knows locks."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                handle = os.open(folder / "kernels.lock", os.O_RDWR | os.O_CREAT, 0o666)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
                stack.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # also of a child that was forked meanwhile
        yield


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """A kernel that is kept on the disk, if the package's folder or the user's cache folder is writable."""
    kernel = njit(**options)(function)
    with contextlib.suppress(RuntimeError):
        kernel._cache = KernelCache(kernel.py_func)
    return kernel
