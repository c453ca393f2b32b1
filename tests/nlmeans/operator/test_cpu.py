"""The backend `cpu` compared with `loop` in float64, and in threads, in child processes and when cancelled."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from nlmeans.core.axes import Axes
from nlmeans.operator.cpu import CPU
from nlmeans.operator.loop import LOOP
from nlmeans.operator.request import Request
from tests.nlmeans.operator.requests import in_float64, random_request

pytestmark = pytest.mark.usefixtures("two_threads")


def agrees_with_loop(of: Request, tolerance: float = 1e-5) -> bool:
    result, expected = CPU.run(of), LOOP.run(in_float64(of))
    assert result.shape == expected.shape
    assert result.dtype == torch.float32
    return bool((result - expected).abs().max() <= tolerance * expected.abs().max())


def small_job() -> torch.Tensor:
    return CPU.run(random_request((9, 20, 33), (1, 1, 1), (2, 2, 2)))


@pytest.mark.parametrize(
    ("shape", "patch_radius", "search_radius"),
    [
        ((9, 10, 11), (1, 1, 1), (2, 2, 2)),
        ((20, 21, 135), (1, 1, 1), (1, 2, 3)),  # several tiles along z, y and x
        ((17, 18, 19), (2, 2, 2), (3, 1, 2)),
        ((8, 9, 40), (0, 0, 0), (3, 2, 1)),
        ((5, 6, 20), (3, 0, 2), (2, 0, 9)),
        ((1, 40, 50), (0, 1, 1), (0, 4, 5)),  # an image
        ((1, 37, 150), (0, 3, 3), (0, 2, 17)),
        ((1, 20, 30), (1, 1, 1), (3, 3, 3)),  # one plane of a slab
        ((3, 4, 5), (1, 1, 1), (7, 6, 9)),  # a window far larger than the volume
        ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ((2, 3, 4), (1, 1, 1), (0, 0, 0)),  # no neighbours
    ],
)
def test_all_radii_and_shapes(shape: Axes, patch_radius: Axes, search_radius: Axes) -> None:
    assert agrees_with_loop(random_request(shape, patch_radius, search_radius))


@pytest.mark.parametrize("center", ["one", "max", "zero"])
@pytest.mark.parametrize(("channels", "features"), [(1, 0), (3, 0), (1, 2), (4, 1), (2, 3)])
def test_all_options(channels: int, features: int, center: str) -> None:
    for maps, offset in itertools.product((False, True), (0.0, 0.2)):
        options: dict[str, Any] = {"channels": channels, "features": features, "maps": maps, "offset": offset}
        assert agrees_with_loop(random_request((5, 6, 19), (1, 1, 1), (1, 2, 2), center=center, **options))


def test_random_shapes_and_strengths() -> None:
    random = np.random.default_rng(1)
    for seed in range(20):
        radius = int(random.integers(0, 2))
        d, h, w = random.integers(1, 24, 3).tolist()
        sz, sy, sx = random.integers(0, 4, 3).tolist()
        of = random_request(
            (d, h, w),
            (radius, radius, radius),
            (sz, sy, sx),
            maps=bool(random.integers(2)),
            falloff=float(10 ** random.uniform(-2, 2)),
            offset=float(random.uniform(0, 0.5)),
            seed=seed,
        )
        assert agrees_with_loop(of, 3e-5), of  # steep weights multiply the rounding of the exponent


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda of: {"falloff": of.falloff.double()}, "float32"),
        (lambda of: {"patch_radius": (1, 4, 1)}, "patch radius"),
        (lambda of: {"guide": of.guide.to("meta")}, "CPU"),
    ],
)
def test_refuses_what_it_cannot_do(change: Callable[[Request], dict[str, Any]], reason: str) -> None:
    of = random_request((3, 3, 3), (1, 1, 1), (1, 1, 1))
    assert CPU.refusal(of) == ""
    assert reason in CPU.refusal(dataclasses.replace(of, **change(of)))


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_same_bits_for_any_number_of_threads(set_threads: Callable[[int], None]) -> None:
    results = []
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        results.append(CPU.run(random_request((33, 40, 50), (1, 1, 1), (2, 2, 2))))
    assert all(torch.equal(result, results[0]) for result in results)


def test_four_python_threads_at_once() -> None:
    expected = small_job()
    with ThreadPoolExecutor(4) as executor:
        results = [future.result() for future in [executor.submit(small_job) for _ in range(12)]]
    assert all(torch.equal(result, expected) for result in results)


def send_small_job(connection: Any) -> None:
    connection.send(small_job().numpy())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_child_processes_after_torch_and_the_kernels_ran_in_the_parent(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    expected = small_job()
    torch.rand(300, 300) @ torch.rand(300, 300)  # torch has threads of its own by now
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_small_job, args=(sender,))  # type: ignore[attr-defined]
    child.start()
    assert receiver.poll(120), "the child process hangs"
    assert np.array_equal(receiver.recv(), expected.numpy())
    child.join(10)
    assert child.exitcode == 0


class Jobs(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return small_job()


def test_forked_data_loader_workers() -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    expected = small_job()
    torch.rand(300, 300) @ torch.rand(300, 300)
    loader = DataLoader(Jobs(), batch_size=2, num_workers=1, multiprocessing_context="fork", timeout=120)
    assert all(torch.equal(one, expected) for batch in loader for one in batch)


SECOND = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_cpu
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    result = test_cpu.small_job()
print(len(recorder.buffer), result.numpy().tobytes().hex())
"""


@pytest.fixture(scope="module")
def second() -> tuple[int, str]:
    """The number of kernels that a second process compiles, and the bytes of its result, with one thread of numba."""
    small_job()
    place = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SECOND]
    done = subprocess.run(command, env=os.environ | place, check=True, capture_output=True, text=True)
    compiled, result = done.stdout.split()
    return int(compiled), result


def test_any_number_of_numba_threads(second: tuple[int, str]) -> None:
    assert second[1] == small_job().numpy().tobytes().hex()


def test_second_process_takes_the_kernel_from_disk(second: tuple[int, str]) -> None:
    assert second[0] == 0


def test_progress_comes_from_the_calling_thread_and_ends_at_one() -> None:
    threads, fractions = set(), []

    def progress(fraction: float) -> None:
        threads.add(threading.get_ident())
        fractions.append(fraction)

    CPU.run(random_request((40, 64, 64), (1, 1, 1), (3, 3, 3), progress=progress))
    assert threads == {threading.get_ident()}
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_cancelling_stops_the_workers_soon() -> None:
    small_job()
    raised = []

    def cancel(fraction: float) -> None:
        raised.append(time.perf_counter())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CPU.run(random_request((128, 128, 128), (1, 1, 1), (8, 8, 8), progress=cancel))
    assert len(raised) == 1
    assert time.perf_counter() - raised[0] < 2  # the whole job takes ten
