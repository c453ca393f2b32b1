"""Parts of the GPU kernel of non-local Bayes, each against numpy; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

import triton
import triton.language as tl

from nlmeans.core.lags import dct_basis
from nlmeans.patches.bayes.gpu_kernel import (
    add_integers,
    centred,
    eliminated,
    filtered_mean,
    half_inverse,
    shares_of_least_risk,
    sliced_product,
)
from nlmeans.patches.bayes.nl_bayes import filter_mean_patches, least_risk
from tests.nlmeans.patches.tensors import normal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

BOTH = pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])


@triton.jit
def multiply(a: Any, b: Any, result: Any, USED: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr) -> None:
    row, inner = tl.arange(0, ROWS), tl.arange(0, SIZE)
    left = tl.load(a + row[:, None] * SIZE + inner[None, :])
    right = tl.load(b + inner[:, None] * SIZE + inner[None, :])
    tl.store(result + row[:, None] * SIZE + inner[None, :], sliced_product(left, right, USED))


@BOTH
@pytest.mark.parametrize("used", [10, 32, 33, 64])
def test_a_product_in_slices_is_that_of_the_matrices(used: int, dtype: torch.dtype, error: float) -> None:
    a, b = normal(16, 64).to(DEVICE, dtype), normal(64, 64, seed=1).to(DEVICE, dtype)
    a[:, used:] = 0
    b[used:] = 0
    result = torch.empty_like(a)
    multiply[(1,)](a, b, result, used, 16, 64)
    torch.testing.assert_close(result.double(), a.double() @ b.double(), rtol=error, atol=20 * error)


@triton.jit
def solve(
    system: Any,
    rows: Any,
    pivots: Any,
    half: Any,
    least: Any,
    COUNT: tl.constexpr,
    INVERSE: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    k = tl.arange(0, SIZE)
    square = k[:, None] * SIZE + k[None, :]
    found, diagonal, left = eliminated(tl.load(system + square), tl.load(rows + square), least, COUNT, INVERSE)
    tl.store(rows + square, found)
    tl.store(pivots + k, diagonal)
    if INVERSE:
        tl.store(half + square, half_inverse(left, 1 / tl.sqrt(diagonal)))


@BOTH
@pytest.mark.parametrize("inverse", [False, True])
def test_elimination_gives_the_rows_and_pivots_of_a_factorisation_and_half_of_the_inverse(
    inverse: bool, dtype: torch.dtype, error: float
) -> None:
    size, count = 16, 11
    rows = torch.zeros(size, size, dtype=torch.float64)
    rows[:count] = normal(count, size)
    system = rows @ rows.mT + 0.5 * torch.eye(size, dtype=torch.float64)
    lower = torch.linalg.cholesky(system)
    expected = torch.linalg.solve_triangular(lower, rows, upper=False)
    found, half = rows.to(DEVICE, dtype), torch.zeros(size, size, dtype=dtype, device=DEVICE)
    pivots = half.new_empty(size)
    solve[(1,)](system.to(DEVICE, dtype), found, pivots, half, 0.5, count, inverse, size)
    torch.testing.assert_close(pivots.cpu().double(), lower.diagonal().square(), rtol=10 * error, atol=0)
    torch.testing.assert_close((found / pivots.sqrt()[:, None]).cpu().double(), expected, rtol=0, atol=10 * error)
    if inverse:
        torch.testing.assert_close(half.cpu().double(), lower.inverse(), rtol=0, atol=10 * error)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_pivot_lost_in_rounding_is_replaced_by_the_least(inverse: bool) -> None:
    system = torch.ones(16, 16, device=DEVICE)  # singular
    rows, pivots, half = torch.ones(16, 16, device=DEVICE), torch.empty(16, device=DEVICE), torch.zeros_like(system)
    solve[(1,)](system, rows, pivots, half, 1e-3, 16, inverse, 16)
    assert pivots[0] == 1
    assert (pivots[1:] == 1e-3).all()
    assert rows.isfinite().all()
    assert half.isfinite().all()


@triton.jit
def read(volume: Any, places: Any, patches: Any, means: Any, COUNT: tl.constexpr, USED: tl.constexpr) -> None:
    k = tl.arange(0, 16)
    square = k[:, None] * 16 + k[None, :]
    inside = (k < COUNT)[:, None] & (k < USED)[None, :]
    found, mean = centred(volume, tl.load(places + square), inside, COUNT, tl.float32)
    tl.store(patches + square, found)
    tl.store(means + k, mean)


def test_patches_are_read_without_their_mean_and_padded_with_zeros() -> None:
    volume = normal(300).float().to(DEVICE)
    places = torch.randint(0, 300, (16, 16), generator=torch.manual_seed(0)).to(DEVICE)
    patches, mean = torch.empty(16, 16, device=DEVICE), torch.empty(16, device=DEVICE)
    read[(1,)](volume, places, patches, mean, 5, 9)
    there = volume[places[:5, :9]]
    torch.testing.assert_close(mean[:9], there.mean(0))
    torch.testing.assert_close(patches[:5, :9], there - there.mean(0))
    assert not patches[5:].any()
    assert not patches[:, 9:].any()
    assert not mean[9:].any()


@triton.jit
def filter_mean(noisy: Any, guide: Any, basis: Any, spectrum: Any, mean: Any, freedom: Any, variance: Any) -> None:
    v = tl.arange(0, 32)
    matrix = tl.load(basis + v[:, None] * 32 + v[None, :])
    found, energy = filtered_mean(tl.load(noisy + v), tl.load(guide + v), variance, matrix, spectrum)
    tl.store(mean + v, found)
    tl.store(freedom, energy)


@pytest.mark.parametrize("variance", [0.0, 0.7])
def test_the_mean_patch_is_filtered_by_the_formula(variance: float) -> None:
    basis = dct_basis((3, 3, 3))
    noisy, guide, spectrum = normal(1, 1, 27), normal(1, 1, 27, seed=1), normal(27, seed=2).exp()
    expected, freedom = filter_mean_patches(noisy, guide, torch.tensor([variance]).double(), basis, spectrum)
    matrix, level = torch.zeros(32, 32), torch.ones(32)
    matrix[:27, :27], level[:27] = basis, spectrum
    mean, found = torch.empty(32, device=DEVICE), torch.empty(1, device=DEVICE)
    padded = [torch.nn.functional.pad(patch[0, 0], (0, 5)).float() for patch in (noisy, guide)]
    filter_mean[(1,)](*(t.to(DEVICE) for t in (*padded, matrix, level)), mean, found, variance)
    torch.testing.assert_close(mean[:27].cpu().double(), expected[0, 0], rtol=0, atol=1e-5)
    assert not mean[27:].any()
    assert float(found) == pytest.approx(float(freedom), rel=1e-5)


@triton.jit
def share(numbers: Any, result: Any) -> None:
    ff, fq, qq = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    amplitude, kept = shares_of_least_risk(ff, fq, qq, tl.load(numbers + 3), tl.load(numbers + 4))
    tl.store(result, amplitude)
    tl.store(result + 1, kept)


@pytest.mark.parametrize("numbers", [(3, 4, 9, 1, 2), (3, 1, 9, 1, 12), (0, 0, 0, 0, 0), (1, 1, 1, 1e-9, 1e-9)])
def test_the_shares_are_those_of_the_least_risk(numbers: tuple[float, ...]) -> None:
    given = torch.tensor(numbers, dtype=torch.float64)
    result = torch.empty(2, dtype=torch.float64, device=DEVICE)
    share[(1,)](given.to(DEVICE), result)
    torch.testing.assert_close(result.cpu(), torch.stack(least_risk(*given)))


@triton.jit
def add(sums: Any, places: Any, values: Any, COUNT: tl.constexpr) -> None:
    k = tl.arange(0, 16)
    add_integers(sums, tl.load(places + k), tl.load(values + k), k < COUNT, 8.0)


def test_integers_are_rounded_and_added_where_they_belong() -> None:
    values = torch.tensor([0.0, 1.1, -1.1, 0.06, -0.07, 1e6, *range(10)], device=DEVICE)
    places = torch.tensor([0, 1, 2, 3, 3, 3, *range(10)], device=DEVICE)
    sums = torch.ones(10, dtype=torch.int64, device=DEVICE)
    add[(1,)](sums, places, values, 6)
    np.testing.assert_array_equal(sums.cpu()[:5].numpy(), [1, 10, -8, 8_000_000 + 1 + 0 - 1, 1])
