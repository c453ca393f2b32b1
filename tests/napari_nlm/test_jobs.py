"""Jobs in the background: one at a time, the latest wins, and results arrive in the main thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from napari_nlm.jobs import REPORT_INTERVAL, BackgroundJob, Lane
from nlmeans import Cancelled


class Mail:
    """A queue in place of the event loop."""

    def __init__(self) -> None:
        self.functions: queue.Queue[Callable[[], None]] = queue.Queue()

    def deliver(self, function: Callable[[], None]) -> None:
        self.functions.put(function)

    def empty_after(self, lane: Lane) -> None:
        """Call all that was delivered until the lane's thread had its turn."""
        lane.pool.submit(lambda: None).result(30)
        while not self.functions.empty():
            self.functions.get()()


@pytest.fixture
def mail() -> Mail:
    return Mail()


@pytest.fixture
def lane(mail: Mail) -> Iterator[Lane]:
    made = Lane("test", mail.deliver)
    yield made
    made.pool.shutdown(wait=True)


def unexpected(error: Exception) -> None:
    raise AssertionError(error)


def test_work_is_done_elsewhere_and_its_result_arrives_here(lane: Lane, mail: Mail) -> None:
    threads: list[int] = []
    results: list[Any] = []

    def work(job: BackgroundJob) -> int:
        threads.append(threading.get_ident())
        return 42

    lane.submit(work, results.append, unexpected)
    assert lane.busy
    mail.empty_after(lane)
    assert results == [42]
    assert threads[0] != threading.get_ident()
    assert not lane.busy


def test_an_error_arrives_as_an_error(lane: Lane, mail: Mail) -> None:
    errors: list[Exception] = []

    def work(job: BackgroundJob) -> None:
        raise ValueError("broken")

    lane.submit(work, lambda _: pytest.fail("done"), errors.append)
    mail.empty_after(lane)
    assert str(errors[0]) == "broken"
    assert not lane.busy


def test_an_error_while_a_result_is_shown_arrives_as_an_error(lane: Lane, mail: Mail) -> None:
    errors: list[Exception] = []

    def done(result: int) -> None:
        raise ValueError(f"cannot show {result}")

    lane.submit(lambda job: 1, done, errors.append)
    mail.empty_after(lane)
    assert str(errors[0]) == "cannot show 1"


def test_a_new_job_replaces_the_one_before(lane: Lane, mail: Mail) -> None:
    results: list[str] = []
    started, go = threading.Event(), threading.Event()

    def first(job: BackgroundJob) -> str:
        started.set()
        go.wait(30)
        job.report(0.5)
        return "first"

    lane.submit(first, results.append, unexpected)
    assert started.wait(30)
    lane.submit(lambda job: "second", results.append, unexpected)
    go.set()
    mail.empty_after(lane)
    assert results == ["second"]


def test_nothing_of_a_cancelled_job_arrives(lane: Lane, mail: Mail) -> None:
    results: list[Any] = []
    lane.submit(lambda job: 1, results.append, unexpected)
    lane.pool.submit(lambda: None).result(30)
    assert not mail.functions.empty()  # it is on its way
    lane.cancel()
    mail.empty_after(lane)
    assert results == []
    assert not lane.busy


def test_a_report_of_a_cancelled_job_ends_the_work() -> None:
    job = BackgroundJob(lambda function: function())
    job.report(0.1)
    job.cancel()
    assert job.cancelled
    with pytest.raises(Cancelled):
        job.report(0.2)


def test_progress_does_not_flood_the_main_thread() -> None:
    told: list[float] = []
    job = BackgroundJob(lambda function: function(), told.append)
    for step in range(1000):
        job.report(step / 1000)
    assert 1 <= len(told) < 100
    time.sleep(REPORT_INTERVAL)
    job.report(1.0)
    assert told[-1] == 1.0


def test_a_closed_lane_takes_no_jobs(lane: Lane, mail: Mail) -> None:
    lane.close(wait=True)
    lane.submit(lambda job: 1, lambda _: pytest.fail("done"), unexpected)
    assert not lane.busy
    assert mail.functions.empty()
