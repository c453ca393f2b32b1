"""Parts of the GPU kernel of the sliding DCT, each against scipy; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dct, dctn, idct

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

import triton
import triton.language as tl

from nlmeans.core.lags import dct_matrix
from nlmeans.patches.dct.gpu_kernel import LANES_SUMMED, back, before, coefficients_of, forth, in_plane, plane_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.manual_seed(0)).to(DEVICE)


@triton.jit
def transform_four(source: Any, result: Any, INVERSE: tl.constexpr) -> None:
    a, b, c, d = tl.load(source), tl.load(source + 1), tl.load(source + 2), tl.load(source + 3)
    if INVERSE:
        a, b, c, d = back(a, b, c, d)
    else:
        a, b, c, d = forth(a, b, c, d)
    tl.store(result, a)
    tl.store(result + 1, b)
    tl.store(result + 2, c)
    tl.store(result + 3, d)


@pytest.mark.parametrize("inverse", [False, True])
def test_four_values_are_transformed_as_scipy_does(inverse: bool) -> None:
    values = numbers(4)
    result = torch.empty_like(values)
    transform_four[(1,)](values, result, inverse)
    expected = (idct if inverse else dct)(values.cpu().numpy(), norm="ortho")
    np.testing.assert_allclose(result.cpu().numpy(), expected, atol=1e-6)


@triton.jit
def transform_plane(source: Any, result: Any, ROWS: tl.constexpr) -> None:
    values = ()
    for n in tl.static_range(ROWS * 4):
        values += (tl.load(source + n),)
    values = in_plane(values, ROWS, False)
    for n in tl.static_range(ROWS * 4):
        tl.store(result + n, values[n])


@pytest.mark.parametrize("rows", [1, 4])
def test_a_plane_is_transformed_along_both_of_its_axes(rows: int) -> None:
    values = numbers(rows, 4)
    result = torch.empty_like(values)
    transform_plane[(1,)](values, result, rows)
    np.testing.assert_allclose(result.cpu().numpy(), dctn(values.cpu().numpy(), norm="ortho"), atol=1e-6)


@triton.jit
def there_and_back(volume: Any, matrix: Any, coefficients: Any, voxels: Any, SIZE_Z: tl.constexpr) -> None:
    lanes = tl.arange(0, 32)[None, :]
    found = coefficients_of(volume, lanes, lanes < 29, 4 * 32, 32, matrix, SIZE_Z, 4, 1)
    for n in tl.static_range(SIZE_Z * 16):
        tl.store(coefficients + n * 32 + lanes, found[n])
    for u in range(SIZE_Z):
        values = plane_of(found, matrix, u, SIZE_Z, 4)
        for n in tl.static_range(16):
            tl.store(voxels + (u * 16 + n) * 32 + lanes, values[n])


@pytest.mark.parametrize("depth", [1, 4])
def test_each_lane_transforms_its_patch_there_and_back(depth: int) -> None:
    volume = numbers(depth, 4, 32)
    coefficients, voxels = (torch.empty(depth * 16, 32, device=DEVICE) for _ in range(2))
    matrix = dct_matrix(depth).float().to(DEVICE)
    there_and_back[(1,)](volume, matrix, coefficients, voxels, depth)
    for x in range(29):
        patch = volume[..., x : x + 4].cpu().numpy()
        np.testing.assert_allclose(coefficients[:, x].cpu().numpy(), dctn(patch, norm="ortho").ravel(), atol=1e-5)
        np.testing.assert_allclose(voxels[:, x].cpu().numpy(), patch.ravel(), atol=1e-5)
    assert not coefficients[:, 29:].any()


@triton.jit
def shift(source: Any, result: Any, DISTANCE: tl.constexpr) -> None:
    lanes = tl.arange(0, 32)[None, :]
    tl.store(result + lanes, before(tl.load(source + lanes), lanes, DISTANCE))


@pytest.mark.parametrize("distance", [1, 3])
def test_a_lane_takes_what_an_earlier_one_has(distance: int) -> None:
    values = numbers(32)
    result = torch.empty_like(values)
    shift[(1,)](values, result, distance)
    assert torch.equal(result[distance:], values[:-distance])


def test_only_the_lanes_after_the_first_three_have_all_they_sum() -> None:
    assert LANES_SUMMED.value == 32 - 3
