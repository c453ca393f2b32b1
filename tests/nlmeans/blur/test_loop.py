"""The local blur with torch operations, compared with sums over the kernel written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans.blur import loop
from tests.nlmeans.blur.padded import SIZES, everything, random_precision


def test_parts_of_a_volume_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shape, radius = (5, 6, 7), (1, 2, 1)
    padded = torch.rand(2, 7, 10, 9, dtype=torch.float64)
    inverse, gradient = random_precision(3, shape).double(), torch.randn(2, *shape, dtype=torch.float64)
    whole = everything(loop, padded, inverse, radius, gradient)
    monkeypatch.setitem(loop.VOXELS_AT_ONCE, "cpu", 50)
    parts = everything(loop, padded, inverse, radius, gradient)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def matrices(precision: Tensor) -> Tensor:
    """Inverse covariances as (D, H, W, 3, 3)."""
    if len(precision) < 6:
        return torch.diag_embed(precision.expand(3, *precision.shape[1:]).movedim(0, -1))
    row, column = torch.triu_indices(3, 3)
    upper = precision.new_zeros(*precision.shape[1:], 3, 3)
    upper[..., row, column] = precision.movedim(0, -1)
    return upper + upper.triu(1).mT


@pytest.mark.parametrize("entries", [1, 3, 6])
def test_a_voxel_is_the_mean_of_its_kernel_weighted_by_the_gaussian(entries: int) -> None:
    torch.manual_seed(0)
    shape, radius = (2, 4, 5), (1, 2, 1)
    padded = torch.rand(2, 4, 8, 7, dtype=torch.float64)
    precision = random_precision(entries, shape).double()
    result, totals = loop.blur(padded, precision, radius, SIZES)
    inverse = matrices(precision)
    for z, y, x in np.ndindex(*shape):
        weights = torch.zeros(3, 5, 3, dtype=torch.float64)
        for o in np.ndindex(3, 5, 3):
            step = torch.tensor([(a - r) * size for a, r, size in zip(o, radius, SIZES, strict=True)]).double()
            weights[o] = torch.exp(-0.5 * step @ inverse[z, y, x] @ step)
        box = padded[:, z : z + 3, y : y + 5, x : x + 3]
        torch.testing.assert_close(totals[z, y, x], weights.sum())
        torch.testing.assert_close(result[:, z, y, x], (weights * box).sum((1, 2, 3)) / weights.sum())


@pytest.mark.parametrize("entries", [1, 3, 6])
def test_slopes_are_derivatives_of_the_exponent(entries: int) -> None:
    offset = (1, -2, 3)
    precision = torch.rand(entries, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    step = torch.tensor([o * size for o, size in zip(offset, SIZES, strict=True)], dtype=torch.float64)
    exponent = -0.5 * step @ matrices(precision)[0, 0, 0] @ step
    (gradient,) = torch.autograd.grad(exponent, precision)
    assert loop.slopes(offset, SIZES, entries) == pytest.approx(gradient.flatten().tolist())
