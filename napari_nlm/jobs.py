"""Work in the background: one thread per lane, the latest job wins, results come back where the windows live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nlmeans import Cancelled

T = TypeVar("T")

Deliver = Callable[[Callable[[], None]], None]
"""Called from any thread with a function that must run in the main thread, soon and in order."""

INTERVAL = 0.05
"""Seconds between two reports of progress that reach the main thread."""


class Job:
    """One piece of work, as the work itself sees it: where it reports to and asks whether to go on."""

    def __init__(self, deliver: Deliver, progress: Callable[[float], None] | None = None) -> None:
        self.deliver = deliver
        self.progress = progress
        self.last_report = 0.0
        self.stop = threading.Event()

    def cancel(self) -> None:
        """From now on nothing of this job arrives any more; the work itself ends at its next report."""
        self.stop.set()

    @property
    def cancelled(self) -> bool:
        return self.stop.is_set()

    def report(self, fraction: float) -> None:
        """The engine's progress callback. Raises `Cancelled`."""
        if self.cancelled:
            raise Cancelled
        now = time.monotonic()
        if self.progress is not None and now - self.last_report >= INTERVAL:
            self.last_report = now
            self.tell(self.progress, fraction)

    def tell(self, function: Callable[[T], None], value: T) -> None:
        """Call a function in the main thread, unless the job is cancelled by then."""

        def unless_cancelled() -> None:
            if not self.cancelled:
                function(value)

        self.deliver(unless_cancelled)


class Lane:
    """Jobs that replace one another: a new one cancels those before it."""

    def __init__(self, name: str, deliver: Deliver) -> None:
        self.deliver = deliver
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.job: Job | None = None
        self.closed = False

    @property
    def busy(self) -> bool:
        return self.job is not None

    def submit(
        self,
        work: Callable[[Job], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Start `work` once the thread is free; exactly one of `done` and `failed` follows, unless it is cancelled."""
        self.cancel()
        if self.closed:
            return
        job = self.job = Job(self.deliver, progress)

        def succeed(result: T) -> None:
            self.job = None
            try:
                done(result)
            except Exception as error:  # an exception must not leave for the event loop
                failed(error)

        def fail(error: Exception) -> None:
            self.job = None
            failed(error)

        def run() -> None:
            if job.cancelled:
                return
            try:
                result = work(job)
            except Cancelled:
                return
            except Exception as error:  # whatever it is, it belongs into the window, not into a terminal
                job.tell(fail, error)
            else:
                job.tell(succeed, result)

        self.pool.submit(run)

    def cancel(self) -> None:
        if self.job is not None:
            self.job.cancel()
            self.job = None

    def close(self, wait: bool = False) -> None:
        """Cancel and take no more. Without `wait` the work itself may go on until it notices."""
        self.cancel()
        self.closed = True
        self.pool.shutdown(wait=wait, cancel_futures=not wait)
