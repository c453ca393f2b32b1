"""Every function of the package computes the same under autocast as without it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import nlmeans
from nlmeans import blur
from nlmeans.core.modes import (
    ALONE_IN_NUMPY,
    in_one_thread,
    kernel_threads,
    left_to_kernels,
    libraries_of_numpy,
    outside_autocast,
    shared_among,
)
from nlmeans.methods.registry import METHODS
from tests.nlmeans.volumes import SINGLE

GENERATOR = torch.Generator().manual_seed(0)
NOISY = 100 + 5 * torch.randn(16, 18, 17, generator=GENERATOR)
SERIES = torch.linspace(1, 2, 6)[:, None, None, None] * NOISY
HALF = [torch.bfloat16, torch.float16]


def test_a_function_is_called_without_autocast() -> None:
    product = outside_autocast(lambda a: a @ a)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(torch.eye(3)).dtype == torch.float32
        assert (torch.eye(3) @ torch.eye(3)).dtype == torch.bfloat16
    assert product(torch.eye(3)).dtype == torch.float32


def learned_blur(image: Tensor) -> Tensor:
    covariance = blur.log_cholesky_to_covariance(torch.zeros(*image.shape, 6).requires_grad_())
    blurred = blur.local_gaussian_blur(image, covariance)
    (gradient,) = torch.autograd.grad(blurred.square().sum(), covariance)
    return gradient


def operator_and_gradient(image: Tensor) -> Tensor:
    tracked = image.clone().requires_grad_()
    result = nlmeans.nonlocal_means(tracked, 4.0, search_radius=1)
    (gradient,) = torch.autograd.grad(result.square().sum(), tracked)
    return torch.stack([result.detach(), gradient])


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    **{method: lambda x, method=method: nlmeans.denoise(x, 5.0, method=method) for method in SINGLE},
    "auto": nlmeans.denoise,
    "map": lambda x: nlmeans.denoise(x, "map", method="classic"),
    "windowed": lambda x: nlmeans.denoise(x, 5.0, method="classic", backend="windowed"),
    "rician": lambda x: nlmeans.denoise(x, noise="rician", method="wiener"),
    "series": lambda x: nlmeans.denoise(SERIES, method="series", series=0),
    "maps": lambda x: nlmeans.denoise_with_maps(SERIES, method="series", series=0).noise_map,
    "preview": lambda x: nlmeans.preview(x, 3),
    "usual_h": nlmeans.usual_h,
    "estimate_sigma": nlmeans.estimate_sigma,
    "estimated map": lambda x: torch.from_numpy(nlmeans.estimate_sigma(x, map=True)),
    "estimate_noise": lambda x: nlmeans.estimate_noise(x).sigma,
    "despeckle": nlmeans.despeckle,
    "operator": operator_and_gradient,
    "gaussian_blur": lambda x: blur.gaussian_blur(x, torch.eye(3) + 0.5),
    "gaussian_kernel": lambda x: blur.gaussian_kernel(torch.eye(3) + 0.5),
    "local_gaussian_blur": learned_blur,
    "complex": lambda x: torch.view_as_real(nlmeans.denoise(torch.complex(x, x / 2))),
}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_changes_no_number(name: str, dtype: torch.dtype) -> None:
    function = FUNCTIONS[name]
    expected = torch.as_tensor(function(NOISY))
    with torch.autocast("cpu", dtype):
        result = torch.as_tensor(function(NOISY))
    assert result.dtype == expected.dtype
    assert torch.equal(result, expected)


def test_these_are_all_methods() -> None:
    assert set(METHODS) - {"series"} == set(SINGLE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", ["auto", "subspace", "series", "operator", "local_gaussian_blur"])
def test_autocast_changes_no_number_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    expected = torch.as_tensor(FUNCTIONS[name](NOISY.cuda()))
    with torch.autocast("cuda", dtype):
        result = torch.as_tensor(FUNCTIONS[name](NOISY.cuda()))
    torch.testing.assert_close(result, expected)


@pytest.fixture
def six_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(("tasks", "share"), [(1, 6), (2, 3), (4, 1), (100, 1)])
@pytest.mark.usefixtures("six_threads")
def test_a_task_gets_its_share_and_other_threads_keep_all(tasks: int, share: int) -> None:
    with shared_among(tasks):
        assert torch.get_num_threads() == share
        assert threads_of_a_new_thread() == 6
    assert torch.get_num_threads() == 6
    assert threads_of_a_new_thread() == 6


@pytest.mark.usefixtures("six_threads")
def test_the_threads_come_back_after_an_exception() -> None:
    with pytest.raises(KeyError), shared_among(3):
        raise KeyError
    assert torch.get_num_threads() == 6


@pytest.mark.usefixtures("two_threads")
def test_few_threads_are_left_to_the_kernels_until_all_is_done() -> None:
    assert kernel_threads() == 2
    with left_to_kernels():
        assert (torch.get_num_threads(), kernel_threads(), threads_of_a_new_thread()) == (1, 2, 2)
        with left_to_kernels():
            assert (torch.get_num_threads(), kernel_threads()) == (1, 2)
        assert (torch.get_num_threads(), kernel_threads()) == (1, 2)
    assert (torch.get_num_threads(), kernel_threads()) == (2, 2)


@pytest.mark.usefixtures("six_threads")
def test_of_many_threads_torch_keeps_its_own() -> None:
    with left_to_kernels():
        assert (torch.get_num_threads(), kernel_threads()) == (6, 6)


@contextlib.contextmanager
def two_that_overlap(hold: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Call `hold` in two threads at once, with what it is to call inside: that waits until the block ends."""
    started, leave = threading.Barrier(3), threading.Event()

    def wait() -> None:
        started.wait(10)
        leave.wait(10)

    tasks = [threading.Thread(target=hold, args=(wait,)) for _ in range(2)]
    for thread in tasks:
        thread.start()
    started.wait(10)
    yield
    leave.set()
    for thread in tasks:
        thread.join(10)


@pytest.mark.usefixtures("six_threads")
def test_tasks_that_overlap_leave_no_share_behind() -> None:
    def task(wait: Callable[[], None]) -> None:
        with shared_among(2):
            wait()

    with two_that_overlap(task):
        pass
    assert threads_of_a_new_thread() == 6


def threads_of_numpy() -> list[int]:
    return [library["num_threads"] for library in libraries_of_numpy().info()]


@pytest.mark.usefixtures("six_threads")
def test_a_function_in_one_thread_has_one_in_torch_and_numpy_and_leaves_them_as_they_were() -> None:
    before = threads_of_numpy()

    @in_one_thread
    def both() -> tuple[int, list[int]]:
        return torch.get_num_threads(), threads_of_numpy()

    assert in_one_thread(both)() == (1, [1] * len(before))
    assert (torch.get_num_threads(), threads_of_numpy()) == (6, before)


def test_functions_in_one_thread_that_overlap_leave_numpy_as_it_was() -> None:
    before = threads_of_numpy()

    @in_one_thread
    def task(wait: Callable[[], None]) -> None:
        wait()

    with two_that_overlap(task):
        assert set(threads_of_numpy()) <= {1}
    assert threads_of_numpy() == before


def test_numpy_gets_its_threads_back_from_another_thread_than_that_which_took_them() -> None:
    before = threads_of_numpy()
    with ThreadPoolExecutor(1) as pool:  # its thread lives on
        pool.submit(ALONE_IN_NUMPY.__enter__).result()
        ALONE_IN_NUMPY.__exit__()
        assert threads_of_numpy() == before
