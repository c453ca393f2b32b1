"""Work in the background: one thread per lane. A new job replaces the one before, and results reach the main thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nlmeans import Cancelled

T = TypeVar("T")

Deliver = Callable[[Callable[[], None]], None]
"""Takes a function, from any thread, and calls it in the main thread soon. Keeps the order."""


def call_now(function: Callable[[], None]) -> None:
    """A `Deliver` without an event loop."""
    function()


REPORT_INTERVAL = 0.05
"""Seconds: at most one progress report per interval reaches the main thread."""


class BackgroundJob:
    """One piece of work. It reports its progress here, and learns here that it is cancelled."""

    def __init__(self, deliver: Deliver, progress: Callable[[float], None] | None = None) -> None:
        self.deliver = deliver
        self.progress = progress
        self.last_report = 0.0
        self.furthest = 0.0
        self.stop = threading.Event()

    def cancel(self) -> None:
        """Deliver nothing of this job any more. The work itself ends at its next report."""
        self.stop.set()

    @property
    def cancelled(self) -> bool:
        return self.stop.is_set()

    def report(self, fraction: float) -> None:
        """The engine's progress callback. Never tells less than before. Raises `Cancelled`."""
        if self.cancelled:
            raise Cancelled
        self.furthest = max(self.furthest, fraction)
        now = time.monotonic()
        if self.progress is not None and now - self.last_report >= REPORT_INTERVAL:
            self.last_report = now
            self.tell(self.progress, self.furthest)

    def tell(self, function: Callable[[T], None], value: T) -> None:
        """Call a function in the main thread, unless the job is cancelled by then."""

        def unless_cancelled() -> None:
            if not self.cancelled:
                function(value)

        self.deliver(unless_cancelled)


class Lane:
    """A thread for jobs. A new job cancels the one before."""

    def __init__(self, name: str, deliver: Deliver) -> None:
        self.deliver = deliver
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.job: BackgroundJob | None = None
        self.closed = False

    @property
    def busy(self) -> bool:
        return self.job is not None

    def submit(
        self,
        work: Callable[[BackgroundJob], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Start `work` once the thread is free. Then either `done` or `failed` is called, or neither after a cancel."""
        self.cancel()
        if self.closed:
            return
        job = self.job = BackgroundJob(self.deliver, progress)

        def succeed(result: T) -> None:
            self.job = None
            try:
                done(result)
            except Exception as error:  # Qt's event loop must not see an exception
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
            except Exception as error:  # the widget shows every error, a terminal may not exist
                job.tell(fail, error)
            else:
                job.tell(succeed, result)

        self.pool.submit(run)

    def cancel(self) -> None:
        if self.job is not None:
            self.job.cancel()
            self.job = None

    def close(self, wait: bool = False) -> None:
        """Cancel and take no more jobs. Without `wait`, this returns before the current job has ended."""
        self.cancel()
        self.closed = True
        self.pool.shutdown(wait=wait, cancel_futures=not wait)
