"""The local blur by the GPU kernels against `loop` in float64; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nlmeans.blur import loop, operators
from nlmeans.blur.operators import blur_locally
from nlmeans.kernels import dispatch
from tests.nlmeans.blur.padded import SIZES, largest_error, random_precision

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

from nlmeans.blur import gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class OnDevice:
    """The kernels for tensors of the CPU."""

    @staticmethod
    def blur(padded: Tensor, precision: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        result, totals = gpu.blur(padded.to(DEVICE), precision.to(DEVICE), *rest)
        return result.cpu(), totals.cpu()

    @staticmethod
    def derivatives(*arguments: Any) -> None:
        there = [value.to(DEVICE) if isinstance(value, Tensor) else value for value in arguments]
        gpu.derivatives(*there)
        for here, found in zip(arguments[-2:], there[-2:], strict=True):
            here.copy_(found)


@pytest.mark.parametrize("entries", [1, 3, 6])
@pytest.mark.parametrize("case", ["line", "image", "radius 0", "many blocks"])
def test_the_blur_and_its_derivatives_are_those_of_the_formula(case: str, entries: int) -> None:
    assert largest_error(OnDevice, case, entries) < 2e-5


@pytest.mark.parametrize("channels", [3, 6])
def test_channels_are_blurred_in_batches(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.nlmeans.blur.padded.CASES", {"channels": ((2, 3, 5), (1, 1, 2), channels)})
    assert largest_error(OnDevice, "channels", 6) < 2e-5


def test_a_constant_image_stays_exactly_the_same() -> None:
    padded = torch.full((1, 3, 5, 8), 0.1, device=DEVICE)
    result, _ = gpu.blur(padded, random_precision(3, (1, 3, 6)).to(DEVICE), (1, 1, 1), SIZES)
    assert (result == padded[0, 0, 0, 0]).all()


@pytest.mark.parametrize("wanted", ["image", "precision"])
def test_only_the_wanted_derivative_is_computed(wanted: str) -> None:
    padded, precision = torch.rand(1, 3, 5, 8, device=DEVICE), random_precision(1, (1, 3, 6)).to(DEVICE)
    result, totals = gpu.blur(padded, precision, (1, 1, 1), SIZES)
    target = torch.zeros_like(padded if wanted == "image" else precision)
    both = (target, None) if wanted == "image" else (None, target)
    gpu.derivatives(padded, precision, result, totals, torch.ones_like(result), (1, 1, 1), SIZES, *both)
    assert target.any()


@pytest.mark.parametrize("entries", [1, 3, 6])
def test_the_kernels_pass_their_trials_and_wrong_ones_do_not(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_passed", {})
    precision, padded = torch.empty(entries, 1, 1, 1), torch.empty(1, 1, 1, 1)
    pairs: list[tuple[dispatch.Trial, Callable[..., object], Callable[..., object]]] = [
        (gpu.blur_trial(precision, padded), gpu.blur, loop.blur),
        (gpu.derivatives_trial(precision, padded), gpu.derivatives, loop.derivatives),
    ]
    for trial, kernel, plain in pairs:
        assert dispatch.passes(trial, kernel, plain, torch.device(DEVICE))

        def wrong(first: Tensor, second: Tensor, *rest: Any, kernel: Callable[..., object] = kernel) -> object:
            return kernel(first, 1.1 * second, *rest)

        assert not dispatch.passes(
            trial._replace(kernel="wrong " + str(trial.kernel)), wrong, plain, torch.device(DEVICE)
        )


@pytest.mark.parametrize("entries", [1, 6])
def test_the_blur_offers_the_kernels_with_a_trial(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, `kernel_for` would take them; here the results of what it is offered are compared with torch."""
    kernels: list[object] = []

    def take_the_kernel(tensors: list[Tensor], *, gpu: Any, trial: dispatch.Trial, **rest: Any) -> Any:
        kernels.append(trial.kernel)
        return gpu

    torch.manual_seed(0)
    padded, precision = torch.rand(2, 3, 5, 8), random_precision(entries, (1, 3, 4))
    found = []
    for dtype in (torch.float64, torch.float32):
        if dtype == torch.float32:
            monkeypatch.setattr(operators, "kernel_for", take_the_kernel)
        given = [t.to(DEVICE, dtype).requires_grad_() for t in (padded, precision)]
        result = blur_locally(given[0], given[1], (1, 1, 2), SIZES)
        result.square().sum().backward()
        found.append([t.detach().cpu().double() for t in (result, *(t.grad for t in given if t.grad is not None))])
    for exact, single in zip(*found, strict=True):
        torch.testing.assert_close(single, exact, rtol=1e-4, atol=1e-4)
    assert kernels == [("blur", entries, 2), ("derivatives of the blur", entries, 2)]


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
@pytest.mark.parametrize("entries", [1, 3, 6])
def test_they_are_used_on_a_gpu_and_give_the_same_bits_every_time(
    entries: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    padded, precision = torch.rand(2, 16, 45, 66).cuda(), random_precision(entries, (10, 41, 60)).cuda()
    given = padded.requires_grad_(), precision.requires_grad_()
    found = []
    for _ in range(2):
        result = blur_locally(*given, (3, 2, 3), SIZES)
        found.append((result, *torch.autograd.grad(result.square().sum(), given)))
    assert all(torch.equal(*both) for both in zip(*found, strict=True))
    assert "GPU kernel" not in caplog.text
    monkeypatch.setattr(gpu, "blur", None)
    with pytest.raises(TypeError):
        blur_locally(*given, (3, 2, 3), SIZES)
