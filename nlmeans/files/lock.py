"""Lock files, so that one run at a time writes an output. A lock becomes free when the process that holds it ends."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("nlmeans")


@contextlib.contextmanager
def held(path: Path, what: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file inside the block, and remove it at the end.

    Args:
        path: the lock file.
        what: the output that the lock protects; messages name it.
        wait: wait while another process or thread holds the lock.

    Yields:
        Whether there is a lock. Some file systems do not support locks, and this module does not lock on Windows.

    Raises:
        BlockingIOError: another process or thread holds the lock, and `wait` is False.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder) / "lock", Path("example")) as locked:
        ...     print(locked)
        True
    """
    if fcntl is None:
        yield False
        return
    handle = open_locked(path, what, wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            try:
                path.unlink()  # before unlocking: a waiting run then sees that the file is gone and makes a new one
            except OSError:
                log.info("the lock file %s could not be removed; the next run removes it", path)
            finally:
                os.close(handle)


def open_locked(path: Path, what: Path, wait: bool) -> int | None:
    """Open and lock a file, and make sure that it is still the one at `path`.

    Returns:
        The file descriptor; None if the file system does not support locks.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user made the file
            handle = os.open(path, os.O_RDONLY)
        try:
            lock_file(handle, what, wait)
        except BlockingIOError as error:
            os.close(handle)
            raise BlockingIOError(
                f"{what} is being written by another run; wait for it, or choose another OUT"
            ) from error
        except OSError:
            os.close(handle)
            path.unlink(missing_ok=True)
            return None
        except BaseException:
            os.close(handle)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)


def lock_file(handle: int, what: Path, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        log.warning("waiting for another run that is writing %s", what)
        fcntl.flock(handle, fcntl.LOCK_EX)
