"""The two filters and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans.blur.operators import blur_locally, convolve
from tests.nlmeans.blur.padded import SIZES, random_precision


def random(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_lines_are_correlated_with_the_kernel(length: int, axis: int) -> None:
    padded, kernel = random(2, 6, 7, 8), random(length)
    kernel = kernel + kernel.flip(0)
    expected = np.apply_along_axis(np.correlate, axis, padded.numpy(), kernel.numpy(), "valid")
    np.testing.assert_allclose(convolve(padded, kernel, axis), expected, rtol=1e-12)


def test_gradients_of_the_correlation_are_right() -> None:
    padded, kernel = random(2, 3, 5, 4).requires_grad_(), random(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, k: convolve(p, k, 2), (padded, kernel))


@pytest.mark.parametrize("entries", [1, 3, 6])
def test_gradients_of_the_local_blur_are_right(entries: int) -> None:
    torch.manual_seed(0)
    padded = random(2, 4, 5, 6).requires_grad_()
    precision = random_precision(entries, (2, 3, 2)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, i: blur_locally(p, i, (1, 1, 2), SIZES), (padded, precision))


@pytest.mark.parametrize("entries", [1, 3, 6])
def test_compiled_kernels_serve_float32_and_torch_serves_float64(entries: int) -> None:
    torch.manual_seed(0)
    padded, precision = random(2, 4, 5, 6), random_precision(entries, (2, 3, 2)).double()
    single = blur_locally(padded.float(), precision.float(), (1, 1, 2), SIZES)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), blur_locally(padded, precision, (1, 1, 2), SIZES), rtol=1e-5, atol=1e-6)
