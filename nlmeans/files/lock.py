"""One run at a time: a lock file that belongs to the process that holds it, and is free when that process ends."""

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
    """Hold the lock file `path`, waiting while another process or thread holds it; it is removed in the end.

    `what` is written under it, and named to who has to wait. Yields whether there is a lock: some file systems know
    none, and neither does this on Windows.

    Raises:
        BlockingIOError: another holds it, without `wait`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder) / "lock", Path("example")) as locked:
    ...     print(locked)
    True
    """
    if fcntl is None:
        yield False
        return
    handle = acquired(path, what, wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            try:
                path.unlink()  # before it is free: who waits for it sees that it is gone, and makes another
            except OSError:
                log.info("%s stays; the next run removes it", path)
            finally:
                os.close(handle)


def acquired(path: Path, what: Path, wait: bool) -> int | None:
    """An open and locked file, which is still the one at `path`; None where the file system knows no locks."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # left or held by another user
            handle = os.open(path, os.O_RDONLY)
        try:
            lock(handle, what, wait)
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


def lock(handle: int, what: Path, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        log.warning("waiting for another run that is writing %s", what)
        fcntl.flock(handle, fcntl.LOCK_EX)
