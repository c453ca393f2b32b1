"""Calls at the same time and in other processes, and any number of threads."""

from __future__ import annotations

import itertools
import multiprocessing
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import METHODS, denoise
from tests.nlmeans.volumes import Floats, gaussian, piecewise

SIGMA = 10.0
VOLUME = gaussian(piecewise(11, 13, 14), SIGMA)
IMAGE = gaussian(piecewise(30, 31), SIGMA, seed=1)


def every_call(number: int) -> Floats:
    """One of many different calls of the engine."""
    method = sorted(METHODS)[number % len(METHODS)]
    settings: list[dict[str, Any]] = [
        {"volume": VOLUME, "sigma": SIGMA},
        {"volume": np.abs(VOLUME), "noise": "rician"},
        {"volume": np.stack([IMAGE, 2 * IMAGE]), "sigma": (SIGMA, 2 * SIGMA), "series": 0},
        {"volume": np.stack([IMAGE, 2 * IMAGE]), "sigma": SIGMA, "channels": 0, "seed": 3},
        {"volume": np.abs(VOLUME), "noise": "poisson", "gain": 2.0, "despeckle": True},
    ]
    return np.asarray(denoise(method=method, **settings[number % len(settings)]))


def all_calls() -> list[Floats]:
    return [every_call(number) for number in range(2 * len(METHODS))]


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


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_threads_makes_no_more_than_a_rounding_difference(method: str) -> None:
    """A millionth of the range."""
    before, results = torch.get_num_threads(), []
    larger = gaussian(piecewise(18, 40, 44), SIGMA)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(denoise(larger, SIGMA, method=method))
            again = denoise(larger, SIGMA, method=method)
            np.testing.assert_array_equal(again, results[-1])
    finally:
        torch.set_num_threads(before)
    for one, other in itertools.combinations(results, 2):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.ptp(larger))
