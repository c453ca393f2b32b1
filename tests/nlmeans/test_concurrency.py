"""Calls at the same time and in other processes, any number of threads, and what a call leaves behind: nothing."""

from __future__ import annotations

import itertools
import locale
import multiprocessing
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise, despeckle, estimate_sigma, nonlocal_means, preview
from nlmeans.core.modes import libraries_of_numpy
from tests.nlmeans.volumes import SINGLE, Floats, gaussian, piecewise

pytestmark = pytest.mark.usefixtures("two_threads")

SIGMA = 10.0
VOLUME = gaussian(piecewise(11, 13, 14), SIGMA)
IMAGE = gaussian(piecewise(30, 31), SIGMA, seed=1)


def every_call(number: int) -> Floats:
    """One of many different calls of the engine."""
    method = sorted(SINGLE)[number % len(SINGLE)]
    settings: list[dict[str, Any]] = [
        {"volume": VOLUME, "sigma": SIGMA},
        {"volume": np.abs(VOLUME), "noise": "rician"},
        {"volume": np.stack([IMAGE, 2 * IMAGE]), "sigma": (SIGMA, 2 * SIGMA), "series": 0},
        {"volume": np.stack([IMAGE, 2 * IMAGE]), "sigma": SIGMA, "channels": 0, "seed": 3},
        {"volume": np.abs(VOLUME), "noise": "poisson", "gain": 2.0, "despeckle": True},
    ]
    return np.asarray(denoise(method=method, **settings[number % len(settings)]))


def all_calls() -> list[Floats]:
    return [every_call(number) for number in range(2 * len(SINGLE))]


@pytest.fixture(scope="module")
def expected() -> list[Floats]:
    return all_calls()


def test_four_threads_with_different_settings_give_the_bits_of_one(expected: list[Floats]) -> None:
    order = list(range(len(expected)))
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(4) as executor:
        for number, result in zip(order, executor.map(every_call, order), strict=True):
            np.testing.assert_array_equal(result, expected[number])


def send_all_calls(connection: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    connection.send(all_calls())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_method_works_in_another_process(method: str, expected: list[Floats]) -> None:
    """With the same bits in a fresh process. In a forked one PyTorch itself hangs with more than one thread, so that
    workers have one, as those of its DataLoader, and results differ by rounding.
    """
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    threads = 1 if method == "fork" else torch.get_num_threads()
    child = context.Process(target=send_all_calls, args=(sender, threads))  # type: ignore[attr-defined]
    child.start()
    assert receiver.poll(240), "the child process hangs"
    tolerance = 1e-6 if method == "fork" else 0.0
    for result, usual in zip(receiver.recv(), expected, strict=True):
        np.testing.assert_allclose(result, usual, rtol=0, atol=tolerance * np.ptp(usual))
    child.join(20)
    assert child.exitcode == 0


@pytest.mark.parametrize("method", SINGLE)
def test_the_number_of_threads_makes_no_more_than_a_rounding_difference(method: str) -> None:
    """A millionth of the range."""
    before, results = torch.get_num_threads(), []
    larger = gaussian(piecewise(18, 24, 26), SIGMA)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(denoise(larger, SIGMA, method=method))
        np.testing.assert_array_equal(denoise(larger, SIGMA, method=method), results[-1])
    finally:
        torch.set_num_threads(before)
    for one, other in itertools.combinations(results, 2):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.ptp(larger))


# ---------------------------------------------------------------- what is shared by the whole process


def shared() -> dict[str, Any]:
    """What a call could change for others."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "numpy's threads": [library["num_threads"] for library in libraries_of_numpy().info()],
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "denormal": float(torch.tensor(1e-40) * 1),
        "matmul": torch.get_float32_matmul_precision(),
        "torch": bytes(torch.get_rng_state().numpy()),
        "numpy": state[1].tobytes() + bytes(state[2]),
        "python": random.getstate(),
        "errors": np.geterr(),
        "print": str(np.get_printoptions()),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.fixture
def unusual() -> Iterator[None]:
    """Settings that differ from the defaults, so that a call which resets them is found out."""
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    errors, matmul = np.seterr(under="warn"), torch.get_float32_matmul_precision()
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_num_threads(threads)
    torch.set_grad_enabled(grad)
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision(matmul)
    np.seterr(**errors)


def call_all() -> None:
    all_calls()
    preview(VOLUME, 3, sigma="map", method="stochastic")
    estimate_sigma(np.abs(VOLUME), noise="rician", map=True)
    despeckle(VOLUME)
    nonlocal_means(torch.from_numpy(IMAGE), 9.0, samples=20, backend="loop")
    with pytest.raises(ValueError, match="is NaN everywhere"):
        denoise(np.full((4, 5), np.nan))
    with pytest.raises(KeyError):
        denoise(VOLUME, SIGMA, progress=lambda fraction: {}["stop"])  # type: ignore[index]


@pytest.mark.usefixtures("expected")  # what is made once, such as tables and kernels, is there then
def test_a_call_changes_nothing_global() -> None:
    before, running = shared(), set(threading.enumerate())
    call_all()
    assert shared() == before
    assert set(threading.enumerate()) <= running


@pytest.mark.usefixtures("unusual")
def test_a_call_neither_changes_nor_obeys_what_others_have_set(expected: list[Floats]) -> None:
    before = shared()
    for result, usual in zip(all_calls(), expected, strict=True):
        np.testing.assert_allclose(result, usual, rtol=0, atol=1e-6 * np.ptp(usual))
    assert shared() == before
