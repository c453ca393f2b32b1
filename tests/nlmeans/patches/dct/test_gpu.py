"""The sliding DCT by the GPU kernel against torch in float64; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from nlmeans.core.lags import dct_matrix
from nlmeans.kernels import dispatch
from nlmeans.patches.dct import sliding
from nlmeans.patches.dct.sliding import hard_threshold, wiener_filter
from nlmeans.patches.kernel_constants import EDGE
from tests.nlmeans.patches.tensors import LAGS

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

from nlmeans.patches.dct import cpu, gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def through_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let float32 on a CPU take the kernel for GPUs, in the interpreter."""
    monkeypatch.setattr(cpu, "filter_channel", gpu.filter_channel)


@pytest.mark.usefixtures("through_the_kernel")
@pytest.mark.parametrize(
    ("shape", "varying", "lags"),
    [
        ((2, 2, 3), True, LAGS),
        ((1, 6, 9), False, None),
        ((1, 6, 9), True, None),
        ((1, 6, 9), False, LAGS),
        ((5, 1, 7), True, LAGS),
        ((1, 1, 30), False, None),
    ],
)
def test_the_kernel_is_as_exact_as_its_numbers(shape: tuple[int, int, int], varying: bool, lags: Tensor | None) -> None:
    generator = torch.manual_seed(0)
    pilot = 20 * torch.rand(1, *shape, dtype=torch.float64, generator=generator)
    noisy = pilot + torch.randn(1, *shape, dtype=torch.float64, generator=generator)
    sigma = 0.5 + torch.rand(shape, dtype=torch.float64, generator=generator) if varying else 1.3
    single = sigma.float().to(DEVICE) if isinstance(sigma, Tensor) else sigma
    x, y = noisy.float().to(DEVICE), pilot.float().to(DEVICE)
    hard = hard_threshold(noisy, sigma, stride=1, autocovariance=lags)
    found = hard_threshold(x, single, stride=1, autocovariance=lags)
    torch.testing.assert_close(found.cpu(), hard.float(), rtol=0, atol=1e-4)
    soft = wiener_filter(noisy, pilot, sigma, autocovariance=lags)
    found = wiener_filter(x, y, single, autocovariance=lags)
    torch.testing.assert_close(found.cpu(), soft.float(), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("through_the_kernel")
def test_rows_beyond_one_block_and_one_warp_are_filtered_too() -> None:
    z = 3 * torch.randn(2, 1, 15, 35, generator=torch.manual_seed(0))
    found = hard_threshold(z.to(DEVICE), stride=1)
    torch.testing.assert_close(found.cpu(), hard_threshold(z.double(), stride=1).float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(EDGE, EDGE, EDGE), (1, EDGE, EDGE)])
@pytest.mark.parametrize("wiener", [False, True])
def test_the_kernel_passes_its_trial_and_a_wrong_one_does_not(
    size: tuple[int, int, int], wiener: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_passed", {})
    trial = gpu.trial(size, wiener, varying=True)
    plain: list[sliding.FilterChannel] = []

    def catch(tensors: list[Tensor], **implementations: sliding.FilterChannel) -> sliding.FilterChannel:
        plain.append(implementations["plain"])
        return implementations["plain"]

    monkeypatch.setattr(sliding, "kernel_for", catch)
    z = torch.zeros(1, *(2 * n if n > 1 else 1 for n in size))
    if wiener:
        wiener_filter(z, z)
    else:
        hard_threshold(z, stride=1)
    constants = {"spectrum": torch.ones(size[0] * 16), "matrix": dct_matrix(EDGE)}
    right = partial(gpu.filter_channel, strength=1.0 if wiener else 2.7**2, **constants)
    assert dispatch.passes(trial, right, plain[0], torch.device(DEVICE))
    wrong = partial(gpu.filter_channel, strength=30.0, **constants)
    assert not dispatch.passes(trial._replace(kernel="wrong"), wrong, plain[0], torch.device(DEVICE))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
@pytest.mark.parametrize("shape", [(24, 25, 66), (1, 60, 61)])
def test_it_is_used_on_a_gpu_and_gives_the_same_bits_every_time(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    z = 3 * torch.randn(1, *shape, generator=torch.manual_seed(0)).cuda()
    found = [wiener_filter(z, z) for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert "GPU kernel" not in caplog.text
    torch.testing.assert_close(found[0].double(), wiener_filter(z.double(), z.double()), rtol=0, atol=1e-4)
    monkeypatch.setattr(gpu, "filter_channel", None)
    with pytest.raises(TypeError):
        wiener_filter(z, z)
