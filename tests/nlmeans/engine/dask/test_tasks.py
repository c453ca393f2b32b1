"""Where tasks run: on threads that share the cores, and on the processes of a cluster; and which block fails."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster

from nlmeans import Settings, denoise
from nlmeans.engine.dask import tasks
from tests.nlmeans.engine.dask.conftest import QUICK, SIGMA, assert_same, volume

TIMEOUT = 120


def test_a_block_that_fails_is_named() -> None:
    noisy = volume(12, 16, 20)
    noisy[8, 3, 2] = np.inf
    result = denoise(da.from_array(noisy, chunks=(6, 16, 10)), SIGMA)
    with pytest.raises(
        ValueError, match=r"volume contains infinite .* \(in the block of voxels \[6:12, 0:16, 0:10\]\)"
    ):
        result.compute()


@pytest.mark.usefixtures("two_threads")
def test_threads_share_the_cores() -> None:
    before = torch.get_num_threads()
    noisy = volume(12, 16, 40)
    result = denoise(da.from_array(noisy, chunks=(6, 8, 10)), **QUICK)
    with dask.config.set(scheduler="threads"):
        assert_same(result, denoise(noisy, **QUICK))
    assert torch.get_num_threads() == before


def test_tasks_at_the_same_time_leave_threads_as_they_found_them() -> None:
    """This includes threads that start later, and those of a pool that ran such tasks."""
    before, seen, together = torch.get_num_threads(), [], threading.Barrier(4)

    def number(_: int) -> int:
        together.wait(TIMEOUT)
        return torch.get_num_threads()

    array = da.from_array(volume(12, 16, 20), chunks=(6, 8, 10))
    torch.set_num_threads(3)
    try:
        for _ in range(3):
            with ThreadPoolExecutor(4) as pool:
                denoise(array, SIGMA, **QUICK).compute(scheduler="threads", pool=pool)
                seen += pool.map(number, range(4))
            with ThreadPoolExecutor(4) as later:
                seen += [torch.get_num_threads(), *later.map(number, range(4))]
    finally:
        torch.set_num_threads(before)
    assert seen == [3] * 27


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        (0, "cuda", "cuda:0"),
        (3, "cuda", "cuda:1"),
        ("tcp://10.0.0.1:99", "cuda", "cuda:1"),
        (3, "cuda:0", "cuda:0"),
        (None, "cuda", "cuda"),
    ],
)
def test_each_worker_has_a_gpu(name: Any, device: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("nlmeans.engine.settings.checked_device", lambda device: device)
    worker = None if name is None else SimpleNamespace(name=name)
    monkeypatch.setattr(tasks, "this_worker", lambda: worker)
    assert tasks.on_this_worker(Settings(device=device)).device == expected


@contextlib.contextmanager
def cluster(**arguments: Any) -> Iterator[Client]:
    """Run a cluster of two processes with one thread each."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, **arguments) as processes,
        Client(processes, timeout=TIMEOUT) as client,
    ):
        yield client


def test_on_a_cluster_of_processes_of_which_one_is_killed() -> None:
    noisy = volume(12, 24, 30)
    array = da.from_array(noisy, chunks=(6, 12, 10))
    settings = {**QUICK, "backend": "loop"}  # not compiled, which each process would do anew
    with cluster() as client:
        result = client.compute(denoise(array, **settings))
        np.testing.assert_allclose(result.result(timeout=TIMEOUT), denoise(noisy, **settings), atol=1e-3)

        future = client.compute(denoise(array, SIGMA, **settings))
        workers = client.run(os.getpid)
        end = time.monotonic() + TIMEOUT
        while not any("nlmeans" in str(key) for key in flattened(client.has_what())) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(next(iter(workers.values())), signal.SIGKILL)
        killed = future.result(timeout=TIMEOUT)
    np.testing.assert_allclose(killed, denoise(noisy, SIGMA, **settings), atol=1e-3)


def flattened(held: Any) -> list[Any]:
    return [key for keys in held.values() for key in keys]
