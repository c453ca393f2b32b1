"""Sliding DCT shrinkage, against its formula written out patch by patch."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from nlmeans.core.lags import covariance_over, dct_basis
from nlmeans.patches.dct.sliding import hard_threshold, wiener_filter
from tests.nlmeans.patches.tensors import LAGS, Array, variance_of_coefficients


def reference(
    noisy: Array, pilot: Array, size: tuple[int, ...], stride: int, gain: Callable[[Array, Array], Array], noise: Array
) -> Array:
    """Every patch of the reflected volume is transformed, multiplied by its gain and added back."""
    margin = [(p - 1, p - 1 + stride) if p > 1 else (0, 0) for p in size]
    z, guide = np.pad(noisy, margin, "reflect"), np.pad(pilot, margin, "reflect")
    total, weights = np.zeros_like(z), np.zeros_like(z)
    grid = [range(0, n + p - 1 if p > 1 else 1, min(stride, p)) for n, p in zip(noisy.shape, size, strict=True)]
    for corner in itertools.product(*grid):
        box = tuple(slice(c, c + p) for c, p in zip(corner, size, strict=True))
        coefficients, oracle = dctn(z[box], norm="ortho"), dctn(guide[box], norm="ortho")
        g = gain(coefficients, oracle)
        g[0, 0, 0] = 1
        weight = 1 / (g**2 * noise).sum()
        total[box] += weight * idctn(g * coefficients, norm="ortho")
        weights[box] += weight
    inside = tuple(slice(p - 1, p - 1 + n) for n, p in zip(noisy.shape, size, strict=True))
    return total[inside] / weights[inside]


@pytest.mark.parametrize(
    ("shape", "stride", "size"), [((7, 8, 9), 1, (4, 4, 4)), ((7, 8, 9), 2, (4, 4, 4)), ((1, 9, 8), 1, (1, 4, 4))]
)
@pytest.mark.parametrize("lags", [None, LAGS], ids=["white", "correlated"])
def test_both_filters_follow_their_formulas(
    lags: torch.Tensor | None, shape: tuple[int, ...], stride: int, size: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(0)
    noisy = 3 * rng.standard_normal(shape)
    pilot = noisy + rng.standard_normal(shape)
    z, p = torch.from_numpy(noisy)[None], torch.from_numpy(pilot)[None]

    v = np.ones(size) if lags is None else variance_of_coefficients(covariance_over(lags, size).numpy(), size)

    hard = reference(noisy, noisy, size, stride, lambda c, o: (c**2 > 2.7**2 * v).astype(float), v)
    result = hard_threshold(z, patch=4, stride=stride, autocovariance=lags)
    np.testing.assert_allclose(result[0].numpy(), hard, atol=1e-12)

    soft = reference(noisy, pilot, size, stride, lambda c, o: o**2 / (o**2 + v), v)
    result = wiener_filter(z, p, patch=4, stride=stride, autocovariance=lags)
    np.testing.assert_allclose(result[0].numpy(), soft, atol=1e-12)


@pytest.mark.parametrize("method", [hard_threshold, lambda z, s=1.0: wiener_filter(z, z, s)])
def test_scaling_image_and_sigma_scales_the_result(method: Callable[..., torch.Tensor]) -> None:
    z = 4 * torch.randn(1, 6, 7, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    torch.testing.assert_close(method(3 * z, 3.0), 3 * method(z, 1.0))
    torch.testing.assert_close(method(3 * z, torch.full(z.shape[1:], 3.0, dtype=z.dtype)), 3 * method(z, 1.0))


def test_a_constant_comes_back_and_channels_do_not_mix() -> None:
    z = torch.full((1, 5, 6, 7), 42.0)
    torch.testing.assert_close(hard_threshold(z), z)
    two = torch.randn(2, 5, 6, 7, generator=torch.manual_seed(0)) * 3
    torch.testing.assert_close(hard_threshold(two)[1:], hard_threshold(two[1:]))


def test_noise_that_varies_is_removed_where_it_is() -> None:
    generator = torch.manual_seed(0)
    sigma = torch.linspace(0.2, 2.0, 40).expand(12, 12, 40)
    z = sigma * torch.randn(12, 12, 40, generator=generator)
    left = (hard_threshold(z[None], sigma)[0] / sigma).square().mean((0, 1)).sqrt()
    assert left.max() < 0.45


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    z = 3 * torch.randn(1, 12, 9, 9, generator=torch.manual_seed(0))
    whole = hard_threshold(z)
    monkeypatch.setattr("nlmeans.patches.dct.sliding.SLAB_PATCHES", 1)
    torch.testing.assert_close(hard_threshold(z), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 1, 30), (1, 1, 3, 5)])
def test_axes_shorter_than_a_patch(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, generator=torch.manual_seed(0))
    assert hard_threshold(z).isfinite().all()
    assert wiener_filter(z, z).shape == z.shape


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 9])
def test_a_basis_has_no_number_too_small_for_float32(length: int) -> None:
    basis = dct_basis((length, length, 1))
    torch.testing.assert_close(basis @ basis.T, torch.eye(length**2, dtype=torch.float64), atol=1e-14, rtol=0)
    assert basis[basis != 0].abs().min() > 1e-6
